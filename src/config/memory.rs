//! The settings about memory, which depend on each other and on the memory that the server may use.

use super::limits::{MEMORY_SHARE, MIB, READ_SIZE, inbox_size, longest_held};
use super::{ListenerConfig, Mode, Settings, within};
use crate::error::Error;
use crate::sys::room::Room;

/// The settings about memory, in bytes.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) inbox: usize,
    pub(super) output_limit: usize,
    pub(super) memory_budget: usize,
    pub(super) task_queue_bytes: usize,
    /// The limit of memory of which the default budget is more than its share.
    pub(super) tight: Option<Room>,
}

impl Settings {
    /// Checks the settings about memory. Those that are not set follow from the others and from `room`.
    pub(super) fn memory(
        &self,
        listeners: &[ListenerConfig],
        reactors: usize,
        room: Option<Room>,
    ) -> Result<Memory, Error> {
        const BYTES: &str = " bytes";
        let high_water = self.output_high_water;
        within("output_high_water", high_water, 1, 1 << 33, BYTES)?;
        // A link serves the connections of all listeners.
        let inbox = listeners.iter().map(inbox_size).max().unwrap_or(MIB);
        let longest = listeners.iter().map(longest_held).max().unwrap_or(MIB);
        let (owners, processes) = match self.mode {
            Mode::Process => (reactors, 1),
            Mode::Base => (1, self.workers),
        };
        let share = self.share(room, processes);
        // When reading pauses at the mark, all input read by then must still be answered.
        let in_flight = high_water.saturating_add(inbox + longest + READ_SIZE);
        let usual = (16 * MIB).min(share / owners);
        let output_limit = self.output_limit.unwrap_or(in_flight.max(usual));
        within("output_limit", output_limit, 1, 1 << 34, BYTES)?;
        if output_limit < high_water {
            let problem = format!(
                "{output_limit} bytes is less than output_high_water, {high_water} bytes: lower that too, or raise this one"
            );
            return Err(super::setting("output_limit", problem));
        }
        let least = output_limit.max(longest).saturating_mul(owners);
        let usual = (2 * least).max(256 * MIB).min(share.max(least));
        let memory_budget = self.memory_budget.unwrap_or(usual);
        within("memory_budget", memory_budget, least, usize::MAX, BYTES)?;
        let task_queue_bytes = self.task_queue_bytes.unwrap_or(memory_budget / 4);
        let most = memory_budget / 2;
        within("task_queue_bytes", task_queue_bytes, 1, most, BYTES)?;
        Ok(Memory {
            inbox,
            output_limit,
            memory_budget,
            task_queue_bytes,
            tight: room.filter(|_| memory_budget > share),
        })
    }

    /// Returns the part of the memory that a default may use, in each of the processes that own connections. A budget
    /// that was set is the user's decision.
    fn share(&self, room: Option<Room>, processes: usize) -> usize {
        match (self.memory_budget, room) {
            (None, Some(room)) => {
                let share = room.bytes / MEMORY_SHARE / processes as u64;
                usize::try_from(share).unwrap_or(usize::MAX)
            }
            (Some(_), _) | (None, None) => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listener;
    use crate::protocol::Protocol;

    /// Returns output limit and budget of a server with this much memory.
    fn defaults(mib: u64, change: impl Fn(&mut Settings)) -> (usize, usize, bool) {
        let mut settings = Settings {
            workers: 2,
            ..Settings::default()
        };
        change(&mut settings);
        let listeners = settings.listeners().unwrap();
        let room = Room {
            bytes: mib << 20,
            source: "a test",
        };
        let memory = settings.memory(&listeners, 1, Some(room)).unwrap();
        let is_tight = memory.tight.is_some();
        (memory.output_limit, memory.memory_budget, is_tight)
    }

    #[test]
    fn the_default_budget_is_a_quarter_of_the_memory_at_most() {
        assert_eq!(defaults(60, |_| {}), (15 * MIB, 15 * MIB, false));
        assert_eq!(defaults(400, |_| {}), (16 * MIB, 100 * MIB, false));
        assert_eq!(defaults(1 << 20, |_| {}), (16 * MIB, 256 * MIB, false));
    }

    #[test]
    fn in_base_mode_the_workers_share_it() {
        let base = |settings: &mut Settings| settings.mode = Mode::Base;
        assert_eq!(defaults(400, base), (16 * MIB, 50 * MIB, false));
    }

    #[test]
    fn a_budget_that_one_connection_needs_is_named_if_it_is_more_than_the_share() {
        let lines = |settings: &mut Settings| {
            let listener = Listener::tcp("127.0.0.1:0");
            settings.listen = vec![listener.protocol(Protocol::lines())];
        };
        let (limit, budget, is_tight) = defaults(60, lines);
        assert!(limit == budget && limit > 15 * MIB && is_tight);
    }

    #[test]
    fn a_budget_that_is_set_stays() {
        let set = |settings: &mut Settings| settings.memory_budget = Some(300 * MIB);
        assert_eq!(defaults(60, set), (16 * MIB, 300 * MIB, false));
    }
}
