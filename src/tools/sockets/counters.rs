//! The kernel's counters and settings, for the whole network namespace.

use std::collections::HashMap;
use std::fs;
use std::io;

use serde::Serialize;

/// Counters of `/proc/net/netstat` that grow when a listener has no room for a client. They are not kept by
/// port.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Overflows {
    /// Connections that found their accept queue full.
    pub(crate) listen_overflows: u64,
    /// SYNs that were dropped at a listener, for this reason or another.
    pub(crate) listen_drops: u64,
    /// SYNs that were answered with a cookie, and not remembered.
    pub(crate) syncookies_sent: u64,
    /// SYNs that were to be answered with a cookie, because a listener had no room for one more half-open
    /// connection (`tcp_syn_flood_action` in `net/ipv4/tcp_input.c`).
    pub(crate) half_open_full_cookies: u64,
    /// SYNs that were dropped for this reason, with `net.ipv4.tcp_syncookies` off.
    pub(crate) half_open_full_drops: u64,
}

/// The sockets in TIME_WAIT. When there are too many, the kernel makes no more of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimeWaits {
    pub(crate) now: u64,
    /// `net.ipv4.tcp_max_tw_buckets`
    pub(crate) most: u64,
}

impl TimeWaits {
    pub(crate) fn now() -> io::Result<TimeWaits> {
        const MOST: &str = "/proc/sys/net/ipv4/tcp_max_tw_buckets";
        let now = TimeWaits::parse(&fs::read_to_string("/proc/net/sockstat")?);
        let most = fs::read_to_string(MOST)?.trim().parse();
        Ok(TimeWaits {
            now: now.ok_or_else(|| not_understood("/proc/net/sockstat"))?,
            most: most.map_err(|_| not_understood(MOST))?,
        })
    }

    /// Parses lines of names and numbers, such as `TCP: inuse 2 orphan 0 tw 180 alloc 16 mem 281`.
    fn parse(text: &str) -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix("TCP: "))?;
        let mut words = line.split_ascii_whitespace();
        words.find(|word| *word == "tw")?;
        words.next()?.parse().ok()
    }
}

/// Returns a counter of `/proc/net/netstat`, for the network namespace of this thread.
pub(crate) fn of_thread(name: &str) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat")?;
    let counters = extended(&text);
    let number = counters.and_then(|it| it.get(name)?.parse().ok());
    number.ok_or_else(|| not_understood("/proc/thread-self/net/netstat"))
}

/// Parses a table in which a line of names is followed by a line of numbers.
fn extended(text: &str) -> Option<HashMap<&str, &str>> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let pairs = names
        .split_ascii_whitespace()
        .zip(numbers.split_ascii_whitespace());
    Some(pairs.collect())
}

impl Overflows {
    pub(crate) fn now() -> io::Result<Overflows> {
        let text = fs::read_to_string("/proc/net/netstat")?;
        Overflows::parse(&text).ok_or_else(|| not_understood("/proc/net/netstat"))
    }

    fn parse(text: &str) -> Option<Overflows> {
        let counters = extended(text)?;
        let of = |name: &str| counters.get(name)?.parse().ok();
        Some(Overflows {
            listen_overflows: of("ListenOverflows")?,
            listen_drops: of("ListenDrops")?,
            syncookies_sent: of("SyncookiesSent")?,
            half_open_full_cookies: of("TCPReqQFullDoCookies")?,
            half_open_full_drops: of("TCPReqQFullDrop")?,
        })
    }

    pub(crate) fn since(self, before: Overflows) -> Overflows {
        let grown = |of: fn(Overflows) -> u64| of(self).saturating_sub(of(before));
        Overflows {
            listen_overflows: grown(|it| it.listen_overflows),
            listen_drops: grown(|it| it.listen_drops),
            syncookies_sent: grown(|it| it.syncookies_sent),
            half_open_full_cookies: grown(|it| it.half_open_full_cookies),
            half_open_full_drops: grown(|it| it.half_open_full_drops),
        }
    }
}

