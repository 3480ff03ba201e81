//! The Driver API, as far as `cudarc` and NVRTC call it.
//!
//! Every call runs to its end before it returns, so streams keep order by nature and events are points in
//! time; checked runs find work of two streams that a device might do in another order (`order`). A kernel's fault is reported on stderr at once; as on a device it is *sticky*: the launch succeeds,
//! and every later call that touches the context returns the fault's error until the primary context is
//! released.
//!
//! No panic leaves a call (it becomes `CUDA_ERROR_UNKNOWN`), a null pointer where a result goes is
//! `CUDA_ERROR_INVALID_VALUE`, and handles are numbers looked up in tables, never addresses followed.

pub mod context;
pub mod device;
pub mod entry;
pub mod event;
pub mod launch;
mod leaks;
pub mod memory;
pub mod module;
pub mod occupancy;
mod order;
mod settings;
mod state;
pub mod status;
pub mod stream;

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use status::Status;

/// What every call returns: a [`Status`] as a number.
pub type CuResult = u32;

/// A context, stream, event, module or function: a number in the form of a pointer.
pub type Handle = *mut c_void;

/// What the body of a call returns.
type Outcome = Result<(), Status>;

/// Declares exported functions and a table of them, `CALLS`, for `cuGetProcAddress`.
macro_rules! driver_calls {
    ($($(#[doc = $doc:literal])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {
        $(
            $(#[doc = $doc])*
            ///
            /// # Safety
            /// Pointers are null or as the CUDA Driver API describes them.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> $crate::api::CuResult {
                $crate::api::contain(stringify!($name), || $body)
            }
        )*

        /// The calls of this file by name and address.
        pub(in crate::api) static CALLS: &[(&str, $crate::api::Address)] =
            &[$((stringify!($name), $crate::api::Address($name as *const ()))),*];
    };
}
use driver_calls;

/// The address of an exported function.
#[derive(Clone, Copy)]
pub(in crate::api) struct Address(pub *const ());

// SAFETY: the address of code is the same for every thread and never written through.
unsafe impl Sync for Address {}

/// Runs the body of a call so that nothing but a status comes out.
fn contain(name: &str, body: impl FnOnce() -> Outcome) -> CuResult {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Status::Success as CuResult,
        Ok(Err(status)) => status as CuResult,
        Err(_) => {
            eprintln!("emulated GPU: a defect of the emulator in {name}, see the panic above");
            Status::Unknown as CuResult
        }
    }
}

/// Writes a result.
///
/// # Safety
/// `to` is null or valid for a write.
unsafe fn give<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: not null, the caller's promise for the rest.
    unsafe { to.write(value) };
    Ok(())
}

/// Reads a C string.
///
/// # Safety
/// `text` is null or ends with a zero byte.
unsafe fn text<'a>(text: *const std::ffi::c_char) -> Result<&'a str, Status> {
    if text.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: not null, the caller's promise for the rest.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_str().map_err(|_| Status::InvalidValue)
}
