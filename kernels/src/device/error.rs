//! What can go wrong between a launcher and a CUDA device.

use cudarc::driver::{DriverError, sys::CUresult};

/// A failure of the device layer: what was tried, on what, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A shared library was found nowhere.
    #[error("{library} was not found; looked for {}; {advice}", looked_for.join(", "))]
    LibraryMissing {
        /// What the library is.
        library: &'static str,
        /// Every name and path that was tried.
        looked_for: Vec<String>,
        /// What the user can do.
        advice: &'static str,
    },
    /// The driver has fewer devices than asked for.
    #[error(
        "CUDA device {ordinal} does not exist: the driver reports {count}, numbered from 0; choose one of those, or run on the CPU"
    )]
    NoSuchDevice {
        /// The device asked for.
        ordinal: usize,
        /// Devices there are.
        count: usize,
    },
    /// A driver call failed.
    #[error("the CUDA driver failed {doing}: {}; {}", words(source), advice(source.0))]
    Driver {
        /// What was being done.
        doing: String,
        /// What the driver said.
        source: DriverError,
    },
    /// The card has no room.
    #[error(
        "the CUDA device has no room to reserve {asked_bytes} bytes (CUDA_ERROR_OUT_OF_MEMORY), {in_use_bytes} of its \
         {card_bytes} bytes are in use here; {}",
        advice(CUresult::CUDA_ERROR_OUT_OF_MEMORY)
    )]
    OutOfMemory {
        /// Bytes asked for.
        asked_bytes: u64,
        /// Bytes that this process uses.
        in_use_bytes: u64,
        /// Bytes of the card.
        card_bytes: u64,
    },
    /// NVRTC knows no architecture that the device could run.
    #[error(
        "NVRTC compiles nothing for compute capability {}.{}: it has dropped it, or is older than it; install NVRTC 12.9",
        capability / 10,
        capability % 10
    )]
    NoTarget {
        /// The device's compute capability: 86 for 8.6.
        capability: u32,
    },
    /// NVRTC refused a source or failed in itself.
    #[error("NVRTC could not compile {name} with {}: {log}", options.join(" "))]
    Compile {
        /// The room whose source it is.
        name: String,
        /// The options given.
        options: Vec<String>,
        /// The compiler's log, or the name of its error.
        log: String,
    },
    /// Neither what NVRTC compiles nor the committed PTX can be used.
    #[error(
        "there are no kernels of {name} for this device: compiled here, {compiled}; from the PTX that iota carries, {committed}"
    )]
    NoModule {
        /// The room whose kernels they are.
        name: &'static str,
        /// What keeps NVRTC's from being used.
        compiled: Box<DeviceError>,
        /// What keeps the committed PTX from being used.
        committed: Box<DeviceError>,
    },
    /// A module has no kernel of that name.
    #[error("module {module} has no kernel {entry}")]
    NoSuchKernel {
        /// The module looked into.
        module: &'static str,
        /// The kernel looked for.
        entry: String,
    },
    /// A launcher's arguments are not what the compiled kernel takes.
    #[error("kernel {entry} takes ({expected}), the launcher passes ({found})")]
    Arguments {
        /// The kernel.
        entry: String,
        /// Its parameters, from its PTX.
        expected: String,
        /// What the launcher passes.
        found: String,
    },
    /// A dimension exceeds what kernels take.
    #[error("{op}: {what} is {found}, kernels take at most {most}; cut the work into smaller pieces")]
    TooLarge {
        /// The op.
        op: &'static str,
        /// The dimension.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The most that kernels take.
        most: usize,
    },
}

/// A driver's error in its words, and by its name.
fn words(error: &DriverError) -> String {
    match error.error_string() {
        Ok(text) => format!("{} ({:?})", text.to_string_lossy(), error.0),
        Err(_) => format!("{:?}", error.0),
    }
}

/// What a user can do about a driver's error.
fn advice(code: CUresult) -> &'static str {
    use CUresult::*;
    match code {
        CUDA_ERROR_OUT_OF_MEMORY => {
            "the device's memory is full: end other programs that use it, or make the work smaller"
        }
        code if is_newer_than_the_driver(code) => {
            "the driver is older than the compiler of the kernels: update the driver to one for CUDA 12.9"
        }
        CUDA_ERROR_NO_DEVICE => {
            "it sees no NVIDIA card: ask `nvidia-smi`, look at CUDA_VISIBLE_DEVICES and, in a container, at what it was \
             given, or run on the CPU"
        }
        CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | CUDA_ERROR_SYSTEM_NOT_READY => {
            "the parts of the driver are of different versions, or not all running: restart the machine"
        }
        CUDA_ERROR_ILLEGAL_ADDRESS
        | CUDA_ERROR_MISALIGNED_ADDRESS
        | CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUDA_ERROR_LAUNCH_TIMEOUT
        | CUDA_ERROR_LAUNCH_FAILED => {
            "a kernel went wrong, and this process cannot use the device any more: start it again, and if that does \
             not help, run `iota doctor`"
        }
        CUDA_ERROR_DEVICE_UNAVAILABLE | CUDA_ERROR_ECC_UNCORRECTABLE | CUDA_ERROR_UNKNOWN => {
            "the device does not answer any more: look at it with `nvidia-smi`, restart the machine, or run on the CPU"
        }
        _ => "run `iota doctor`",
    }
}

/// What a driver says of kernels from a compiler that it does not know yet.
fn is_newer_than_the_driver(code: CUresult) -> bool {
    use CUresult::*;
    matches!(
        code,
        CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUDA_ERROR_INVALID_PTX
            | CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUDA_ERROR_INVALID_IMAGE
    )
}

impl DeviceError {
    /// Whether kernels that NVRTC compiles cannot be had here but the committed PTX might do: no NVRTC, one that knows no
    /// architecture for the device, or one that is newer than the driver.
    pub(super) fn leaves_the_committed(&self) -> bool {
        match self {
            Self::LibraryMissing { .. } | Self::NoTarget { .. } => true,
            Self::Driver { source, .. } => is_newer_than_the_driver(source.0),
            _ => false,
        }
    }

    /// Wraps a driver's error with what was being done.
    pub(crate) fn driver(doing: impl Into<String>) -> impl FnOnce(DriverError) -> Self {
        move |source| Self::of(source, || doing.into())
    }

    /// As [`DeviceError::driver`], where the words are only made if they are needed.
    pub(crate) fn of(source: DriverError, doing: impl FnOnce() -> String) -> Self {
        Self::Driver { doing: doing(), source }
    }
}
