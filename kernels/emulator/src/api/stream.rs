//! Streams. Work is done when its call returns, so a stream is a name.

use std::ffi::{c_int, c_uint, c_void};

use super::state::healthy;
use super::status::Status;
use super::{Handle, Outcome, driver_calls, give};

driver_calls! {
    /// A new stream.
    fn cuStreamCreate(stream: *mut Handle, _flags: c_uint) {
        create(stream)
    }

    /// A new stream; priorities change nothing here.
    fn cuStreamCreateWithPriority(stream: *mut Handle, _flags: c_uint, _priority: c_int) {
        create(stream)
    }

    /// Ends a stream.
    fn cuStreamDestroy_v2(stream: Handle) {
        let (mut state, _) = healthy()?;
        if state.streams.remove(&(stream as u64)) { Ok(()) } else { Err(Status::InvalidHandle) }
    }

    /// Waits for a stream's work; tells of a faulty kernel.
    fn cuStreamSynchronize(stream: Handle) {
        waited(stream)
    }

    /// Whether a stream's work is done; tells of a faulty kernel.
    fn cuStreamQuery(stream: Handle) {
        waited(stream)
    }

    /// Makes a stream wait for an event, which has happened.
    fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) {
        let (mut state, _) = healthy()?;
        state.check_stream(stream)?;
        if !state.events.contains_key(&(event as u64)) {
            return Err(Status::InvalidHandle);
        }
        state.order.wait(stream as u64, event as u64);
        Ok(())
    }

    /// Whether work is being recorded into a graph: never.
    fn cuStreamIsCapturing(stream: Handle, status: *mut c_int) {
        healthy()?.0.check_stream(stream)?;
        // SAFETY: the contract of every call here.
        unsafe { give(status, 0) }
    }

    /// Graphs do not exist here.
    fn cuStreamBeginCapture_v2(_stream: Handle, _mode: c_int) {
        Err(Status::NotSupported)
    }

    /// Graphs do not exist here.
    fn cuStreamEndCapture(_stream: Handle, _graph: *mut Handle) {
        Err(Status::NotSupported)
    }

    /// Calls a function of the host when the stream's work is done, which is now.
    fn cuLaunchHostFunc(stream: Handle, function: Option<unsafe extern "C" fn(*mut c_void)>, data: *mut c_void) {
        healthy()?.0.check_stream(stream)?;
        let function = function.ok_or(Status::InvalidValue)?;
        // SAFETY: the contract of every call here.
        unsafe { function(data) };
        Ok(())
    }
}

fn waited(stream: Handle) -> Outcome {
    let (mut state, _) = healthy()?;
    state.check_stream(stream)?;
    state.order.host_waits_for_stream(stream as u64);
    Ok(())
}

fn create(stream: *mut Handle) -> Outcome {
    let (mut state, _) = healthy()?;
    let handle = state.fresh_handle();
    // SAFETY: the contract of the calls above.
    unsafe { give(stream, handle as Handle)? };
    state.streams.insert(handle);
    Ok(())
}
