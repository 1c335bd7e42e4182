//! Sets of networks, and the rules of a listener about the addresses of its clients.
//!
//! Its one rule: the rules are looked at once for each connection, as it comes, and never again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::setting;
use crate::error::Error;

/// A set of networks, in which an address is looked up in logarithmic time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Networks {
    /// The first and the last address of each, in order, without overlaps.
    v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    v6: Vec<(Ipv6Addr, Ipv6Addr)>,
}

impl Networks {
    /// Reads networks: `10.0.0.0/8`, `2001:db8::/32`, or the address of one client.
    ///
    /// # Errors
    /// The first that is none, as a wrong value of the setting `name`.
    pub(crate) fn parse(name: &'static str, texts: &[String]) -> Result<Networks, Error> {
        let wrong = |text: &String, why: String| setting(name, format!("{text:?}: {why}"));
        let mut networks = Vec::with_capacity(texts.len());
        for text in texts {
            networks.push(network(text).map_err(|why| wrong(text, why))?);
        }
        let mut set = Networks::default();
        for network in IpNet::aggregate(&networks) {
            match network {
                IpNet::V4(v4) => set.v4.push((v4.network(), v4.broadcast())),
                IpNet::V6(v6) => set.v6.push((v6.network(), v6.broadcast())),
            }
        }
        set.v4.sort_unstable();
        set.v6.sort_unstable();
        Ok(set)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether an address is in one of the networks.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => is_in(&self.v4, v4),
            IpAddr::V6(v6) => is_in(&self.v6, v6),
        }
    }
}

fn is_in<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    ranges[..after]
        .last()
        .is_some_and(|(_, last)| address <= *last)
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        "an address or a network is expected, as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32".to_owned()
    })?;
    if network != network.trunc() {
        let meant = network.trunc();
        return Err(format!(
            "the address has bits behind its prefix: is {meant} meant?"
        ));
    }
    Ok(match network {
        // A client of IPv4 has its own address, however it has come.
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.network().to_ipv4_mapped() {
            Some(v4) => {
                let mapped = Ipv4Net::new(v4, v6.prefix_len() - 96);
                mapped.map_or(network, IpNet::V4)
            }
            None => network,
        },
        IpNet::V4(_) | IpNet::V6(_) => network,
    })
}

/// The bits of an address by which clients are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Prefix {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

impl Prefix {
    /// A subscriber of IPv6 has a network of 64 bits, and all addresses in it.
    pub(crate) const DEFAULT: Prefix = Prefix { v4: 32, v6: 64 };

    /// Returns the first bits of an address; the others are 0.
    pub(crate) fn of(self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.v4)).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.v6)).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        }
    }
}

/// The valid rules of a listener about the addresses of its clients.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Rules {
    /// Empty for every address.
    pub(crate) allow: Networks,
    pub(crate) deny: Networks,
    /// New connections of one client in a second.
    pub(crate) rate: Option<u32>,
    pub(crate) prefix: Prefix,
}

impl Rules {
    #[cfg(test)]
    pub(crate) fn none() -> Rules {
        Rules {
            allow: Networks::default(),
            deny: Networks::default(),
            rate: None,
            prefix: Prefix::DEFAULT,
        }
    }

    /// Whether a client with this address may connect: a network of `deny` always wins.
    pub(crate) fn admit(&self, address: IpAddr) -> bool {
        let is_allowed = self.allow.is_empty() || self.allow.contain(address);
        is_allowed && !self.deny.contain(address)
    }

    /// Whether some addresses may not connect.
    pub(crate) fn name_networks(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        let texts: Vec<String> = texts.iter().map(|it| (*it).to_owned()).collect();
        Networks::parse("allow", &texts).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_in_a_network_or_not() {
        let set = networks(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.7",
            "2001:db8::/32",
            "::ffff:198.51.100.0/120",
            "0.0.0.0/32",
        ]);
        for inside in [
            "10.0.0.0",
            "10.255.255.255",
            "192.0.2.7",
            "::ffff:10.1.2.3",
            "2001:db8:ffff::1",
            "198.51.100.255",
            "0.0.0.0",
        ] {
            assert!(set.contain(ip(inside)), "{inside}");
        }
        for outside in [
            "9.255.255.255",
            "11.0.0.0",
            "192.0.2.6",
            "192.0.2.8",
            "2001:db9::",
            "2001:db7:ffff::",
            "::",
            "198.51.101.0",
            "255.255.255.255",
        ] {
            assert!(!set.contain(ip(outside)), "{outside}");
        }
        assert!(networks(&["0.0.0.0/0"]).contain(ip("255.255.255.255")));
        assert!(!networks(&["0.0.0.0/0"]).contain(ip("::1")));
        assert!(!networks(&[]).contain(ip("10.0.0.1")));
    }

    #[test]
    fn a_denied_network_wins() {
        let rules = |allow: &[&str], deny: &[&str]| Rules {
            allow: networks(allow),
            deny: networks(deny),
            ..Rules::none()
        };
        let both = rules(&["10.0.0.0/8"], &["10.6.0.0/16"]);
        assert!(both.admit(ip("10.7.0.1")));
        assert!(!both.admit(ip("10.6.0.1")) && !both.admit(ip("192.0.2.1")));
        let narrow = rules(&["10.6.6.6"], &["10.6.0.0/16"]);
        assert!(!narrow.admit(ip("10.6.6.6")), "also over a narrower one");
        assert!(rules(&[], &["::1"]).admit(ip("10.0.0.1")));
        assert!(rules(&[], &[]).admit(ip("::1")));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for (text, why) in [
            ("10.0.0.1/8", "is 10.0.0.0/8 meant?"),
            ("10.0.0.0/33", "is expected"),
            ("localhost", "is expected"),
            ("", "is expected"),
        ] {
            let error = Networks::parse("deny", &[text.to_owned()]).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("setting deny") && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn clients_are_told_apart_by_the_first_bits_of_their_addresses() {
        let prefix = Prefix { v4: 24, v6: 48 };
        assert_eq!(prefix.of(ip("192.0.2.77")), ip("192.0.2.0"));
        assert_eq!(prefix.of(ip("::ffff:192.0.2.77")), ip("192.0.2.0"));
        assert_eq!(prefix.of(ip("2001:db8:7:8::9")), ip("2001:db8:7::"));
        assert_eq!(Prefix { v4: 32, v6: 128 }.of(ip("::1")), ip("::1"));
    }
}
