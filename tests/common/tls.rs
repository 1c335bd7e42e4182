//! Certificates that are made for a test, and a client that speaks TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use tempfile::TempDir;

use super::SOON;

/// An authority, and what it has vouched for: files in a folder.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for certificates");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "tests of tine");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let authority = Self { folder, issuer };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file of a certificate");
    }

    /// Vouches for a host name: makes NAME.pem and NAME.key.
    pub(crate) fn vouch_for(&self, name: &str) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a host name");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// Returns the value of `tine serve --tls`.
    pub(crate) fn pair(&self, name: &str) -> String {
        let [chain, key] = ["pem", "key"].map(|end| self.path(&format!("{name}.{end}")));
        format!("{},{}", chain.display(), key.display())
    }

    /// Returns how a client of this authority speaks TLS.
    pub(crate) fn dial(&self) -> Dial {
        Dial {
            authority: self.path("ca.pem"),
            name: "localhost".to_owned(),
            certificate: None,
            protocols: Vec::new(),
            only_1_2: false,
        }
    }
}

/// How a client speaks TLS.
#[derive(Clone)]
pub(crate) struct Dial {
    authority: PathBuf,
    pub(crate) name: String,
    /// The files of its own certificate, without their ends.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) protocols: Vec<Vec<u8>>,
    pub(crate) only_1_2: bool,
}

/// A client with TLS. No call of it waits longer than [`SOON`] for the server.
pub(crate) struct TlsClient(StreamOwned<ClientConnection, TcpStream>);

impl Dial {
    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.authority).expect("an authority") {
            let certificate = certificate.expect("a certificate in PEM");
            roots.add(certificate).expect("a certificate");
        }
        let versions = match self.only_1_2 {
            true => &[&version::TLS12][..],
            false => &[&version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("a version")
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let file = |end: &str| format!("{}.{end}", files.display());
                let chain = CertificateDer::pem_file_iter(file("pem"));
                let chain = chain.expect("a certificate").collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_file(file("key"));
                let chain = chain.expect("a certificate in PEM");
                let builder = builder.with_client_auth_cert(chain, key.expect("a key"));
                builder.expect("a certificate with its key")
            }
        };
        config.alpn_protocols.clone_from(&self.protocols);
        config
    }

    /// Connects, and makes the handshake.
    pub(crate) fn try_connect(&self, server: SocketAddr) -> io::Result<TlsClient> {
        self.over(TcpStream::connect_timeout(&server, SOON)?)
    }

    /// Makes the handshake on a connection.
    pub(crate) fn over(&self, stream: TcpStream) -> io::Result<TlsClient> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        let name = ServerName::try_from(self.name.clone()).expect("a host name");
        let connection = ClientConnection::new(Arc::new(self.config()), name);
        let connection = connection.map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(TlsClient(stream))
    }

    #[track_caller]
    pub(crate) fn connect(&self, server: SocketAddr) -> TlsClient {
        self.try_connect(server)
            .unwrap_or_else(|error| panic!("connect to {server}: {error}"))
    }
}

impl TlsClient {
    pub(crate) fn connection(&self) -> &ClientConnection {
        &self.0.conn
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.0.sock
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("send");
        self.0.flush().expect("send");
    }

    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        self.0.read_exact(&mut got).expect("an answer");
        assert!(got == expected, "other bytes than were expected");
    }

    #[track_caller]
    pub(crate) fn echo(&mut self, bytes: &[u8]) {
        self.send(bytes);
        self.expect(bytes);
    }

    /// Sends a message, and reads as many bytes. Returns whether they are the same.
    pub(crate) fn try_echo(&mut self, message: &[u8]) -> io::Result<bool> {
        let mut got = vec![0; message.len()];
        self.0.write_all(message)?;
        self.0.flush()?;
        self.0.read_exact(&mut got)?;
        Ok(got == message)
    }

    /// Says that nothing more comes, and waits for the server to say so, by TLS.
    pub(crate) fn try_end(&mut self) -> io::Result<()> {
        self.0.conn.send_close_notify();
        self.0.conn.complete_io(&mut self.0.sock)?;
        self.0.sock.shutdown(Shutdown::Write)?;
        match self.0.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("more bytes than were sent")),
        }
    }

    /// Sends a line, and returns the answer's.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\n").as_bytes());
        self.read_line()
    }

    /// As [`ask`](Self::ask); the answer is before or behind these bytes.
    #[track_caller]
    pub(crate) fn ask_behind(&mut self, command: &str, bytes: &[u8]) -> String {
        self.send(format!("{command}\n").as_bytes());
        let mut first = [0];
        self.0.read_exact(&mut first).expect("an answer");
        if first[0] != bytes[0] {
            let rest = self.read_line();
            self.expect(bytes);
            return format!("{}{rest}", char::from(first[0]));
        }
        self.expect(&bytes[1..]);
        self.read_line()
    }

    #[track_caller]
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a line");
            if byte == *b"\n" {
                return String::from_utf8(line).expect("text");
            }
            line.extend(byte);
        }
    }

    /// Says that nothing more comes, by TLS and by TCP.
    pub(crate) fn half_close(&mut self) {
        self.0.conn.send_close_notify();
        let written = self.0.conn.complete_io(&mut self.0.sock);
        written.expect("the last record");
        self.0.sock.shutdown(Shutdown::Write).expect("a FIN");
    }

    /// Reads until the server says, by TLS, that nothing more comes.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("an end by TLS");
        bytes
    }

    /// Waits until bytes of the server have come, and leaves them.
    pub(crate) fn await_bytes(&self) {
        self.0.sock.peek(&mut [0]).expect("bytes");
    }

    /// Whether the server has ended the connection in any way.
    pub(crate) fn has_ended(&mut self) -> bool {
        match self.0.read(&mut [0; 1024]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}
