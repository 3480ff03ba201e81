//! The shape of every pure core.

/// A protocol as a value: time and outcomes go in, what to do comes out.
///
/// A machine has no clock, socket, thread or random source of its own. Fed the same events at the same
/// times it produces the same effects and the same state, so a log of its events is its journal.
pub trait Machine {
    /// What can happen to it.
    type Event;
    /// What it wants done, in order.
    type Effect;

    /// Takes in one event at `now_ms` (milliseconds of any clock that never runs backwards).
    fn handle(&mut self, now_ms: u64, event: Self::Event) -> Vec<Self::Effect>;
}
