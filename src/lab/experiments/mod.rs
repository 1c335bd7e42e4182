//! The experiments: one file each, or one for what is told in one breath.

mod four_way;

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
pub(crate) const EXPERIMENTS: &[Experiment] = &[four_way::EXPERIMENT];
