//! The experiments, one module each.

mod addr_in_use;
mod backlog;
mod base_crashed;
mod callbacks;
mod close_wait_blocked;
mod close_wait_crashed;
mod close_wait_receive;
mod four_way;
mod half_close;
mod last_ack;
mod late_segment;
mod leak_reuse;
mod ports_exhausted;
mod reset;
mod reuseport_reload;
mod time_wait;
mod vanished;

use super::{Lab, Stop};

/// An experiment of `tine lab`.
pub(crate) struct Experiment {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The question that a reader brings to it.
    pub(crate) question: &'static str,
    pub(crate) run: fn(&mut Lab<'_>) -> Result<(), Stop>,
}

/// All experiments, in the order in which they build on each other.
pub(crate) const EXPERIMENTS: &[Experiment] = &[
    four_way::EXPERIMENT,
    callbacks::EXPERIMENT,
    close_wait_blocked::EXPERIMENT,
    close_wait_receive::EXPERIMENT,
    close_wait_crashed::EXPERIMENT,
    base_crashed::EXPERIMENT,
    backlog::EXPERIMENT,
    time_wait::EXPERIMENT,
    last_ack::EXPERIMENT,
    late_segment::EXPERIMENT,
    ports_exhausted::EXPERIMENT,
    addr_in_use::EXPERIMENT,
    half_close::EXPERIMENT,
    reset::EXPERIMENT,
    leak_reuse::EXPERIMENT,
    vanished::EXPERIMENT,
    reuseport_reload::EXPERIMENT,
];
