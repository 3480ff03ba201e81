//! What can go wrong between a launcher and a CUDA device.

use cudarc::driver::DriverError;

/// A failure of the device layer: what was tried, on what, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
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
        let doing = doing.into();
        move |source| Self::Driver { doing, source }
    }
}
