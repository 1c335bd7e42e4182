//! TLS: the certificates of the listeners, and the session of one connection.
//!
//! The protocol is rustls's. A session has no buffers but the beginning of a record whose rest has not come: its bytes
//! come from the loop's scratch memory, and go there. Its one rule: keys are in the process that owns the
//! sockets, and nowhere else.

use std::cell::RefCell;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::Builder;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert,
    UnbufferedServerConnection, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, ProtocolVersion, RootCertStore, ServerConfig, version};

use crate::config::{Config, ListenerId, Tls};
use crate::handler::{Fact, add_fact};

/// What the listeners of a server have read, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Contexts(Vec<Option<Context>>);

#[derive(Debug)]
struct Context {
    listener: String,
    settings: Tls,
    /// The key of session tickets stays when files are read anew: sessions go on.
    tickets: Arc<dyn ProducesTickets>,
    now: RwLock<Arc<ServerConfig>>,
}

impl Contexts {
    /// Reads the files of all listeners.
    ///
    /// # Errors
    /// The name of a listener, and the problem.
    pub(crate) fn of(config: &Config) -> Result<Arc<Contexts>, (String, String)> {
        let context = |listener: &crate::config::ListenerConfig| {
            let Some(settings) = &listener.tls else {
                return Ok::<_, (String, String)>(None);
            };
            let wrong = |problem| (listener.name.clone(), problem);
            let tickets = ring::Ticketer::new()
                .map_err(|error| wrong(format!("no key for session tickets: {error}")))?;
            let now = read(settings, &tickets).map_err(wrong)?;
            Ok(Some(Context {
                listener: listener.name.clone(),
                settings: settings.clone(),
                tickets,
                now: RwLock::new(Arc::new(now)),
            }))
        };
        let contexts: Result<_, _> = config.listeners.iter().map(context).collect();
        Ok(Arc::new(Contexts(contexts?)))
    }

    /// Reads the files anew, in a thread of its own, since a disk may take its time. What can't be used leaves that
    /// listener as it is, with a line in the log.
    pub(crate) fn read_anew(self: &Arc<Self>) {
        if self.0.iter().all(Option::is_none) {
            return;
        }
        let contexts = Arc::clone(self);
        let thread = Builder::new().name("tine tls".to_owned());
        if let Err(error) = thread.spawn(move || contexts.read_all()) {
            log::error!(
                "the certificates stay as they are: cannot start a thread to read them: {error}"
            );
        }
    }

    /// Reads the files anew. For the manager of base mode, which forks and so has no other thread.
    pub(crate) fn read_all(&self) {
        for context in self.0.iter().flatten() {
            let listener = &context.listener;
            match read(&context.settings, &context.tickets) {
                Ok(read) => {
                    let mut now = context.now.write().unwrap_or_else(PoisonError::into_inner);
                    *now = Arc::new(read);
                    log::info!("listener {listener}: the certificates were read anew");
                }
                Err(problem) => log::error!(
                    "listener {listener}: the certificates stay as they are, since the new ones can't be used: {problem}"
                ),
            }
        }
    }

    /// Returns a session for a new connection; `None` if its listener has no TLS.
    pub(crate) fn begin(&self, listener: ListenerId) -> Option<Result<Session, String>> {
        let context = self.0.get(listener.index())?.as_ref()?;
        let now = context.now.read().unwrap_or_else(PoisonError::into_inner);
        let config = Arc::clone(&now);
        Some(Session::new(config).map_err(|error| error.to_string()))
    }
}

// Files.

fn read(settings: &Tls, tickets: &Arc<dyn ProducesTickets>) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let versions = match settings.only_1_3 {
        true => &[&version::TLS13][..],
        false => &[&version::TLS13, &version::TLS12],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match &settings.client_authorities {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| about(file, error))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let verifier = match settings.clients_may_be_unknown {
                true => verifier.allow_unauthenticated(),
                false => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| about(file, error))?)
        }
    };
    let mut keys = Vec::new();
    for certificate in &settings.certificates {
        keys.push(key(&certificate.chain, &certificate.key, &provider)?);
    }
    let mut config = builder.with_cert_resolver(Arc::new(Keys(keys)));
    config.alpn_protocols = settings
        .application_protocols
        .iter()
        .map(|name| name.clone().into_bytes())
        .collect();
    config.ticketer = Arc::clone(tickets);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn about(file: &Path, problem: impl Display) -> String {
    format!("{}: {problem}", file.display())
}

/// Returns the certificates in a file: at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(file).map_err(|error| about(file, error))?;
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(|error| about(file, error))?;
    match found.is_empty() {
        true => Err(about(file, "it has no certificate in PEM")),
        false => Ok(found),
    }
}

fn key(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let certificates = certificates(chain)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| about(key, error))?;
    let certified = CertifiedKey::from_der(certificates, private, provider);
    certified.map(Arc::new).map_err(|error| {
        let (chain, key) = (chain.display(), key.display());
        format!("{chain} with {key}: {error}")
    })
}

/// The certificates of a listener with their keys.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

thread_local! {
    /// The host name that the last client has asked for: a session does not tell.
    static ASKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        ASKED.set(name.map(str::to_owned));
        let named = name
            .filter(|_| self.0.len() > 1)
            .and_then(|name| ServerName::try_from(name).ok())
            .and_then(|name| self.0.iter().find(|key| is_valid_for(key, &name)));
        named.or(self.0.first()).cloned()
    }
}

fn is_valid_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let own = key.cert.first();
    let parsed = own.and_then(|own| ParsedCertificate::try_from(own).ok());
    parsed.is_some_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

