//! What a call answers.

use std::ffi::{CStr, c_char};

use super::{driver_calls, give};
use crate::exec::fault::FaultKind;

macro_rules! statuses {
    ($($(#[doc = $doc:literal])* $variant:ident = $code:literal, $name:literal, $text:literal;)*) => {
        /// The `CUresult` values this device gives.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Status {
            $($(#[doc = $doc])* $variant = $code,)*
        }

        impl Status {
            /// Name and description of a code.
            fn words(code: u32) -> Option<(&'static CStr, &'static CStr)> {
                match code {
                    $($code => Some(($name, $text)),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// It worked.
    Success = 0, c"CUDA_SUCCESS", c"no error";
    /// An argument makes no sense.
    InvalidValue = 1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument";
    /// The device has not so much memory left.
    OutOfMemory = 2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory";
    /// The device does not answer any more.
    DeviceUnavailable = 46, c"CUDA_ERROR_DEVICE_UNAVAILABLE", c"CUDA-capable device(s) is/are busy or unavailable";
    /// `cuInit` was not called.
    NotInitialized = 3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error";
    /// The machine has no device.
    NoDevice = 100, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected";
    /// No device has that number.
    InvalidDevice = 101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal";
    /// A module image that is no PTX, or PTX for a newer device.
    NoBinaryForGpu = 209, c"CUDA_ERROR_NO_BINARY_FOR_GPU", c"no kernel image is available for execution on the device";
    /// No context is current.
    InvalidContext = 201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context";
    /// PTX this device does not understand.
    InvalidPtx = 218, c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed";
    /// PTX newer than the driver.
    UnsupportedPtxVersion = 222, c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", c"the provided PTX was compiled with an unsupported toolchain.";
    /// A file that is not there.
    FileNotFound = 301, c"CUDA_ERROR_FILE_NOT_FOUND", c"file not found";
    /// A handle nobody was given, or of something destroyed.
    InvalidHandle = 400, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle";
    /// No kernel, variable or call of that name.
    NotFound = 500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found";
    /// An access outside the device's memory.
    IllegalAddress = 700, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered";
    /// More threads or shared memory than a block can have.
    LaunchOutOfResources = 701, c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", c"too many resources requested for launch";
    /// A kernel that ran too long.
    LaunchTimeout = 702, c"CUDA_ERROR_LAUNCH_TIMEOUT", c"the launch timed out and was terminated";
    /// A trap or an instruction with senseless operands.
    IllegalInstruction = 715, c"CUDA_ERROR_ILLEGAL_INSTRUCTION", c"an illegal instruction was encountered";
    /// An address that is no multiple of the access's size.
    MisalignedAddress = 716, c"CUDA_ERROR_MISALIGNED_ADDRESS", c"misaligned address";
    /// A kernel failed in a way that has no error of its own.
    LaunchFailed = 719, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure";
    /// This device has no such feature.
    NotSupported = 801, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported";
    /// A defect of the emulator.
    Unknown = 999, c"CUDA_ERROR_UNKNOWN", c"unknown error";
}

impl From<FaultKind> for Status {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::IllegalAddress => Self::IllegalAddress,
            FaultKind::MisalignedAddress => Self::MisalignedAddress,
            FaultKind::IllegalInstruction => Self::IllegalInstruction,
            FaultKind::Timeout => Self::LaunchTimeout,
            // A device hangs or goes on with wrong values; both end as a failed launch here.
            FaultKind::DivergentSynchronisation | FaultKind::SharedRace | FaultKind::UninitialisedRead => {
                Self::LaunchFailed
            }
        }
    }
}

driver_calls! {
    /// The name of an error.
    fn cuGetErrorName(error: u32, out: *mut *const c_char) {
        let words = Status::words(error);
        // SAFETY: the contract of every call here.
        unsafe { give(out, words.map_or(std::ptr::null(), |words| words.0.as_ptr()))? };
        words.map(|_| ()).ok_or(Status::InvalidValue)
    }

    /// The description of an error.
    fn cuGetErrorString(error: u32, out: *mut *const c_char) {
        let words = Status::words(error);
        // SAFETY: the contract of every call here.
        unsafe { give(out, words.map_or(std::ptr::null(), |words| words.1.as_ptr()))? };
        words.map(|_| ()).ok_or(Status::InvalidValue)
    }
}
