//! Where a listener listens, as the user has written it, and the addresses and descriptors that this stands for.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::super::setting;
use crate::error::Error;
use crate::sys::activation::{self, Passed};
use crate::sys::address::{Address, LONGEST_PATH, UnixName};
use crate::sys::interface;

/// The address of a listener.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::config) enum Place {
    /// ADDRESS:PORT, as the user wrote it.
    Tcp(String),
    /// A path, or `@` and an abstract name.
    Unix(PathBuf),
    Inherited(Inherited),
}

/// Listening sockets that another program has opened, and passes to this one: see
/// [`Listener::inherited`](crate::Listener::inherited). Its text is that of `tine serve --listen`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Inherited {
    /// `fd:3`: the descriptor with this number, 3 or higher, which the program that has executed this one left open.
    Fd(i32),
    /// `systemd`: all sockets that were passed by the variables of sd_listen_fds(3).
    Systemd,
    /// `systemd:NAME`: those of them that have this name, `FileDescriptorName=` in systemd.socket(5).
    Named(String),
}

/// A socket of a listener, before it is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// It is to be bound.
    Bind(Address),
    /// It listens, and has this descriptor.
    Inherit(i32),
}

impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inherited::Fd(number) => write!(f, "fd:{number}"),
            Inherited::Systemd => f.write_str("systemd"),
            Inherited::Named(name) => write!(f, "systemd:{name}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => f.write_str(address),
            Place::Unix(path) => UnixName::of(path).fmt(f),
            Place::Inherited(inherited) => inherited.fmt(f),
        }
    }
}

impl Inherited {
    /// Reads the text; `None` if it is none.
    pub(in crate::config) fn parse(text: &str) -> Option<Inherited> {
        match text.split_once(':') {
            None if text == "systemd" => Some(Inherited::Systemd),
            Some(("systemd", name)) => Some(Inherited::Named(name.to_owned())),
            Some(("fd", number)) => number.parse().ok().map(Inherited::Fd),
            Some(_) | None => None,
        }
    }

    fn look_up(&self) -> Result<Vec<Source>, Error> {
        let wrong = |why: String| setting("listen", format!("{self}: {why}"));
        match self {
            Inherited::Fd(number @ 3..) => Ok(vec![Source::Inherit(*number)]),
            Inherited::Fd(0..=2) => Err(wrong(
                "the descriptors 0 to 2 are the standard streams: pass the socket as 3 or higher"
                    .to_owned(),
            )),
            Inherited::Fd(_) => Err(wrong("a descriptor is a number from 3 on".to_owned())),
            Inherited::Systemd | Inherited::Named(_) => {
                let passed = activation::passed().map_err(wrong)?;
                self.choose(&passed).map_err(wrong)
            }
        }
    }

    /// Returns those of the descriptors that it names.
    fn choose(&self, passed: &[Passed]) -> Result<Vec<Source>, String> {
        let is_meant = |one: &&Passed| match self {
            Inherited::Named(name) => one.name == *name,
            Inherited::Systemd | Inherited::Fd(_) => true,
        };
        let chosen: Vec<Source> = passed
            .iter()
            .filter(is_meant)
            .map(|one| Source::Inherit(one.number))
            .collect();
        if chosen.is_empty() {
            let names: Vec<&str> = passed.iter().map(|one| one.name.as_str()).collect();
            return Err(format!(
                "no socket with this name was passed; passed were: {}",
                names.join(", ")
            ));
        }
        Ok(chosen)
    }
}

impl Place {
    /// Reads an address in the form of `tine serve --listen`. What has none of the other forms is one of TCP.
    pub(in crate::config) fn parse(text: &str) -> Place {
        if let Some(path) = text.strip_prefix("unix:") {
            return Place::Unix(path.into());
        }
        match Inherited::parse(text) {
            Some(inherited) => Place::Inherited(inherited),
            None => Place::Tcp(text.to_owned()),
        }
    }

    /// Returns the sockets that it stands for. Nothing is opened.
    pub(super) fn look_up(&self) -> Result<Vec<Source>, Error> {
        match self {
            Place::Tcp(address) => {
                let found = addresses(address)?;
                Ok(found
                    .into_iter()
                    .map(|it| Source::Bind(it.into()))
                    .collect())
            }
            Place::Unix(path) => {
                let name = UnixName::of(path);
                check_name(&name).map_err(|why| setting("listen", format!("{self}: {why}")))?;
                Ok(vec![Source::Bind(Address::Unix(name))])
            }
            Place::Inherited(inherited) => inherited.look_up(),
        }
    }
}

