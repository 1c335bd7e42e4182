//! TLS of a listener, as it was set. The files are read by the process that owns the sockets (`net/tls.rs`).

use std::path::{Path, PathBuf};

use super::setting;
use crate::error::Error;

/// TLS for the connections of a listener: certificates, and what is asked of clients.
///
/// Versions 1.2 and 1.3 are spoken. The certificates and keys are PEM files. In process mode only the master reads them, so
/// that no key is ever in the memory of a worker; SIGHUP to the master reads them anew, for connections that come
/// from then on. In base mode the manager reads them before it forks, and workers that are started later have what
/// SIGHUP has read.
///
/// ```
/// use tine::{Listener, Protocol, Tls};
///
/// let tls = Tls::files("example.org.pem", "example.org.key")
///     .certificate("example.net.pem", "example.net.key") // for clients that ask for that name
///     .application_protocols(["lines/1"]);
/// let listener = Listener::tcp("0.0.0.0:7443").protocol(Protocol::lines()).tls(tls);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Tls {
    pub(crate) certificates: Vec<Certificate>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) client_authorities: Option<PathBuf>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) clients_may_be_unknown: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) application_protocols: Vec<String>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) only_1_3: bool,
}

/// A certificate and its key, by their files.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Tls {
    /// TLS with this certificate: a PEM file with the server's own first and then those that vouch for it, up to
    /// one that clients know; and a PEM file with its private key (PKCS#8, PKCS#1 or SEC1).
    pub fn files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Tls {
        let tls = Tls {
            certificates: Vec::new(),
            client_authorities: None,
            clients_may_be_unknown: false,
            application_protocols: Vec::new(),
            only_1_3: false,
        };
        tls.certificate(chain, key)
    }

    /// TLS to which the certificate is still to be added.
    #[cfg(feature = "capi")]
    pub(crate) fn none() -> Tls {
        Tls {
            certificates: Vec::new(),
            ..Tls::files("", "")
        }
    }

    /// Adds another certificate. A client gets the first one that is valid for the host name that it asks for (server name
    /// indication, RFC 6066), wildcards included; one that asks for another name, or for none, gets the first of
    /// all.
    pub fn certificate(mut self, chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Tls {
        self.certificates.push(Certificate {
            chain: chain.as_ref().into(),
            key: key.as_ref().into(),
        });
        self
    }

    /// Asks each client for a certificate, which one of those in this PEM file must vouch for. A client without one is
    /// refused. [`Origin::client_certificate`](crate::Origin::client_certificate) returns it.
    pub fn client_authorities(mut self, file: impl AsRef<Path>) -> Tls {
        self.client_authorities = Some(file.as_ref().into());
        self
    }

    /// Takes clients without a certificate, too. One that has sent a certificate which nobody vouches for is refused
    /// all the same.
    pub fn clients_may_be_unknown(mut self) -> Tls {
        self.clients_may_be_unknown = true;
        self
    }

    /// The protocols that the server speaks on this listener (ALPN, RFC 7301), the most wanted first, such as
    /// `["h2", "http/1.1"]`. A client that offers others only is refused; one that offers none is taken.
    pub fn application_protocols(
        mut self,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Tls {
        self.application_protocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Refuses clients that do not speak version 1.3.
    pub fn only_1_3(mut self) -> Tls {
        self.only_1_3 = true;
        self
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        if self.certificates.is_empty() {
            let problem =
                "it has no certificate: add the files of one with its key, or leave TLS out";
            return Err(setting("tls", problem));
        }
        if self.clients_may_be_unknown && self.client_authorities.is_none() {
            let problem = "clients_may_be_unknown has no effect without client_authorities: set both, or neither";
            return Err(setting("tls", problem));
        }
        for name in &self.application_protocols {
            if name.is_empty() || name.len() > 255 {
                let problem = format!("the application protocol {name:?} has not 1 to 255 bytes");
                return Err(setting("tls", problem));
            }
        }
        Ok(())
    }
}
