//! Whether work of several streams is in order: what a program may rely on, though here all work is done when its call
//! returns.
//!
//! Every stream counts its work, and knows of every other stream up to which count it has waited: by an event recorded
//! there, or through the host, which waited and then gave it work. Two streams that use the same buffer, one of them to
//! write, must know of each other. A copy reads or writes its buffer; a kernel counts as a writer of every buffer whose
//! address is among its arguments. Checked runs ask; others do not pay for it.

use std::collections::BTreeMap;

/// Up to which count somebody knows of each stream.
type Known = BTreeMap<u64, u64>;

/// What is known of the order of work.
#[derive(Debug, Default)]
pub(super) struct Order {
    streams: BTreeMap<u64, Known>,
    events: BTreeMap<u64, Known>,
    host: Known,
    /// Uses of buffers, by the buffers' addresses: the last by each stream, of each kind.
    uses: BTreeMap<u64, BTreeMap<(u64, bool), Use>>,
}

#[derive(Debug)]
struct Use {
    count: u64,
    what: String,
}

impl Order {
    /// Work of `stream` that uses `buffers`; true stands for writing.
    ///
    /// # Errors
    /// What it is not in order with.
    pub fn issue(&mut self, stream: u64, what: &str, buffers: &[(u64, bool)]) -> Result<(), String> {
        let known = self.streams.entry(stream).or_default();
        merge(known, &self.host);
        let count = known.get(&stream).copied().unwrap_or(0) + 1;
        known.insert(stream, count);
        let known = known.clone();
        for &(buffer, writes) in buffers {
            let uses = self.uses.entry(buffer).or_default();
            for (&(other, wrote), used) in uses.iter() {
                let waited = known.get(&other).copied().unwrap_or(0) >= used.count;
                if other != stream && (writes || wrote) && !waited {
                    return Err(format!(
                        "{what} on stream {stream:#x} uses the buffer at {buffer:#x} and has not waited for {} on stream \
                         {other:#x}; record an event there and wait for it",
                        used.what
                    ));
                }
            }
            uses.insert((stream, writes), Use { count, what: what.to_owned() });
        }
        Ok(())
    }

    /// An event that happens once `stream` has done its work so far.
    pub fn record(&mut self, event: u64, stream: u64) {
        let mut known = self.streams.get(&stream).cloned().unwrap_or_default();
        merge(&mut known, &self.host);
        self.events.insert(event, known);
    }

    /// `stream` waits for `event`.
    pub fn wait(&mut self, stream: u64, event: u64) {
        if let Some(event) = self.events.get(&event) {
            merge(self.streams.entry(stream).or_default(), event);
        }
    }

    /// The host waits for an event.
    pub fn host_waits_for_event(&mut self, event: u64) {
        if let Some(event) = self.events.get(&event) {
            merge(&mut self.host, event);
        }
    }

    /// The host waits for all work of a stream.
    pub fn host_waits_for_stream(&mut self, stream: u64) {
        if let Some(known) = self.streams.get(&stream) {
            merge(&mut self.host, known);
        }
    }

    /// The host waits for everything.
    pub fn host_waits_for_all(&mut self) {
        for known in self.streams.values() {
            merge(&mut self.host, known);
        }
    }

    /// A buffer is given back.
    pub fn forget(&mut self, buffer: u64) {
        self.uses.remove(&buffer);
    }
}

fn merge(into: &mut Known, from: &Known) {
    for (&stream, &count) in from {
        let known = into.entry(stream).or_default();
        *known = (*known).max(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPUTE: u64 = 0;
    const COPY: u64 = 0x1010;
    const BUFFER: u64 = 0x5000;

    #[test]
    fn a_kernel_that_does_not_wait_for_a_copy_is_found() {
        let mut order = Order::default();
        order.issue(COPY, "a copy", &[(BUFFER, true)]).unwrap();
        let said = order.issue(COMPUTE, "kernel k", &[(BUFFER, true)]).unwrap_err();
        assert!(
            said.contains("kernel k on stream 0x0") && said.contains("a copy on stream 0x1010"),
            "{said}"
        );
        // Of another buffer, or after the event, it is in order.
        order.issue(COMPUTE, "kernel k", &[(BUFFER + 16, true)]).unwrap();
        order.record(7, COPY);
        order.wait(COMPUTE, 7);
        order.issue(COMPUTE, "kernel k", &[(BUFFER, true)]).unwrap();
        // The event stands for the copies before it, not for one after it.
        order.wait(COPY, 8);
        let said = order.issue(COPY, "the next copy", &[(BUFFER, false)]).unwrap_err();
        assert!(said.contains("has not waited for kernel k"), "{said}");
    }

    #[test]
    fn who_the_host_waited_for_is_known_to_what_it_gives_out_later() {
        let mut order = Order::default();
        for step in 0..3 {
            order.issue(COMPUTE, "kernel k", &[(BUFFER, true)]).unwrap();
            match step {
                0 => order.host_waits_for_stream(COMPUTE),
                1 => order.host_waits_for_all(),
                _ => {
                    order.record(9, COMPUTE);
                    order.host_waits_for_event(9);
                }
            }
            order.issue(COPY, "a copy", &[(BUFFER, false)]).unwrap();
            // Two that read need not know of each other.
            order.issue(0x2020, "another copy", &[(BUFFER, false)]).unwrap();
            order.host_waits_for_all();
        }
        order.issue(COPY, "a copy", &[(BUFFER, true)]).unwrap();
        order.forget(BUFFER);
        order.issue(COMPUTE, "kernel k", &[(BUFFER, true)]).unwrap();
    }
}
