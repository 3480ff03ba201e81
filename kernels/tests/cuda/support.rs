//! What the tests share: a device or the reason why there is none.

use std::path::PathBuf;
use std::sync::OnceLock;

use kernels::device::cache::ModuleCache;
use kernels::device::{CudaDevice, DeviceError, library};

/// The device under test, opened once; `None`, and a line that says why, without one.
pub fn device() -> Option<CudaDevice> {
    static OPENED: OnceLock<Result<CudaDevice, DeviceError>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| {
        library::require_nvrtc()?;
        CudaDevice::open_with_cache(0, modules())
    });
    match opened {
        Ok(device) => Some(device.clone()),
        Err(error @ DeviceError::LibraryMissing { .. }) => {
            println!("not run: {error}");
            None
        }
        Err(error) => panic!("a driver is there, but no device can be opened: {error}"),
    }
}

/// What was compiled, by whichever test.
pub fn modules() -> ModuleCache {
    ModuleCache::in_folder(scratch_folder("shared-modules"))
}

/// Whether NVRTC can be called; says why if not.
pub fn compiler_present() -> bool {
    library::require_nvrtc().map_err(|error| println!("not run: {error}")).is_ok()
}

/// A folder for files of tests.
pub fn scratch_folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}