fn check_name(name: &UnixName) -> Result<(), String> {
    let bytes = match name {
        UnixName::Path(path) => path.as_os_str().as_bytes(),
        UnixName::Abstract(name) => name,
    };
    if bytes.is_empty() {
        return Err(
            "a path is expected, as unix:/run/app.sock, or a name, as unix:@app".to_owned(),
        );
    }
    if bytes.len() > LONGEST_PATH {
        return Err(format!(
            "it has {} bytes, and the kernel takes {LONGEST_PATH} at most: use a shorter path, or one from the \
             working directory",
            bytes.len()
        ));
    }
    match bytes.iter().any(u8::is_ascii_control) {
        true => Err("it has control characters".to_owned()),
        false => Ok(()),
    }
}

/// Returns the addresses of a text: one, or those of a host name.
fn addresses(text: &str) -> Result<Vec<SocketAddr>, Error> {
    let wrong = |why: &dyn fmt::Display| {
        let problem = format!(
            "{text:?}: {why}; an IP address or a host name of this machine and a port are expected, as 127.0.0.1:9501, \
             [::1]:9501 or localhost:9501, or unix:PATH, fd:NUMBER, systemd or systemd:NAME"
        );
        setting("listen", problem)
    };
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    if let Some(zoned) = with_zone(text) {
        return zoned
            .map(|address| vec![address])
            .map_err(|why| wrong(&why));
    }
    let found: Vec<SocketAddr> = match text.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(error) => return Err(wrong(&error)),
    };
    match found.is_empty() {
        true => Err(wrong(&"no address has that name")),
        false => Ok(without_repetitions(&found)),
    }
}

/// Reads `[fe80::1%eth0]:9501`; `None` if the text has no zone. An address of a link is one of an interface.
fn with_zone(text: &str) -> Option<Result<SocketAddr, String>> {
    let (host, port) = text.strip_prefix('[')?.split_once("]:")?;
    let (ip, zone) = host.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let port: u16 = port.parse().ok()?;
    Some(match interface::index(zone) {
        Some(index) => Ok(SocketAddrV6::new(ip, port, 0, index).into()),
        None => Err(format!("there is no interface {zone:?} (see ip link)")),
    })
}

/// A file like hosts(5) may name an address twice, which can be bound once.
fn without_repetitions(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_by_its_form() {
        for (text, place) in [
            ("127.0.0.1:80", Place::Tcp("127.0.0.1:80".to_owned())),
            ("unix:/run/app.sock", Place::Unix("/run/app.sock".into())),
            ("unix:@app", Place::Unix("@app".into())),
            ("fd:3", Place::Inherited(Inherited::Fd(3))),
            ("systemd", Place::Inherited(Inherited::Systemd)),
            (
                "systemd:web",
                Place::Inherited(Inherited::Named("web".to_owned())),
            ),
            ("fd:three", Place::Tcp("fd:three".to_owned())),
        ] {
            assert_eq!(Place::parse(text), place);
            assert_eq!(place.to_string(), text);
        }
    }

    #[test]
    fn an_address_that_can_not_be_is_refused_and_said_why() {
        let long = format!("unix:/{}", "x".repeat(LONGEST_PATH));
        for (text, why) in [
            ("unix:", "a path is expected"),
            ("unix:@", "a path is expected"),
            ("unix:a\nb", "control characters"),
            (long.as_str(), "108 bytes"),
            ("fd:2", "standard streams"),
            ("fd:-1", "from 3 on"),
            ("[fe80::1%no-such-link]:80", "no interface"),
            ("fd:three", "fd:NUMBER"),
        ] {
            let error = Place::parse(text).look_up().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_zone_is_an_interface_by_name_or_number() {
        for text in ["[fe80::1%lo]:80", "[fe80::1%1]:80"] {
            let found = addresses(text).unwrap();
            assert_eq!(found, ["[fe80::1%1]:80".parse().unwrap()], "{text}");
        }
    }

    #[test]
    fn sockets_that_were_passed_are_chosen_by_name() {
        let passed = |number, name: &str| Passed {
            number,
            name: name.to_owned(),
        };
        let all = [passed(3, "web"), passed(4, "admin"), passed(5, "web")];
        let choose = |text| Inherited::parse(text).unwrap().choose(&all);
        let numbers = |found: &[i32]| found.iter().map(|it| Source::Inherit(*it)).collect();
        assert_eq!(choose("systemd"), Ok(numbers(&[3, 4, 5])));
        assert_eq!(choose("systemd:web"), Ok(numbers(&[3, 5])));
        let error = choose("systemd:other").unwrap_err();
        assert!(error.contains("web, admin, web"), "{error}");
    }
}