/// Settings of the kernel, ip(7) and tcp(7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Settings {
    /// The first and last of the ports that the kernel chooses from where a program names none.
    pub(crate) ports: (u16, u16),
    /// The number of these that it leaves to programs that name one (`ip_local_reserved_ports`).
    pub(crate) reserved: u32,
    /// Whether a new connection may take a port that is in TIME_WAIT: 0 never, 1 after a second, 2 after
    /// a second over loopback.
    pub(crate) tw_reuse: u8,
    /// Seconds that a socket that no process holds stays in FIN_WAIT2.
    pub(crate) fin_timeout: u32,
    /// The maximum length of an accept queue, less one.
    pub(crate) somaxconn: u32,
    /// Whether SYNs are answered with cookies: 0 never, 1 when a listener has no room, 2 always; `None` on a
    /// kernel without cookies.
    pub(crate) syncookies: Option<u8>,
}

impl Settings {
    pub(crate) fn now() -> io::Result<Settings> {
        let range = read("net/ipv4/ip_local_port_range")?;
        let mut range = range.split_ascii_whitespace().map(str::parse);
        let (Some(Ok(first)), Some(Ok(last))) = (range.next(), range.next()) else {
            return Err(not_understood("/proc/sys/net/ipv4/ip_local_port_range"));
        };
        let reserved = read("net/ipv4/ip_local_reserved_ports")?;
        let reserved = reserved_within(&reserved, (first, last))
            .ok_or_else(|| not_understood("/proc/sys/net/ipv4/ip_local_reserved_ports"))?;
        let syncookies = match number("net/ipv4/tcp_syncookies") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            setting => Some(setting?),
        };
        Ok(Settings {
            ports: (first, last),
            reserved,
            syncookies,
            tw_reuse: number("net/ipv4/tcp_tw_reuse")?,
            fin_timeout: number("net/ipv4/tcp_fin_timeout")?,
            somaxconn: number("net/core/somaxconn")?,
        })
    }

    /// Returns the number of ports for connections to one address and port.
    pub(crate) fn port_count(self) -> u32 {
        let all = u32::from(self.ports.1).saturating_sub(u32::from(self.ports.0)) + 1;
        all.saturating_sub(self.reserved)
    }
}

/// Returns the number of ports in a list such as `8080,9000-9100` that are in a range.
fn reserved_within(list: &str, range: (u16, u16)) -> Option<u32> {
    let mut number = 0;
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u16 = first.parse().ok()?;
        let last: u16 = last.parse().ok()?;
        let within = (first.max(range.0)..=last.min(range.1)).len();
        number += u32::try_from(within).ok()?;
    }
    Some(number)
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
    fn sockets_in_time_wait_are_read_from_the_line_of_tcp() {
        let text = "sockets: used 62\nTCP: inuse 2 orphan 14 tw 180 alloc 16 mem 281\nUDP: inuse 0 mem 0\n";
        assert_eq!(TimeWaits::parse(text), Some(180));
        assert_eq!(TimeWaits::parse("UDP: inuse 0 tw 5"), None);
        assert!(TimeWaits::now().unwrap().most > 0);
    }

    #[test]
    fn counters_are_read_by_their_names() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop X\n\
                    TcpExt: 1 22 333 44 5 6\nIpExt: InNoRoutes\nIpExt: 5\n";
        let found = Overflows::parse(text).unwrap();
        assert_eq!((found.listen_overflows, found.listen_drops), (22, 333));
        assert_eq!(found.syncookies_sent, 1);
        assert_eq!(
            (found.half_open_full_cookies, found.half_open_full_drops),
            (44, 5)
        );
        assert_eq!(Overflows::parse("TcpExt: A B\nTcpExt: 1 2\n"), None);
        assert!(Overflows::now().is_ok());
    }

    #[test]
    fn reserved_ports_are_not_among_those_that_the_kernel_gives() {
        let within = |list| reserved_within(list, (32_768, 60_999));
        assert_eq!(within("\n"), Some(0));
        assert_eq!(within("8080,32768-32777,60999\n"), Some(11));
        assert_eq!(within("60990-65535"), Some(10));
        assert_eq!(within("one"), None);
    }

    #[test]
    fn the_kernels_settings_are_read() {
        let settings = Settings::now().unwrap();
        assert!(settings.ports.0 <= settings.ports.1);
        assert!(settings.port_count() <= 65_536);
    }
}
