//! Open: an accepted connection gets its id, its place in the table, and its worker.
//!
//! Where its listener expects the header of a proxy or speaks TLS, that comes first: no callback knows of the connection
//! until its peer is known, and a connection that does not come so far leaves nothing behind but a line in the log.

use std::os::fd::AsFd;

use super::deliver::Deliver;
use super::{Flow, Next};
use crate::config::MOST_HANDSHAKES;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::{CloseReason, Fact, add_fact};
use crate::limited::{Topic, limited};
use crate::net::acceptor::Accepted;
use crate::net::connection::{Connection, Step};
use crate::net::layer::{Layer, Stage};
use crate::net::proxy::{self, Begin, Header};
use crate::peer::Peer;
use crate::sys::socket::{self, Read};

impl Flow {
    /// Takes over an accepted connection, which is counted as this owner's already.
    pub(crate) fn adopt(&mut self, workers: &mut impl Deliver, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            listener,
        } = accepted;
        let now = self.now();
        let layer = self.layer(listener);
        match self.table.add(socket, peer, listener) {
            Ok(conn) => {
                let id = conn.id;
                conn.since = now;
                conn.rare.set_layer(layer);
                workers.opened(conn);
                self.begin_silence(id);
                if self.is_draining {
                    self.drain_one(id);
                }
                self.begin_to_open(id);
            }
            Err(error) => self.refuse((peer, listener), &error),
        }
    }

    /// Returns what a new connection of a listener has between its socket and its messages.
    fn layer(&self, listener: crate::config::ListenerId) -> Option<Layer> {
        let listener = self.config.listener(listener);
        let stage = match (listener.expects_header(), listener.has_tls()) {
            (true, _) => Stage::Header,
            (false, true) => Stage::Handshake,
            (false, false) => return None,
        };
        Some(Layer {
            stage,
            is_uncounted: listener.expects_header(),
            ..Layer::default()
        })
    }

    fn begin_to_open(&mut self, id: ConnId) {
        let Some(conn) = self.table.get(id).filter(|conn| conn.is_opening()) else {
            return;
        };
        let listener = self.config.listener(conn.listener);
        if listener.expects_header() && !listener.trusts(conn.peer.ip()) {
            self.refuse_opening(
                id,
                &"it is not from a network whose proxies are trusted (proxy_protocol)",
            );
        } else if !listener.expects_header() {
            self.begin_handshake(id);
        }
    }

    /// Goes on with the stage *open*.
    pub(super) fn open_on(&mut self, workers: &mut impl Deliver, id: ConnId) -> Read {
        let Some(layer) = self.table.get(id).and_then(|conn| conn.rare.layer()) else {
            return Read::Nothing;
        };
        let read = match layer.stage {
            Stage::Header => self.read_header(workers, id),
            Stage::Handshake if self.handshakes >= MOST_HANDSHAKES => return Read::Nothing,
            Stage::Handshake => {
                self.handshakes += 1;
                self.read_sealed(workers, id)
            }
            Stage::Open => Read::Nothing,
        };
        // All that the client has to say may have come with the end of the handshake.
        let is_opening = self.table.get(id).is_some_and(Connection::is_opening);
        match read {
            Read::End if is_opening => {
                // A health check, or a client that has changed its mind.
                log::debug!("connection {id} ended before it was open");
                self.abort(id, CloseReason::Peer);
                Read::Nothing
            }
            read => read,
        }
    }

    /// Ends a connection that is not open.
    pub(super) fn refuse_opening(&mut self, id: ConnId, why: &dyn std::fmt::Display) {
        let Some(conn) = self.table.get(id) else {
            return;
        };
        let (peer, listener) = (conn.peer, &self.config.listener(conn.listener).name);
        limited!(
            info,
            Topic::Opening,
            "connection {id} from {peer} to listener {listener} is refused before it is open: {why}"
        );
        self.abort(id, CloseReason::Refused);
    }

    // The header of a proxy.

    /// Reads the header, and nothing behind it: that is TLS, or a message.
    fn read_header(&mut self, workers: &mut impl Deliver, id: ConnId) -> Read {
        let mut bytes = [0; proxy::LONGEST];
        let Some(conn) = self.table.get_mut(id) else {
            return Read::Nothing;
        };
        let (Some(layer), Some(socket)) = (conn.rare.layer_mut(), &conn.socket) else {
            return Read::Nothing;
        };
        let before = layer.header.len();
        bytes[..before].copy_from_slice(&layer.header);
        let seen = match socket::peek(socket.as_fd(), &mut bytes[before..]) {
            Read::Bytes(seen) => before + seen,
            other => return other,
        };
        // What was seen of an incomplete header is read: it would be reported again and again.
        let (taken, header) = match proxy::begin(&bytes[..seen]) {
            Begin::More => (seen, None),
            Begin::Header(header, len) => (len, Some(header)),
            Begin::Wrong(problem) => {
                self.refuse_opening(id, &format_args!("its PROXY header is wrong: {problem}"));
                return Read::Nothing;
            }
        };
        let read = socket::read(socket.as_fd(), &mut bytes[before..taken]);
        if !matches!(read, Read::Bytes(_)) {
            return read;
        }
        match header {
            None => layer.header = bytes[..taken].to_vec(),
            Some(header) => {
                layer.header = Vec::new();
                self.header_has_come(workers, id, header);
            }
        }
        read
    }

    /// The client is known.
    fn header_has_come(&mut self, workers: &mut impl Deliver, id: ConnId, header: Header) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let proxy = conn.peer;
        if let Some(layer) = conn.rare.layer_mut() {
            layer.facts = header.facts;
            let address = proxy.to_string();
            if !add_fact(&mut layer.facts, Fact::Proxy, address.as_bytes()) {
                return self.refuse_opening(id, &"its PROXY header is too long");
            }
            layer.is_uncounted = false;
        }
        workers.gone(conn);
        conn.peer = header.client.map_or(proxy, Peer::Ip);
        workers.opened(conn);
        let (peer, listener) = (conn.peer, conn.listener);
        if !self.load.admit_client(peer, listener) {
            if let Some(layer) = self
                .table
                .get_mut(id)
                .and_then(|conn| conn.rare.layer_mut())
            {
                layer.is_uncounted = true;
            }
            self.abort(id, CloseReason::Refused);
        } else if self.config.listener(self.listener_of(id)).has_tls() {
            self.begin_handshake(id);
        } else {
            self.is_open(id);
        }
    }

    fn listener_of(&self, id: ConnId) -> crate::config::ListenerId {
        let conn = self.table.get(id);
        conn.map_or(crate::config::ListenerId(0), |conn| conn.listener)
    }

    // TLS.

    fn begin_handshake(&mut self, id: ConnId) {
        let session = self.contexts.begin(self.listener_of(id));
        let Some(layer) = self
            .table
            .get_mut(id)
            .and_then(|conn| conn.rare.layer_mut())
        else {
            return;
        };
        match session {
            Some(Ok(session)) => {
                (layer.stage, layer.session) = (Stage::Handshake, Some(session));
            }
            Some(Err(problem)) => self.refuse_opening(id, &problem),
            None => self.refuse_opening(id, &"this listener has read no certificates"),
        }
    }

    /// The handshake is complete.
    pub(super) fn handshake_is_over(&mut self, id: ConnId) {
        let Some(layer) = self
            .table
            .get_mut(id)
            .and_then(|conn| conn.rare.layer_mut())
        else {
            return;
        };
        let Some(session) = &layer.session else {
            return;
        };
        match session.tell(&mut layer.facts) {
            true => self.is_open(id),
            false => self.refuse_opening(id, &"its certificate is too long"),
        }
    }

    // The end of the stage.

    /// The connection is open: its first callback is due.
    fn is_open(&mut self, id: ConnId) {
        let now = self.look_at_clock();
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if let Some(layer) = conn.rare.layer_mut() {
            layer.stage = Stage::Open;
            conn.work.set_origin(std::mem::take(&mut layer.facts));
        }
        if conn
            .rare
            .layer()
            .is_some_and(|layer| layer.session.is_none())
        {
            // Of the header of a proxy, nothing is left to do.
            conn.rare.set_layer(None);
        }
        conn.pulse.heard = now;
        self.table.touch(id);
        self.begin_silence(id);
        if self.is_draining {
            self.drain_one(id);
        }
    }

    /// Continues if the connection is open.
    pub(super) fn if_open(&self, id: ConnId) -> Next {
        match self.table.get(id).is_some_and(Connection::is_opening) {
            true => Next::Break(()),
            false => Next::Continue(()),
        }
    }

    /// Submits `connect`, before any other event of the connection.
    pub(super) fn submit_connect(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        match self.table.get_mut(id) {
            Some(conn) if conn.work.connect == Step::Due => {
                self.submit_event(workers, id, Event::Connect)
            }
            Some(_) | None => Next::Continue(()),
        }
    }
}
