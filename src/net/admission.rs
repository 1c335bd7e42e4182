//! Who is let in: the rules of listeners about their clients, looked at once for each connection, as it comes.
//!
//! Runs where connections are accepted: in the reactor threads, and in every base mode worker; the networks alone also
//! in the manager of base mode. Its one rule: a listener without rules costs nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use super::addresses::{Addresses, Origin};
use super::handover::Handover;
use super::rates::Rates;
use crate::config::networks::{Prefix, Rules};
use crate::config::{Config, ListenerConfig, ListenerId};
use crate::limited::{Topic, limited};
use crate::peer::Peer;

/// The rules of all listeners.
#[derive(Debug)]
pub(crate) struct Admission {
    /// By listener.
    gates: Vec<Gate>,
    /// Connections that are open, by client, if there is a limit for each.
    open: Option<Addresses>,
    denied: AtomicU64,
    hurried: AtomicU64,
}

/// The rules of one listener.
#[derive(Debug)]
struct Gate {
    name: String,
    rules: Rules,
    rates: Option<Rates>,
    /// Its clients come through proxies: who they are, the header says.
    is_proxied: bool,
}

impl Admission {
    /// No rules, for tests.
    #[cfg(test)]
    pub(crate) fn none() -> Admission {
        Admission::new(&[], None)
    }

    pub(crate) fn of(config: &Config) -> Admission {
        Admission::new(&config.listeners, config.max_per_address)
    }

    fn new(listeners: &[ListenerConfig], max_per_address: Option<u32>) -> Admission {
        let gate = |listener: &ListenerConfig| Gate {
            name: listener.name.clone(),
            rules: listener.rules.clone(),
            rates: listener.rules.rate.map(Rates::new),
            is_proxied: listener.expects_header(),
        };
        Admission {
            gates: listeners.iter().map(gate).collect(),
            open: max_per_address.map(Addresses::new),
            denied: AtomicU64::new(0),
            hurried: AtomicU64::new(0),
        }
    }

    /// Whether the clients of a listener come through proxies.
    pub(crate) fn is_proxied(&self, listener: ListenerId) -> bool {
        let gate = self.gates.get(listener.index());
        gate.is_some_and(|gate| gate.is_proxied)
    }

    /// Counts a new connection, unless its client is not known yet. Returns whether it may stay.
    pub(crate) fn admit(&self, peer: Peer, listener: ListenerId) -> bool {
        self.is_proxied(listener) || self.admit_client(peer, listener)
    }

    /// Counts a new connection of this client. Returns whether it may stay.
    pub(crate) fn admit_client(&self, peer: Peer, listener: ListenerId) -> bool {
        if let Some(gate) = self.gates.get(listener.index()) {
            if !is_allowed(&gate.rules, &gate.name, peer) {
                self.denied.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            let origin = || Origin::of(peer, gate.rules.prefix);
            if gate.rates.as_ref().is_some_and(|it| !it.enter(origin())) {
                self.refuse_hurried(peer, gate);
                return false;
            }
        }
        let origin = || Origin::of(peer, self.prefix(listener));
        let open = self.open.as_ref();
        open.is_none_or(|open| open.enter(origin(), peer))
    }

    fn refuse_hurried(&self, peer: Peer, gate: &Gate) {
        self.hurried.fetch_add(1, Ordering::Relaxed);
        limited!(
            warn,
            Topic::Refused,
            "connection from {peer} refused: its address has had {} new ones in a second (max_new_per_second of listener {})",
            gate.rules.rate.unwrap_or_default(),
            gate.name
        );
    }

    /// Counts a connection that another process has passed on. Returns whether it may stay: no worker has admitted a
    /// client that is new, and one that is known was admitted before.
    pub(crate) fn admit_passed(&self, handover: &Handover) -> bool {
        let (peer, listener) = (handover.peer, handover.listener);
        if handover.public.is_none() {
            return self.admit(peer, listener);
        }
        if let Some(open) = &self.open {
            open.enter_moved(Origin::of(peer, self.prefix(listener)));
        }
        true
    }

    /// The socket of an admitted connection is closed.
    pub(crate) fn leave(&self, peer: Peer, listener: ListenerId) {
        if let Some(open) = &self.open {
            open.leave(Origin::of(peer, self.prefix(listener)));
        }
    }

    fn prefix(&self, listener: ListenerId) -> Prefix {
        let gate = self.gates.get(listener.index());
        gate.map_or(Prefix::DEFAULT, |gate| gate.rules.prefix)
    }

    /// Returns the numbers of connections that were refused since the start: for too many open ones, by their networks, and
    /// for coming too fast.
    #[cfg(any(test, feature = "status"))]
    pub(crate) fn refused(&self) -> [u64; 3] {
        let open = self.open.as_ref().map_or(0, Addresses::refused);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [open, count(&self.denied), count(&self.hurried)]
    }
}

/// Whether a client may connect to a listener by its address. A refusal has a line in the log.
pub(crate) fn is_allowed(rules: &Rules, listener: &str, peer: Peer) -> bool {
    let is_allowed = peer.ip().is_none_or(|address| rules.admit(address));
    if !is_allowed {
        limited!(
            warn,
            Topic::Refused,
            "connection from {peer} refused: listener {listener} does not take clients of its network (allow, deny)"
        );
    }
    is_allowed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::policy::Deciders;
    use crate::config::{Listener, Settings};

    #[test]
    fn each_listener_has_its_own_rules_and_what_it_refuses_is_not_counted_as_open() {
        let fast = Listener::tcp("127.0.0.1:2").max_new_per_second(1);
        let settings = Settings {
            max_connections_per_address: Some(3),
            listen: vec![
                Listener::tcp("127.0.0.1:1").deny(["10.0.0.0/8"]),
                fast.address_prefix(24, 64),
            ],
            ..Settings::default()
        };
        let config = settings.validate(Deciders::default()).unwrap();
        let admission = Admission::of(&config);
        let [first, second] = [ListenerId(0), ListenerId(1)];
        let peer = |text: &str| Peer::Ip(text.parse().unwrap());
        assert!(!admission.admit(peer("10.0.0.1:1"), first));
        assert!(admission.admit(peer("10.0.0.1:1"), second));
        assert!(
            !admission.admit(peer("10.0.0.2:1"), second),
            "the same 24 bits"
        );
        assert!(admission.admit(peer("10.0.1.1:1"), second));
        let user = |pid, uid| Peer::Unix(crate::peer::Credentials::new(pid, uid, 0));
        let entered = (0..5).filter(|pid| admission.admit(user(*pid, 7), first));
        assert_eq!(entered.count(), 3, "by user");
        assert!(admission.admit(user(1, 8), first));
        assert_eq!(admission.refused(), [2, 1, 1]);
        admission.leave(user(77, 7), first);
        assert!(admission.admit(user(5, 7), first));
    }
}
