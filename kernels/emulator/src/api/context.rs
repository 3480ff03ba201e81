//! The primary contexts, one of each device. They share the memory and the fate of the process's only state: a program that uses
//! several devices at once is tried with what it does to one.

use std::cell::RefCell;
use std::ffi::{c_int, c_uint};

use super::device::exists;
use super::state::{PRIMARY_CONTEXT, healthy, ready, sound, state};
use super::status::Status;
use super::{Handle, driver_calls, give};

thread_local! {
    /// Contexts current on this thread, innermost last.
    static CURRENT: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

driver_calls! {
    /// Takes hold of the primary context.
    fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) {
        let (mut state, _) = state()?;
        exists(device)?;
        // SAFETY: the contract of every call here.
        unsafe { give(context, (PRIMARY_CONTEXT + device as u64) as Handle)? };
        state.retained += 1;
        Ok(())
    }

    /// Lets go of it; with the last hold it is wound up, faults included.
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        let (mut state, settings) = state()?;
        exists(device)?;
        state.retained = state.retained.checked_sub(1).ok_or(Status::InvalidContext)?;
        if state.retained == 0 {
            state.reset_context(&settings);
        }
        Ok(())
    }

    /// Winds it up at once.
    fn cuDevicePrimaryCtxReset_v2(device: c_int) {
        let (mut state, settings) = state()?;
        exists(device)?;
        state.reset_context(&settings);
        Ok(())
    }

    /// Whether it is held, and its flags.
    fn cuDevicePrimaryCtxGetState(device: c_int, flags: *mut c_uint, active: *mut c_int) {
        let (state, _) = state()?;
        exists(device)?;
        // SAFETY: the contract of every call here.
        unsafe {
            give(flags, 0)?;
            give(active, c_int::from(state.retained > 0))
        }
    }

    /// Flags of the primary context; none changes anything here.
    fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, _flags: c_uint) {
        ready()?;
        exists(device)
    }

    /// The context of this thread, or null.
    fn cuCtxGetCurrent(context: *mut Handle) {
        ready()?;
        let current = CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(0));
        // SAFETY: the contract of every call here.
        unsafe { give(context, current as Handle) }
    }

    /// Replaces the context of this thread.
    fn cuCtxSetCurrent(context: Handle) {
        let context = known(context, ready()?.devices, true)?;
        CURRENT.with_borrow_mut(|stack| {
            stack.pop();
            if context != 0 {
                stack.push(context);
            }
        });
        Ok(())
    }

    /// Puts a context over the current one.
    fn cuCtxPushCurrent_v2(context: Handle) {
        let context = known(context, ready()?.devices, false)?;
        CURRENT.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    }

    /// Takes the current one off.
    fn cuCtxPopCurrent_v2(context: *mut Handle) {
        ready()?;
        let popped = CURRENT.with_borrow_mut(Vec::pop).ok_or(Status::InvalidContext)?;
        if context.is_null() {
            return Ok(());
        }
        // SAFETY: the contract of every call here.
        unsafe { give(context, popped as Handle) }
    }

    /// The device of the current context.
    fn cuCtxGetDevice(device: *mut c_int) {
        ready()?;
        let current = CURRENT.with_borrow(|stack| stack.last().copied()).ok_or(Status::InvalidContext)?;
        // SAFETY: the contract of every call here.
        unsafe { give(device, (current - PRIMARY_CONTEXT) as c_int) }
    }

    /// Scheduling flags; none changes anything here.
    fn cuCtxSetFlags(_flags: c_uint) {
        sound()?;
        Ok(())
    }

    /// Waits for all work, which is done; tells of a faulty kernel.
    fn cuCtxSynchronize() {
        healthy()?.0.order.host_waits_for_all();
        Ok(())
    }

    /// The range of stream priorities.
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        sound()?;
        // SAFETY: the contract of every call here; either may be null.
        unsafe {
            if !least.is_null() {
                least.write(0);
            }
            if !greatest.is_null() {
                greatest.write(-1);
            }
        }
        Ok(())
    }

    /// The split between cache and shared memory, which this device does not have.
    fn cuCtxSetCacheConfig(_config: c_int) {
        sound()?;
        Ok(())
    }
}

fn known(context: Handle, devices: u32, or_null: bool) -> Result<u64, Status> {
    let devices = u64::from(devices);
    match context as u64 {
        0 if or_null => Ok(0),
        context if context.checked_sub(PRIMARY_CONTEXT).is_some_and(|device| device < devices) => Ok(context),
        _ => Err(Status::InvalidContext),
    }
}
