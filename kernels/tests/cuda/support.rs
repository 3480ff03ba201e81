//! What the tests share: a device or the reason why there is none, inputs, guarded memory, comparison.

use std::path::PathBuf;
use std::sync::OnceLock;

use kernels::device::cache::ModuleCache;
use kernels::device::{Buffer, CudaDevice, DeviceError, View, ViewMut, library};

/// The device under test, opened once; `None`, and a line that says why, without one.
pub fn device() -> Option<CudaDevice> {
    static OPENED: OnceLock<Result<CudaDevice, DeviceError>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| {
        library::require_nvrtc()?;
        CudaDevice::open_with_cache(0, ModuleCache::in_folder(scratch_folder("shared-modules")))
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

/// Whether NVRTC can be called; says why if not.
pub fn compiler_present() -> bool {
    library::require_nvrtc().map_err(|error| println!("not run: {error}")).is_ok()
}

/// A folder for files of tests.
pub fn scratch_folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Memory of a device with a wall of sentinels on either side.
pub struct Walled {
    memory: Buffer<f32>,
    begin: usize,
    len: usize,
}

/// A NaN that no kernel produces.
const SENTINEL: f32 = f32::from_bits(0x7fc5_a5a5);
/// Keeps what lies behind it on 16 bytes.
const WALL: usize = 64;

impl Walled {
    /// `content`, beginning `shift` elements after an address that is a multiple of 256.
    pub fn new(device: &CudaDevice, content: &[f32], shift: usize) -> Self {
        let begin = WALL + shift;
        let mut host = vec![SENTINEL; begin + content.len() + WALL];
        host[begin..][..content.len()].copy_from_slice(content);
        Self { memory: device.upload(&host).unwrap(), begin, len: content.len() }
    }

    pub fn view(&self) -> View<'_, f32> {
        self.memory.slice(self.begin..self.begin + self.len)
    }

    pub fn view_mut(&mut self) -> ViewMut<'_, f32> {
        self.memory.slice_mut(self.begin..self.begin + self.len)
    }

    /// The content, after a look at the walls.
    pub fn take(self, device: &CudaDevice, what: &str) -> Vec<f32> {
        let host = device.download(&self.memory.view()).unwrap();
        for (place, value) in host.iter().enumerate() {
            let inside = (self.begin..self.begin + self.len).contains(&place);
            assert!(
                inside || value.to_bits() == SENTINEL.to_bits(),
                "{what}: a kernel wrote {value:e} at element {} of {}",
                place as isize - self.begin as isize,
                self.len
            );
        }
        host[self.begin..][..self.len].to_vec()
    }
}
