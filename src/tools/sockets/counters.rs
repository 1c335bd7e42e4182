//! The kernel's counters and settings, for the whole network namespace.

use std::fs;
use std::io;

use serde::Serialize;

/// Counters of `/proc/net/netstat` that grow when an accept queue is full. They are not kept by port.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Overflows {
    /// Connections that found their accept queue full.
    pub(crate) listen_overflows: u64,
    /// SYNs that were dropped at a listener, for this reason or another.
    pub(crate) listen_drops: u64,
}

impl Overflows {
    pub(crate) fn now() -> io::Result<Overflows> {
        let text = fs::read_to_string("/proc/net/netstat")?;
        Overflows::parse(&text).ok_or_else(|| not_understood("/proc/net/netstat"))
    }

    /// Parses a table in which a line of names is followed by a line of numbers.
    fn parse(text: &str) -> Option<Overflows> {
        let mut lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, numbers) = (lines.next()?, lines.next()?);
        let mut pairs = names
            .split_ascii_whitespace()
            .zip(numbers.split_ascii_whitespace());
        let mut of = |name: &str| pairs.find(|pair| pair.0 == name)?.1.parse().ok();
        // In the order in which the kernel prints them.
        Some(Overflows {
            listen_overflows: of("ListenOverflows")?,
            listen_drops: of("ListenDrops")?,
        })
    }

    pub(crate) fn since(self, before: Overflows) -> Overflows {
        Overflows {
            listen_overflows: self
                .listen_overflows
                .saturating_sub(before.listen_overflows),
            listen_drops: self.listen_drops.saturating_sub(before.listen_drops),
        }
    }
}

/// Settings of the kernel, ip(7) and tcp(7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Settings {
    /// The first and last of the ports that the kernel chooses from where a program names none.
    pub(crate) ports: (u16, u16),
    /// Whether a new connection may take a port that is in TIME_WAIT: 0 never, 1 after a second, 2 after
    /// a second over loopback.
    pub(crate) tw_reuse: u8,
    /// Seconds that a socket that no process holds stays in FIN_WAIT2.
    pub(crate) fin_timeout: u32,
    /// The maximum length of an accept queue, less one.
    pub(crate) somaxconn: u32,
}

impl Settings {
    pub(crate) fn now() -> io::Result<Settings> {
        let range = read("net/ipv4/ip_local_port_range")?;
        let mut range = range.split_ascii_whitespace().map(str::parse);
        let (Some(Ok(first)), Some(Ok(last))) = (range.next(), range.next()) else {
            return Err(not_understood("/proc/sys/net/ipv4/ip_local_port_range"));
        };
        Ok(Settings {
            ports: (first, last),
            tw_reuse: number("net/ipv4/tcp_tw_reuse")?,
            fin_timeout: number("net/ipv4/tcp_fin_timeout")?,
            somaxconn: number("net/core/somaxconn")?,
        })
    }

    /// Returns the number of ports for connections to one address and port.
    pub(crate) fn port_count(self) -> u32 {
        u32::from(self.ports.1).saturating_sub(u32::from(self.ports.0)) + 1
    }
}

fn number<T: std::str::FromStr>(name: &str) -> io::Result<T> {
    let text = read(name)?;
    let number = text.trim().parse();
    number.map_err(|_| not_understood(&format!("/proc/sys/{name}")))
}

fn read(name: &str) -> io::Result<String> {
    let path = format!("/proc/sys/{name}");
    fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))
}

fn not_understood(file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{file} has an unexpected format"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_their_names() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPAbort\n\
                    TcpExt: 1 22 333 4\nIpExt: InNoRoutes\nIpExt: 5\n";
        let found = Overflows::parse(text).unwrap();
        assert_eq!((found.listen_overflows, found.listen_drops), (22, 333));
        assert_eq!(Overflows::parse("TcpExt: A B\nTcpExt: 1 2\n"), None);
        assert!(Overflows::now().is_ok());
    }

    #[test]
    fn the_kernels_settings_are_read() {
        let settings = Settings::now().unwrap();
        assert!(settings.ports.0 <= settings.ports.1);
        assert!(settings.port_count() <= 65_536);
    }
}
