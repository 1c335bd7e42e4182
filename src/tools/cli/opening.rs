//! What `tine serve` does between accept and the first callback: the PROXY protocol, and TLS.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use rcgen::{CertificateParams, KeyPair, SanType};
use tine::{Listener, Tls};

use super::serve::{Deadline, deadline};

/// The names of a certificate that `tine` makes for itself.
const OWN_NAMES: [&str; 1] = ["localhost"];

#[derive(Args)]
#[command(next_help_heading = "PROXY protocol and TLS")]
pub(super) struct Opening {
    /// Take the PROXY protocol, version 1 or 2, from these networks, such as 10.0.0.0/8,::1/128: each connection begins
    /// with its header, which names the client. Connections from elsewhere are reset.
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    proxy_protocol: Vec<String>,

    /// Speak TLS with this certificate: PEM files with the chain and with the private key. May be given more than once, for
    /// clients that ask for other host names. `self-signed` makes a certificate for localhost, to try it. SIGHUP
    /// reads the files anew.
    #[arg(long, value_name = "CERT,KEY|self-signed", value_parser = certificate)]
    tls: Vec<Certificate>,

    /// Ask each client for a certificate, which one in this PEM file must vouch for.
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_clients: Option<PathBuf>,

    /// Protocols to agree on with clients (ALPN), the most wanted first, such as h2,http/1.1.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "tls")]
    alpn: Vec<String>,

    /// Seconds that the PROXY header and the handshake of TLS may take together, or never
    /// [default: 10].
    #[arg(long, value_name = "SECONDS|never", value_parser = deadline)]
    opening_deadline: Option<Deadline>,

    /// What `self-signed` has made.
    #[arg(skip)]
    made: Mutex<Made>,
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Certificate {
    Files(PathBuf, PathBuf),
    SelfSigned,
}

fn certificate(text: &str) -> Result<Certificate, String> {
    match text.split_once(',') {
        _ if text == "self-signed" => Ok(Certificate::SelfSigned),
        Some((chain, key)) if !chain.is_empty() && !key.is_empty() => {
            Ok(Certificate::Files(chain.into(), key.into()))
        }
        _ => Err("two files with a comma between, or self-signed, is expected".to_owned()),
    }
}

/// The files of a certificate that was made for one run, removed at its end.
#[derive(Default, Debug)]
struct Made(Option<tempfile::TempDir>);

impl Opening {
    /// Adds these settings to a listener.
    ///
    /// # Errors
    /// A certificate can't be made.
    pub(super) fn apply(&self, mut listener: Listener) -> Result<Listener, String> {
        if !self.proxy_protocol.is_empty() {
            listener = listener.proxy_protocol(self.proxy_protocol.iter().cloned());
        }
        if let Some(Deadline(time)) = self.opening_deadline {
            listener = listener.opening_deadline(time);
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tls: Option<Tls> = None;
        for certificate in &self.tls {
            let (chain, key) = match certificate {
                Certificate::Files(chain, key) => (chain.clone(), key.clone()),
                Certificate::SelfSigned => made.files()?,
            };
            tls = Some(match tls {
                None => Tls::files(chain, key),
                Some(tls) => tls.certificate(chain, key),
            });
        }
        if let Some(mut tls) = tls {
            if let Some(file) = &self.tls_clients {
                tls = tls.client_authorities(file);
            }
            listener = listener.tls(tls.application_protocols(self.alpn.iter().cloned()));
        }
        Ok(listener)
    }
}

impl Made {
    /// Returns the files, which are made at the first call.
    fn files(&mut self) -> Result<(PathBuf, PathBuf), String> {
        let folder = match &self.0 {
            Some(folder) => folder,
            None => self.0.insert(
                make()
                    .map_err(|error| format!("cannot make a self-signed certificate: {error}"))?,
            ),
        };
        Ok((
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        ))
    }
}

fn make() -> Result<tempfile::TempDir, Box<dyn std::error::Error>> {
    let folder = tempfile::Builder::new().prefix("tine-tls-").tempdir()?;
    let mut params = CertificateParams::new(OWN_NAMES.map(str::to_owned))?;
    params
        .subject_alt_names
        .push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write(&folder.path().join("cert.pem"), &certificate.pem())?;
    write(&folder.path().join("key.pem"), &key.serialize_pem())?;
    Ok(folder)
}

/// Writes a file that nobody else can read.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_two_files_or_self_signed() {
        let files = Certificate::Files("a.pem".into(), "b.key".into());
        assert_eq!(certificate("a.pem,b.key"), Ok(files));
        assert_eq!(certificate("self-signed"), Ok(Certificate::SelfSigned));
        for wrong in ["", "a.pem", "a.pem,", ",b.key"] {
            assert!(certificate(wrong).is_err(), "{wrong}");
        }
    }
}
