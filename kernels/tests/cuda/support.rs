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

    /// Memory for `len` elements that nothing has been written to but sentinels.
    pub fn empty(device: &CudaDevice, len: usize, shift: usize) -> Self {
        Self::new(device, &vec![SENTINEL; len], shift)
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

/// `len` numbers in [-1, 1), among them zeros of either sign, subnormals, and products of the smallest kind: what makes
/// sloppy kernels differ.
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    };
    (0..len)
        .map(|_| {
            let uniform = (next() as i32 >> 8) as f32 / (1 << 23) as f32;
            match next() % 64 {
                0 => 0.0,
                1 => -0.0,
                2 => uniform * f32::MIN_POSITIVE,
                3 => uniform * 1e-30,
                4 => uniform * 1e4,
                _ => uniform,
            }
        })
        .collect()
}

/// Panics unless `cuda` has the bits of `cpu`, rows of `columns` elements; says where the first difference is. Which NaN
/// it is does not count: machines differ in that.
pub fn expect_same_bits(what: &str, columns: usize, cpu: &[f32], cuda: &[f32]) {
    assert_eq!(cpu.len(), cuda.len(), "{what}");
    let differs =
        |at: &usize| cpu[*at].to_bits() != cuda[*at].to_bits() && !(cpu[*at].is_nan() && cuda[*at].is_nan());
    let different: Vec<usize> = (0..cpu.len()).filter(differs).collect();
    if let Some(&at) = different.first() {
        panic!(
            "{what}: {} of {} elements differ, first row {} column {}: CPU {:e} ({:08x}), CUDA {:e} ({:08x})",
            different.len(),
            cpu.len(),
            at / columns,
            at % columns,
            cpu[at],
            cpu[at].to_bits(),
            cuda[at],
            cuda[at].to_bits()
        );
    }
}
