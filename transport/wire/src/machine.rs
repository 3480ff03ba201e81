//! The shape of every pure core.

use serde::{Deserialize, Serialize};

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

/// The one alarm a machine has. It may ring before the time a machine waits for, never after, so that a
/// deadline that moves on with every event need not be announced with every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Alarm {
    set_ms: Option<u64>,
}

impl Alarm {
    /// Whether the alarm rings at `at_ms` or before.
    pub fn covers(&self, at_ms: u64) -> bool {
        self.set_ms.is_some_and(|set| set <= at_ms)
    }

    /// Sets the alarm; the answer is the time to announce, if it is not covered yet.
    pub fn set(&mut self, at_ms: u64) -> Option<u64> {
        if self.covers(at_ms) {
            return None;
        }
        self.set_ms = Some(at_ms);
        self.set_ms
    }

    /// It rang.
    pub fn rang(&mut self) {
        self.set_ms = None;
    }
}