// Sessions.

/// The TLS of one connection.
pub(crate) struct Session {
    tls: UnbufferedServerConnection,
    /// The beginning of what can only be read as a whole.
    incoming: Vec<u8>,
    server_name: Option<Box<str>>,
    is_open: bool,
    has_ended: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("is_open", &self.is_open)
            .finish_non_exhaustive()
    }
}

/// What is said of a session in which rustls has panicked.
const PANICKED: &str = "the TLS library has panicked, and the session can't go on";

/// Calls code of rustls, which reads what strangers have sent: a panic in it costs their connection, and no other.
/// Returns `None` then.
fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// Room for the records of a piece of output beside its bytes: rustls says if it needs more.
const OVERHEAD: usize = 64;

/// The bytes of a record.
const RECORD: usize = 16 << 10;

impl Session {
    fn new(config: Arc<ServerConfig>) -> Result<Session, Error> {
        Ok(Session {
            tls: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            server_name: None,
            is_open: false,
            has_ended: false,
        })
    }

    /// Whether the handshake is complete.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the peer has said that no more bytes come.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns what was read and is not complete.
    pub(crate) fn incoming(&self) -> &[u8] {
        &self.incoming
    }

    /// Keeps what was read and is not complete.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        match rest.is_empty() {
            // An idle connection holds no memory for it.
            true => self.incoming = Vec::new(),
            false => {
                self.incoming.clear();
                self.incoming.extend_from_slice(rest);
            }
        }
    }

    /// Takes the complete records at the begin of `records`, which begin with what was [kept](Self::keep). Appends their
    /// bytes to `plain`, and what the peer is to get to `out`, also after an error. Returns how many bytes of `records`
    /// are used up.
    pub(crate) fn take(
        &mut self,
        records: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let taken = guarded(|| self.take_all(records, plain, out));
        if let Some(name) = ASKED.take() {
            self.server_name = Some(name.into());
        }
        if matches!(taken, Some(Err(_))) && guarded(|| self.write_alert(out)).is_none() {
            out.clear();
        }
        taken.unwrap_or_else(|| Err(PANICKED.to_owned()))
    }

    /// After an error, what the peer is to know of it. No record is read: the session can read none any more.
    fn write_alert(&mut self, out: &mut Vec<u8>) {
        while self.tls.wants_write() {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn take_all(
        &mut self,
        records: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut records[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|error| error.to_string())?;
                        used += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(_)) => {
                    self.is_open = true;
                    return Ok(used);
                }
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                    return Ok(used);
                }
                // No early data is offered.
                Ok(_) => return Err("it has sent early data".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Encrypts bytes, and appends the records to `out`.
    pub(crate) fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let records = bytes.len().div_ceil(RECORD);
        let room = bytes.len() + records * OVERHEAD;
        let sealed =
            guarded(|| self.write(out, room, |traffic, room| traffic.encrypt(bytes, room)));
        sealed.unwrap_or_else(|| Err(io::Error::other(PANICKED)))
    }

    /// Appends the record to `out` that says that no more bytes come.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let ended = guarded(|| {
            self.write(out, OVERHEAD, |traffic, room| {
                traffic.queue_close_notify(room)
            })
        });
        ended.unwrap_or_else(|| Err(io::Error::other(PANICKED)))
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        mut room: usize,
        mut write: impl FnMut(
            &mut WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        // With the same bytes as before: what is incomplete may be known to the session by its place among them.
        let mut incoming = std::mem::take(&mut self.incoming);
        let mut used = 0;
        let written = loop {
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut incoming[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let begin = out.len();
                    out.resize(begin + room, 0);
                    match write(&mut traffic, &mut out[begin..]) {
                        Ok(len) => {
                            out.truncate(begin + len);
                            break Ok(());
                        }
                        Err(EncryptError::InsufficientSize(InsufficientSizeError {
                            required_size,
                        })) => {
                            out.truncate(begin);
                            room = required_size;
                        }
                        Err(error) => break Err(io::Error::other(error.to_string())),
                    }
                }
                Ok(_) => break Err(io::Error::other("the session can send nothing more")),
                Err(error) => break Err(io::Error::other(error)),
            }
        };
        incoming.drain(..used);
        self.incoming = incoming;
        written
    }

    /// Adds what is known of the peer to an origin. Returns whether there was room.
    pub(crate) fn tell(&self, origin: &mut Vec<u8>) -> bool {
        let version = match self.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(_) | None => "TLSv1.2",
        };
        let certificate = self.tls.peer_certificates().and_then(<[_]>::first);
        let facts = [
            (Fact::TlsVersion, Some(version.as_bytes())),
            (
                Fact::ServerName,
                self.server_name.as_deref().map(str::as_bytes),
            ),
            (Fact::Application, self.tls.alpn_protocol()),
            (Fact::Certificate, certificate.map(AsRef::as_ref)),
        ];
        facts
            .into_iter()
            .filter_map(|(fact, value)| Some((fact, value?)))
            .all(|(fact, value)| add_fact(origin, fact, value))
    }
}

fn encode<T>(mut data: EncodeTlsData<'_, T>, out: &mut Vec<u8>) {
    let begin = out.len();
    let mut room = RECORD + OVERHEAD;
    loop {
        out.resize(begin + room, 0);
        match data.encode(&mut out[begin..]) {
            Ok(len) => return out.truncate(begin + len),
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                room = required_size;
            }
            Err(EncodeError::AlreadyEncoded) => return out.truncate(begin),
        }
    }
}
