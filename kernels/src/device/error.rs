//! What can go wrong between a launcher and a CUDA device.

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

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
    #[error("CUDA device {ordinal} does not exist: the driver reports {count}; choose a lower number")]
    NoSuchDevice {
        /// The device asked for.
        ordinal: usize,
        /// Devices there are.
        count: usize,
    },
    /// A driver call failed.
    #[error("the CUDA driver failed {doing}: {source}")]
    Driver {
        /// What was being done.
        doing: String,
        /// What the driver said.
        source: DriverError,
    },
    /// A kernel faulted, or the device is gone: whatever is asked of it from here on fails.
    #[error(
        "the CUDA device is lost to this process, it failed {doing}: {source}; a kernel faulted or the GPU went away: \
         start again, or run with --device cpu"
    )]
    Lost {
        /// What was being done when it showed.
        doing: String,
        /// What the driver said.
        source: DriverError,
    },
    /// The card has no room.
    #[error(
        "the CUDA device has no memory left for {asked_bytes} bytes more: {in_use_bytes} of its {card_bytes} bytes are in \
         use here; end what else runs on it, cut the model into more stages, or run with --device cpu"
    )]
    OutOfMemory {
        /// Bytes asked for.
        asked_bytes: u64,
        /// Bytes that this process uses.
        in_use_bytes: u64,
        /// Bytes of the card.
        card_bytes: u64,
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

impl DeviceError {
    /// Wraps a driver's error with what was being done.
    pub(crate) fn driver(doing: impl Into<String>) -> impl FnOnce(DriverError) -> Self {
        move |source| Self::of(source, || doing.into())
    }

    /// As [`DeviceError::driver`], where the words are only made if they are needed.
    pub(crate) fn of(source: DriverError, doing: impl FnOnce() -> String) -> Self {
        let doing = doing();
        if STICKY.contains(&source.0) { Self::Lost { doing, source } } else { Self::Driver { doing, source } }
    }
}

/// After one of these the driver answers every call of the process with it.
const STICKY: [CUresult; 12] = [
    CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
    CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
    CUresult::CUDA_ERROR_ASSERT,
    CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
    CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
    CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
    CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE,
    CUresult::CUDA_ERROR_INVALID_PC,
    CUresult::CUDA_ERROR_LAUNCH_FAILED,
    CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
    CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED,
    CUresult::CUDA_ERROR_UNKNOWN,
];
