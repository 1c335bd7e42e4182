//! The listening sockets of a server: bound, or taken over from the program that has started it.
//!
//! Its one rule: where a server does not start, no file of it is left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Config, Endpoint, ListenerConfig, ListenerId, Source};
use crate::error::{Error, Problem};
use crate::sys::activation;
use crate::sys::address::Address;
use crate::sys::listener::Listener;
use crate::sys::socket_file::SocketFile;

/// The files of unix sockets, which are removed when this value is dropped: at the end of the server, also if it does not
/// start. Forked processes exit without dropping it.
pub(super) struct Files(Vec<Arc<SocketFile>>);

impl Drop for Files {
    fn drop(&mut self) {
        self.0.iter().for_each(|file| file.remove());
    }
}

/// Opens every listener.
pub(super) fn listen(config: &Config) -> Result<(Vec<Listener>, Files), Error> {
    let (mut all, mut files) = (Vec::new(), Files(Vec::new()));
    for (index, listener) in config.listeners.iter().enumerate() {
        for socket in open(index as u16, listener)? {
            files.0.extend(socket.socket_file());
            all.push(socket);
        }
    }
    if config
        .listeners
        .iter()
        .any(|listener| listener.is_inherited)
    {
        forget_passed(config);
    }
    Ok((all, files))
}

/// The sockets that were passed are taken: programs that this process executes do not get them, nor their variables.
fn forget_passed(config: &Config) {
    // There are no variables where a descriptor was passed by its number alone.
    let Ok(passed) = activation::passed() else {
        return;
    };
    let sources = || config.listeners.iter().flat_map(|it| &it.sources);
    for one in &passed {
        if !sources().any(|source| *source == Source::Inherit(one.number)) {
            log::warn!(
                "descriptor {} ({:?}) was passed, and no listener takes it: clients that connect there wait",
                one.number,
                one.name
            );
        }
    }
    activation::taken(&passed);
}

/// Opens the sockets of a listener.
fn open(id: u16, listener: &ListenerConfig) -> Result<Vec<Listener>, Error> {
    let name = || listener.name.clone();
    let failed = |(address, source)| Problem::Listen {
        listener: name(),
        address,
        source,
    };
    let (mut addresses, mut opened) = (Vec::new(), Vec::new());
    for source in &listener.sources {
        match source {
            Source::Bind(Address::Ip(address)) => addresses.push(*address),
            Source::Bind(address @ Address::Unix(_)) => {
                let bound = Listener::bind(id, address, &listener.options);
                opened.push(bound.map_err(|source| failed((address.clone(), source)))?);
            }
            Source::Inherit(number) => {
                let taken = inherit(id, *number, listener);
                opened.push(taken.map_err(|source| Problem::Inherit {
                    listener: name(),
                    descriptor: *number,
                    source,
                })?);
            }
        }
    }
    let bind = |address: SocketAddr| Listener::bind(id, &address.into(), &listener.options);
    let bound = bind_all(&listener.name, &addresses, bind);
    opened.extend(bound.map_err(|(address, source)| failed((address.into(), source)))?);
    Ok(opened)
}

fn inherit(id: u16, number: i32, listener: &ListenerConfig) -> io::Result<Listener> {
    let taken = Listener::inherit(id, number, &listener.options)?;
    let has_tcp_settings =
        listener.rules.name_networks() || listener.options.defer_accept.is_some();
    match has_tcp_settings && taken.address().ip().is_none() {
        // Otherwise it would be open to those who are to be kept out.
        true => Err(io::Error::other(
            "it is a unix socket, which has no addresses and no TCP: leave out allow, deny and defer_accept",
        )),
        false => Ok(taken),
    }
}

/// Binds the addresses of a listener. A host name may have some that this machine has not: `localhost` has `::1`
/// where IPv6 is off.
fn bind_all<T>(
    name: &str,
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<Vec<T>, (SocketAddr, io::Error)> {
    let (mut bound, mut missing) = (Vec::new(), Vec::new());
    for address in addresses.iter().copied() {
        match bind(address) {
            Ok(listener) => bound.push(listener),
            Err(error) => match error.raw_os_error() {
                Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => missing.push((address, error)),
                Some(_) | None => return Err((address, error)),
            },
        }
    }
    if bound.is_empty() && !missing.is_empty() {
        return Err(missing.swap_remove(0));
    }
    for (address, error) in missing {
        log::warn!("listener {name}: its address {address} is left out: {error}");
    }
    Ok(bound)
}

pub(super) fn endpoints(config: &Config, listeners: &[Listener]) -> Vec<Endpoint> {
    let endpoint = |listener: &Listener| {
        let id = ListenerId(listener.id());
        Endpoint {
            listener: id,
            name: config.listener(id).name.clone(),
            address: listener.address().clone(),
        }
    };
    listeners.iter().map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_this_machine_has_not_is_left_out_if_another_one_works() {
        let [v4, v6]: [SocketAddr; 2] = ["127.0.0.1:80", "[::1]:80"].map(|it| it.parse().unwrap());
        let fails = |on: &'static [SocketAddr], code| {
            move |address| match on.contains(&address) {
                true => Err(io::Error::from_raw_os_error(code)),
                false => Ok(address),
            }
        };
        let (both, only_v6): (&'static [_], &'static [_]) =
            (Box::leak(Box::new([v6, v4])), Box::leak(Box::new([v6])));
        for code in [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT] {
            assert_eq!(bind_all("it", both, fails(only_v6, code)).unwrap(), [v4]);
            let (address, error) = bind_all("it", both, fails(both, code)).unwrap_err();
            assert_eq!((address, error.raw_os_error()), (v6, Some(code)));
        }
        let taken = fails(only_v6, libc::EADDRINUSE);
        assert_eq!(bind_all("it", both, taken).unwrap_err().0, v6);
    }
}
