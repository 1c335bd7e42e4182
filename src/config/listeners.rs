//! All listeners of a server together: their names, and what two of them can't share.

use super::limits::{MAX_ADDRESSES, MAX_LISTENERS};
use super::{DEFAULT_LISTEN, Listener, ListenerConfig, Settings, Source, setting, within};
use crate::error::Error;

impl Settings {
    /// Checks every listener.
    pub(super) fn listeners(&self) -> Result<Vec<ListenerConfig>, Error> {
        let default = [Listener::tcp(DEFAULT_LISTEN)];
        let named = match self.listen.as_slice() {
            [] => &default,
            named => named,
        };
        within("listen", named.len(), 1, MAX_LISTENERS, " listeners")?;
        let mut listeners: Vec<ListenerConfig> = Vec::with_capacity(named.len());
        for (index, listener) in named.iter().enumerate() {
            let mut validated = listener.clone().validate()?;
            if listeners.iter().any(|it| it.name == validated.name) {
                if listener.name.is_some() {
                    let problem = format!("two listeners have the name {:?}", validated.name);
                    return Err(setting("listen", problem));
                }
                // The same address twice is fine with port 0: each gets its own port.
                validated.name = format!("{}#{index}", validated.name);
            }
            listeners.push(validated);
        }
        check_descriptors(&listeners)?;
        let addresses = listeners.iter().map(|it| it.sources.len()).sum();
        within("listen", addresses, 1, MAX_ADDRESSES, " addresses")?;
        Ok(listeners)
    }
}

/// Checks that no two listeners take the same descriptor.
fn check_descriptors(listeners: &[ListenerConfig]) -> Result<(), Error> {
    let mut taken: Vec<i32> = Vec::new();
    for source in listeners.iter().flat_map(|listener| &listener.sources) {
        if let Source::Inherit(number) = source {
            if taken.contains(number) {
                let problem = format!("two listeners take the descriptor {number}");
                return Err(setting("listen", problem));
            }
            taken.push(*number);
        }
    }
    Ok(())
}
