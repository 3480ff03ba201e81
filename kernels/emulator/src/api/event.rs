//! Events: points in the host's time.

use std::ffi::c_uint;
use std::time::Instant;

use super::state::{Event, healthy};
use super::status::Status;
use super::{Handle, Outcome, driver_calls, give};

/// `CU_EVENT_DISABLE_TIMING`
const DISABLE_TIMING: c_uint = 2;

driver_calls! {
    /// A new event.
    fn cuEventCreate(event: *mut Handle, flags: c_uint) {
        let (mut state, _) = healthy()?;
        let handle = state.fresh_handle();
        // SAFETY: the contract of every call here.
        unsafe { give(event, handle as Handle)? };
        state.events.insert(handle, Event { timed: flags & DISABLE_TIMING == 0, recorded: None });
        Ok(())
    }

    /// Ends an event.
    fn cuEventDestroy_v2(event: Handle) {
        let (mut state, _) = healthy()?;
        state.events.remove(&(event as u64)).map(|_| ()).ok_or(Status::InvalidHandle)
    }

    /// Marks now.
    fn cuEventRecord(event: Handle, stream: Handle) {
        let (mut state, _) = healthy()?;
        state.check_stream(stream)?;
        let handle = event as u64;
        let event = state.events.get_mut(&handle).ok_or(Status::InvalidHandle)?;
        event.recorded = Some(Instant::now());
        state.order.record(handle, stream as u64);
        Ok(())
    }

    /// Whether the event has happened: always, once asked for.
    fn cuEventQuery(event: Handle) {
        exists(event)
    }

    /// Waits for an event.
    fn cuEventSynchronize(event: Handle) {
        exists(event)
    }

    /// Milliseconds between two events.
    fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) {
        elapsed(milliseconds, start, end)
    }

    /// Milliseconds between two events.
    fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: Handle, end: Handle) {
        elapsed(milliseconds, start, end)
    }
}

fn exists(event: Handle) -> Outcome {
    let (mut state, _) = healthy()?;
    if !state.events.contains_key(&(event as u64)) {
        return Err(Status::InvalidHandle);
    }
    state.order.host_waits_for_event(event as u64);
    Ok(())
}

fn elapsed(milliseconds: *mut f32, start: Handle, end: Handle) -> Outcome {
    let (state, _) = healthy()?;
    let at = |event: Handle| {
        let event = state.events.get(&(event as u64)).filter(|event| event.timed);
        event.and_then(|event| event.recorded).ok_or(Status::InvalidHandle)
    };
    let (start, end) = (at(start)?, at(end)?);
    let seconds = end.saturating_duration_since(start).as_secs_f64()
        - start.saturating_duration_since(end).as_secs_f64();
    // SAFETY: the contract of the calls above.
    unsafe { give(milliseconds, (seconds * 1e3) as f32) }
}
