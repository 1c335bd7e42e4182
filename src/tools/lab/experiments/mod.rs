//! The experiments: one file each, or one for what is told in one breath.

mod addr_in_use;
mod backlog;
mod base_crashed;
mod close_wait_blocked;
mod close_wait_crashed;
mod four_way;
mod half_close;
mod leak_reuse;
mod ports_exhausted;
mod reset;
mod reuseport_reload;
mod time_wait;

use super::{Lab, Stop};

/// Something that can be shown.
pub(crate) struct Experiment {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What somebody would ask who needs it.
    pub(crate) question: &'static str,
    pub(crate) run: fn(&mut Lab<'_>) -> Result<(), Stop>,
}

/// In the order of a course.
pub(crate) const EXPERIMENTS: &[Experiment] = &[
    four_way::EXPERIMENT,
    close_wait_blocked::EXPERIMENT,
    close_wait_crashed::EXPERIMENT,
    base_crashed::EXPERIMENT,
    backlog::EXPERIMENT,
    time_wait::EXPERIMENT,
    ports_exhausted::EXPERIMENT,
    addr_in_use::EXPERIMENT,
    half_close::EXPERIMENT,
    reset::EXPERIMENT,
    leak_reuse::EXPERIMENT,
    reuseport_reload::EXPERIMENT,
];
