//! Memory that nobody gave back: told in checked runs when the context is wound up, and of what is left when the process
//! ends.

use std::collections::BTreeMap;

use super::state::{Buffer, BufferKind, State, try_lock};

/// Allocations that a report names one by one.
const NAMED: usize = 8;

/// Tells of all that `state` still holds; `when` begins the sentence.
pub(super) fn tell(state: &State, when: &str) {
    if let Some(report) = report(&state.buffers, when) {
        eprintln!("emulated GPU: {report}");
    }
}

/// Has [`tell`] called when the process ends.
pub(super) fn tell_at_exit() {
    unsafe extern "C" {
        fn atexit(function: extern "C" fn()) -> i32;
    }
    extern "C" fn at_exit() {
        // A thread that holds the state at the end keeps it: a report is not worth waiting for it.
        if let Some(state) = try_lock() {
            tell(&state, "the process ends");
        }
    }
    // SAFETY: the handler takes nothing and touches only statics, which live as long as the process; a library that
    // exports a driver is never unloaded by those who open it.
    unsafe { atexit(at_exit) };
}

fn report(buffers: &BTreeMap<u64, Buffer>, when: &str) -> Option<String> {
    if buffers.is_empty() {
        return None;
    }
    let mut all: Vec<&Buffer> = buffers.values().collect();
    all.sort_unstable_by_key(|buffer| buffer.number);
    let bytes: u64 = all.iter().map(|buffer| buffer.bytes).sum();
    let mut named: Vec<String> = all.iter().take(NAMED).map(|buffer| name(buffer)).collect();
    if all.len() > NAMED {
        named.push(format!("and {} more", all.len() - NAMED));
    }
    let count = all.len();
    Some(format!(
        "{when} with {bytes} bytes of memory in {count} allocations never freed: {}",
        named.join(", ")
    ))
}

fn name(buffer: &Buffer) -> String {
    let kind = if buffer.kind == BufferKind::Device { "device" } else { "pinned" };
    format!("allocation {} ({} bytes, {kind})", buffer.number, buffer.bytes)
}
