//! Virtual time: what happens next.

use std::collections::BTreeMap;

/// What is going to happen, ordered by time and, at the same time, by when it was scheduled.
#[derive(Debug)]
pub struct Clock<T> {
    now_us: u64,
    sequence: u64,
    /// Boxed: they are large, and a tree moves about what it holds.
    coming: BTreeMap<(u64, u64), Box<T>>,
}

impl<T> Default for Clock<T> {
    fn default() -> Self {
        Self { now_us: 0, sequence: 0, coming: BTreeMap::new() }
    }
}

impl<T> Clock<T> {
    /// Virtual time in microseconds.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Schedules `what`; a time that has passed counts as now.
    pub fn at(&mut self, at_us: u64, what: T) {
        self.coming.insert((at_us.max(self.now_us), self.sequence), Box::new(what));
        self.sequence += 1;
    }

    /// Moves on to the next thing that happens.
    pub fn advance(&mut self) -> Option<T> {
        let ((at_us, _), what) = self.coming.pop_first()?;
        self.now_us = at_us;
        Some(*what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_then_order_of_scheduling_decides() {
        let mut clock = Clock::default();
        for (at_us, what) in [(5, 'b'), (9, 'd'), (5, 'c'), (1, 'a')] {
            clock.at(at_us, what);
        }
        let first = clock.advance();
        clock.at(0, 'x'); // the past is now
        let rest: String = std::iter::from_fn(|| clock.advance()).collect();
        assert_eq!((first, rest.as_str(), clock.now_us()), (Some('a'), "xbcd", 9));
    }
}
