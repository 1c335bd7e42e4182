//! What few connections have at a time: an end, and a layer between socket and messages.
//!
//! Its one rule: all of it is behind one pointer, which most connections do not have.

use super::connection::Ending;
use super::layer::Layer;

/// The rare parts of a connection.
#[derive(Default, Debug)]
pub(crate) struct Rare(Option<Box<Parts>>);

#[derive(Default, Debug)]
struct Parts {
    ending: Ending,
    layer: Option<Layer>,
}

impl Rare {
    /// Returns its end; `None` if that has not begun.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.0.as_ref().map(|parts| &parts.ending)
    }

    /// Returns its end, which begins now if it has not begun before.
    pub(crate) fn ending_mut(&mut self) -> &mut Ending {
        &mut self.0.get_or_insert_default().ending
    }

    /// Returns what is between its socket and its messages; `None` if nothing is.
    pub(crate) fn layer(&self) -> Option<&Layer> {
        self.0.as_ref()?.layer.as_ref()
    }

    /// As [`layer`](Self::layer).
    pub(crate) fn layer_mut(&mut self) -> Option<&mut Layer> {
        self.0.as_mut()?.layer.as_mut()
    }

    /// Sets what is between its socket and its messages.
    pub(crate) fn set_layer(&mut self, layer: Option<Layer>) {
        if layer.is_some() || self.0.is_some() {
            self.0.get_or_insert_default().layer = layer;
        }
    }
}
