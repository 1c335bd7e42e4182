//! The form of settings in a file, in any format of serde.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::listener::{self, Inherited, Place, Sockets};
use super::silence::{Deadlines, OnIdle};
use crate::protocol::Protocol;

/// A listener in a file: a table with one of the keys `tcp`, `unix` and `inherited`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unix: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inherited: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, with = "text")]
    protocol: Protocol,
    #[serde(default)]
    max_message: Option<usize>,
    #[serde(default)]
    backlog: Option<u32>,
    #[serde(default)]
    opening_deadline: Option<Time>,
    #[serde(default)]
    open_deadline: Option<Time>,
    #[serde(default)]
    message_deadline: Option<Time>,
    #[serde(default)]
    idle: Option<Time>,
    #[serde(default)]
    on_idle: Option<OnIdle>,
    #[serde(default)]
    write_deadline: Option<Time>,
    #[serde(default)]
    queue_deadline: Option<Time>,
    #[serde(default)]
    keepalive: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_timeout: Option<Time>,
    /// The networks of proxies.
    #[cfg(feature = "proxy")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    proxy_protocol: Vec<String>,
    #[cfg(feature = "tls")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<super::Tls>,
    /// In octal digits, as chmod(1) takes them: not every format has octal numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v6only: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    defer_accept: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receive_buffer: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    send_buffer: Option<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_new_per_second: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address_prefix_v4: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address_prefix_v6: Option<u8>,
}

/// A time of a listener that was set; it may be `never`.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Time(#[serde(with = "seconds_or_never")] Option<Duration>);

impl Listener {
    /// Returns the deadlines; those that were not set have their defaults.
    fn deadlines(&self, default: &Deadlines) -> Deadlines {
        let or = |time: Option<Time>, default| time.map_or(default, |Time(time)| time);
        Deadlines {
            opening: or(self.opening_deadline, default.opening),
            open: or(self.open_deadline, default.open),
            message: or(self.message_deadline, default.message),
            idle: or(self.idle, default.idle),
            on_idle: self.on_idle.unwrap_or(default.on_idle),
            write: or(self.write_deadline, default.write),
            queue: or(self.queue_deadline, default.queue),
            keepalive: or(self.keepalive, default.keepalive),
            user_timeout: self.user_timeout.map(|Time(time)| time),
        }
    }
}

impl Listener {
    fn place(&self) -> Result<Place, String> {
        let inherited = |text: &String| {
            let parsed = Inherited::parse(text).map(Place::Inherited);
            parsed.ok_or_else(|| {
                format!("inherited: {text:?} is none of fd:NUMBER, systemd and systemd:NAME")
            })
        };
        match (&self.tcp, &self.unix, &self.inherited) {
            (Some(tcp), None, None) => Ok(Place::Tcp(tcp.clone())),
            (None, Some(path), None) => Ok(Place::Unix(path.clone())),
            (None, None, Some(text)) => inherited(text),
            _ => Err("a listener has one of the keys tcp, unix and inherited".to_owned()),
        }
    }

    fn sockets(&self) -> Result<Sockets, String> {
        let octal = |text: &String| {
            u32::from_str_radix(text, 8)
                .map_err(|_| format!("mode: {text:?} is not octal digits, as \"660\""))
        };
        Ok(Sockets {
            mode: self.mode.as_ref().map(octal).transpose()?,
            owner: self.owner.clone(),
            v6only: self.v6only,
            defer_accept: self.defer_accept.and_then(|Time(time)| time),
            receive_buffer: self.receive_buffer,
            send_buffer: self.send_buffer,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            new_per_second: self.max_new_per_second,
            prefix_v4: self.address_prefix_v4,
            prefix_v6: self.address_prefix_v6,
        })
    }
}

impl TryFrom<Listener> for listener::Listener {
    type Error = String;

    fn try_from(written: Listener) -> Result<listener::Listener, String> {
        let default = listener::Listener::at(written.place()?);
        Ok(listener::Listener {
            deadlines: written.deadlines(&default.deadlines),
            sockets: written.sockets()?,
            name: written.name,
            protocol: written.protocol,
            max_message: written.max_message.unwrap_or(default.max_message),
            backlog: written.backlog.unwrap_or(default.backlog),
            place: default.place,
            #[cfg(feature = "proxy")]
            proxies: written.proxy_protocol,
            #[cfg(feature = "tls")]
            tls: written.tls,
        })
    }
}

impl From<listener::Listener> for Listener {
    fn from(listener: listener::Listener) -> Listener {
        let (tcp, unix, inherited) = match listener.place {
            Place::Tcp(address) => (Some(address), None, None),
            Place::Unix(path) => (None, Some(path), None),
            Place::Inherited(inherited) => (None, None, Some(inherited.to_string())),
        };
        let (deadlines, sockets) = (listener.deadlines, listener.sockets);
        Listener {
            tcp,
            unix,
            inherited,
            name: listener.name,
            protocol: listener.protocol,
            max_message: Some(listener.max_message),
            backlog: Some(listener.backlog),
            opening_deadline: Some(Time(deadlines.opening)),
            open_deadline: Some(Time(deadlines.open)),
            message_deadline: Some(Time(deadlines.message)),
            idle: Some(Time(deadlines.idle)),
            on_idle: Some(deadlines.on_idle),
            write_deadline: Some(Time(deadlines.write)),
            queue_deadline: Some(Time(deadlines.queue)),
            keepalive: Some(Time(deadlines.keepalive)),
            user_timeout: deadlines.user_timeout.map(Time),
            #[cfg(feature = "proxy")]
            proxy_protocol: listener.proxies,
            #[cfg(feature = "tls")]
            tls: listener.tls,
            mode: sockets.mode.map(|mode| format!("{mode:o}")),
            owner: sockets.owner,
            v6only: sockets.v6only,
            defer_accept: sockets.defer_accept.map(|time| Time(Some(time))),
            receive_buffer: sockets.receive_buffer,
            send_buffer: sockets.send_buffer,
            allow: sockets.allow,
            deny: sockets.deny,
            max_new_per_second: sockets.new_per_second,
            address_prefix_v4: sockets.prefix_v4,
            address_prefix_v6: sockets.prefix_v6,
        }
    }
}

/// A value in the form of its text.
pub(super) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A time as a number of seconds.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)
    }
}

/// An optional time.
pub(super) mod seconds_if_any {
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs_f64()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        let time = seconds.map(Duration::try_from_secs_f64);
        time.transpose().map_err(D::Error::custom)
    }
}

/// A time, or the word `never`: formats such as TOML have no null.
pub(super) mod seconds_or_never {
    use std::time::Duration;

    use serde::Deserialize;
    use serde::de::{Deserializer, Error};
    use serde::ser::Serializer;

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a number of seconds or \"never\" is expected")]
    enum Written {
        Seconds(f64),
        Word(String),
    }

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.serialize_f64(time.as_secs_f64()),
            None => to.serialize_str("never"),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        match Written::deserialize(from)? {
            Written::Seconds(seconds) => Duration::try_from_secs_f64(seconds)
                .map(Some)
                .map_err(D::Error::custom),
            Written::Word(word) if word == "never" => Ok(None),
            Written::Word(word) => Err(D::Error::custom(format!(
                "{word:?} is neither a number of seconds nor \"never\""
            ))),
        }
    }
}
