//! Initialisation, versions, and the calls by name.

use std::ffi::{c_char, c_int, c_void};

use super::status::Status;
use super::{
    context, device, driver_calls, event, give, launch, leaks, memory, module, occupancy, state, status,
    stream, text,
};

driver_calls! {
    /// Wakes the device.
    fn cuInit(flags: u32) {
        let settings = super::settings::settings()?;
        if flags != 0 {
            return Err(Status::InvalidValue);
        }
        if settings.devices == 0 {
            return Err(Status::NoDevice);
        }
        let again = std::mem::replace(&mut state::lock().initialized, true);
        if settings.check && !again {
            leaks::tell_at_exit();
        }
        Ok(())
    }

    /// The version of CUDA this driver claims to serve.
    fn cuDriverGetVersion(version: *mut c_int) {
        // SAFETY: the contract of every call here.
        unsafe { give(version, super::settings::settings()?.driver as c_int) }
    }

    /// Undocumented tables of functions. There are none; NVRTC asks at every compilation and takes no for an
    /// answer, but not the absence of the question.
    fn cuGetExportTable(table: *mut *const c_void, _id: *const c_void) {
        // SAFETY: the contract of every call here.
        unsafe { give(table, std::ptr::null())? };
        Err(Status::NotFound)
    }

    /// The address of a call.
    fn cuGetProcAddress(symbol: *const c_char, out: *mut *mut c_void, _version: c_int, _flags: u64) {
        // SAFETY: the contract of every call here.
        unsafe { give(out, find(text(symbol)?).ok_or(Status::NotFound)?) }
    }

    /// The address of a call, and whether there is one: 0 or, for an unknown name, 1.
    fn cuGetProcAddress_v2(
        symbol: *const c_char,
        out: *mut *mut c_void,
        _version: c_int,
        _flags: u64,
        found: *mut c_int,
    ) {
        // SAFETY: the contract of every call here.
        unsafe {
            let address = find(text(symbol)?);
            if !found.is_null() {
                found.write(if address.is_some() { 0 } else { 1 });
            }
            give(out, address.unwrap_or(std::ptr::null_mut()))?;
            address.map(|_| ()).ok_or(Status::NotFound)
        }
    }
}

/// A call by its name, with the newest suffix if none is given.
fn find(name: &str) -> Option<*mut c_void> {
    let tables = [
        CALLS,
        context::CALLS,
        device::CALLS,
        event::CALLS,
        launch::CALLS,
        memory::CALLS,
        module::CALLS,
        occupancy::CALLS,
        status::CALLS,
        stream::CALLS,
    ];
    let newest = format!("{name}_v2");
    let by_name = |wanted: &str| {
        tables
            .iter()
            .flat_map(|table| table.iter())
            .find(|call| call.0 == wanted)
            .map(|call| call.1.0 as *mut c_void)
    };
    by_name(&newest).or_else(|| by_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_with_and_without_suffix() {
        assert!(find("cuInit").is_some());
        assert_eq!(find("cuMemAlloc"), find("cuMemAlloc_v2"));
        assert!(find("cuFly").is_none());
    }

    #[test]
    fn null_pointers_are_answered() {
        let invalid = Status::InvalidValue as u32;
        // SAFETY: null is allowed wherever a pointer goes.
        unsafe {
            assert_eq!(cuDriverGetVersion(std::ptr::null_mut()), invalid);
            assert_eq!(cuGetProcAddress(std::ptr::null(), std::ptr::null_mut(), 0, 0), invalid);
            assert_eq!(cuGetExportTable(std::ptr::null_mut(), std::ptr::null()), invalid);
        }
    }
}
