//! One CUDA device: its context, its stream, its compiled modules, its memory.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_INVALID_SOURCE, CUDA_ERROR_NO_BINARY_FOR_GPU,
};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr,
    DeviceRepr, DriverError, result, sys,
};
use cudarc::nvrtc::Ptx;

use super::cache::{Key, ModuleCache};
use super::compile::{self, Image};
use super::ptx::{self, Parameter};
use super::{DeviceError, Launch, library};

/// Memory of a device, owned.
#[derive(Debug)]
pub struct Buffer<T> {
    /// One element at least: the driver has no memory of no size.
    memory: CudaSlice<T>,
    len: usize,
}

impl<T> Buffer<T> {
    /// All of it, to be read.
    pub fn view(&self) -> View<'_, T> {
        self.memory.slice(..self.len)
    }

    /// All of it, to be written.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        self.memory.slice_mut(..self.len)
    }

    /// Some of it, to be read. Panics if `range` goes beyond the end.
    pub fn slice(&self, range: Range<usize>) -> View<'_, T> {
        assert!(range.end <= self.len, "{range:?} of a buffer of {} elements", self.len);
        self.memory.slice(range)
    }

    /// Some of it, to be written. Panics if `range` goes beyond the end.
    pub fn slice_mut(&mut self, range: Range<usize>) -> ViewMut<'_, T> {
        assert!(range.end <= self.len, "{range:?} of a buffer of {} elements", self.len);
        self.memory.slice_mut(range)
    }
}

/// A range of a device's memory, to be read.
pub type View<'a, T> = CudaView<'a, T>;
/// A range of a device's memory, to be written.
pub type ViewMut<'a, T> = CudaViewMut<'a, T>;

/// The kernels of one room: pieces of CUDA C++ that are compiled as one text.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The room's name.
    pub name: &'static str,
    /// What is compiled, in this order; shared pieces go first.
    pub pieces: &'static [&'static str],
}

impl Source {
    /// The whole text.
    pub fn text(&self) -> String {
        self.pieces.concat()
    }
}

/// One CUDA device. Clones share context, stream and modules.
#[derive(Clone)]
pub struct CudaDevice(Arc<Inner>);

struct Inner {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    capability: u32,
    multiprocessors: u32,
    cache: ModuleCache,
    modules: Mutex<BTreeMap<&'static str, Arc<Module>>>,
}

/// Who a device is, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The device's name, as the driver says it.
    pub name: String,
    /// Compute capability, (major, minor).
    pub capability: (u32, u32),
    /// Newest CUDA version that the driver supports, (major, minor).
    pub driver: (u32, u32),
    /// NVRTC's version, (major, minor); `None` if there is no NVRTC.
    pub nvrtc: Option<(u32, u32)>,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

impl CudaDevice {
    /// How many devices the driver has.
    ///
    /// # Errors
    /// [`DeviceError::LibraryMissing`] without a driver; [`DeviceError::Driver`] if it cannot start.
    pub fn count() -> Result<usize, DeviceError> {
        library::require_driver()?;
        result::init().map_err(DeviceError::driver("to start"))?;
        let count = result::device::get_count().map_err(DeviceError::driver("to count devices"))?;
        Ok(count.unsigned_abs() as usize)
    }

    /// Opens device `ordinal`, counted from 0; compiled kernels are kept in the user's cache.
    ///
    /// # Errors
    /// As [`CudaDevice::count`]; [`DeviceError::NoSuchDevice`] for a number too high.
    pub fn open(ordinal: usize) -> Result<Self, DeviceError> {
        Self::open_with_cache(ordinal, ModuleCache::of_user())
    }

    /// As [`CudaDevice::open`], with compiled kernels kept in `cache`.
    ///
    /// # Errors
    /// As [`CudaDevice::open`].
    pub fn open_with_cache(ordinal: usize, cache: ModuleCache) -> Result<Self, DeviceError> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(DeviceError::NoSuchDevice { ordinal, count });
        }
        let opening = format!("to open device {ordinal}");
        let context = CudaContext::new(ordinal).map_err(DeviceError::driver(opening))?;
        let asking = "to describe the device";
        let (major, minor) = context.compute_capability().map_err(DeviceError::driver(asking))?;
        let multiprocessors = context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(DeviceError::driver(asking))?;
        Ok(Self(Arc::new(Inner {
            stream: context.default_stream(),
            context,
            capability: major.unsigned_abs() * 10 + minor.unsigned_abs(),
            multiprocessors: multiprocessors.unsigned_abs(),
            cache,
            modules: Mutex::default(),
        })))
    }

    /// Who the device is.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] if the driver does not answer.
    pub fn report(&self) -> Result<Report, DeviceError> {
        let asking = "to describe the device";
        let mut version = 0;
        // SAFETY: the driver is present, as this device shows; the pointer is to a live integer.
        let answer = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        answer.result().map_err(DeviceError::driver(asking))?;
        let version = version.unsigned_abs();
        Ok(Report {
            name: self.0.context.name().map_err(DeviceError::driver(asking))?,
            capability: (self.0.capability / 10, self.0.capability % 10),
            driver: (version / 1000, version % 1000 / 10),
            nvrtc: compile::nvrtc_version().ok(),
            multiprocessors: self.0.multiprocessors,
            memory_bytes: self.0.context.total_mem().map_err(DeviceError::driver(asking))? as u64,
        })
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.0.multiprocessors
    }

    /// Compute capability as one number: 86 for 8.6.
    pub fn capability(&self) -> u32 {
        self.0.capability
    }

    /// A copy of `host` on the device.
    ///
    /// # Errors
    /// [`DeviceError::Driver`], most often for want of memory.
    pub fn upload<T: DeviceRepr>(&self, host: &[T]) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = self.scratch(host.len())?;
        if !host.is_empty() {
            let doing = format!("to copy {} bytes to the device", size_of_val(host));
            self.0.stream.memcpy_htod(host, &mut buffer.memory).map_err(DeviceError::driver(doing))?;
        }
        Ok(buffer)
    }

    /// A copy of `device` in host memory, after all work queued before has been done.
    ///
    /// # Errors
    /// [`DeviceError::Driver`]; a kernel that failed shows here too.
    pub fn download<T: DeviceRepr>(&self, device: &View<'_, T>) -> Result<Vec<T>, DeviceError> {
        if device.is_empty() {
            return Ok(Vec::new());
        }
        let doing = format!("to copy {} bytes from the device", device.len() * size_of::<T>());
        self.0.stream.clone_dtoh(device).map_err(DeviceError::driver(doing))
    }

    /// Memory for `len` elements, whose content is undefined until it is written.
    ///
    /// # Errors
    /// [`DeviceError::Driver`], most often for want of memory.
    pub fn scratch<T: DeviceRepr>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        let doing = format!("to reserve {} bytes", len * size_of::<T>());
        // SAFETY: device code may hold any bits in the types that implement `DeviceRepr` here (plain numbers), and
        // kernels write a buffer before they read it.
        let memory = unsafe { self.0.stream.alloc(len.max(1)) }.map_err(DeviceError::driver(doing))?;
        Ok(Buffer { memory, len })
    }

    /// Waits until all work queued so far is done.
    ///
    /// # Errors
    /// [`DeviceError::Driver`]; a kernel that failed shows here.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.0.stream.synchronize().map_err(DeviceError::driver("to finish queued work"))
    }

    /// Whether a view begins on 16 bytes, so that kernels may read it in float4.
    pub fn is_aligned<T>(&self, view: &impl DevicePtr<T>) -> bool {
        view.device_ptr(&self.0.stream).0.is_multiple_of(16)
    }

    /// Begins a launch of kernel `entry` of `source`, compiling the source if this device has not seen it yet.
    ///
    /// # Errors
    /// [`DeviceError::LibraryMissing`], [`DeviceError::Compile`], [`DeviceError::Driver`] when the source is first
    /// used; [`DeviceError::NoSuchKernel`] for a name that is not in it.
    pub fn launch(&self, source: &Source, entry: &'static str) -> Result<Launch<'_>, DeviceError> {
        let kernel = self.module(source)?.kernel(source.name, entry)?;
        Ok(Launch::new(&self.0.stream, entry, kernel))
    }

    /// Compiles and loads `source` now, not at its first launch.
    ///
    /// # Errors
    /// As [`CudaDevice::launch`].
    pub fn prepare(&self, source: &Source) -> Result<(), DeviceError> {
        self.module(source).map(|_| ())
    }

    fn module(&self, source: &Source) -> Result<Arc<Module>, DeviceError> {
        if let Some(module) = locked(&self.0.modules).get(source.name) {
            return Ok(module.clone());
        }
        // The lock is not held here, so that several rooms may be compiled at once. If two threads bring the same one,
        // the second finds the first one's.
        let image = self.image(source)?;
        let module = load(&self.0.context, &image)
            .map_err(DeviceError::driver(format!("to load the kernels of {}", source.name)))?;
        let module = Arc::new(Module { module, ptx: image.ptx, kernels: Mutex::default() });
        Ok(locked(&self.0.modules).entry(source.name).or_insert(module).clone())
    }

    fn image(&self, source: &Source) -> Result<Image, DeviceError> {
        let text = source.text();
        let target = compile::target_for(self.0.capability)?;
        let key = Key::new(&text, &target, compile::nvrtc_version()?);
        if let Some(image) = self.0.cache.get(&key) {
            return Ok(image);
        }
        let image = compile::compile(source.name, &text, &target)?;
        self.0.cache.put(&key, &image);
        Ok(image)
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaDevice")
            .field("ordinal", &self.0.context.ordinal())
            .field("capability", &self.0.capability)
            .finish_non_exhaustive()
    }
}

/// A loaded module and the kernels taken from it so far.
struct Module {
    module: Arc<CudaModule>,
    ptx: String,
    kernels: Mutex<BTreeMap<&'static str, Kernel>>,
}

/// A kernel and what it takes.
#[derive(Clone)]
pub(super) struct Kernel {
    pub(super) function: CudaFunction,
    pub(super) parameters: Arc<[Parameter]>,
}

impl Module {
    fn kernel(&self, module: &'static str, entry: &'static str) -> Result<Kernel, DeviceError> {
        if let Some(kernel) = locked(&self.kernels).get(entry) {
            return Ok(kernel.clone());
        }
        let parameters = ptx::parameters(&self.ptx, entry)
            .ok_or_else(|| DeviceError::NoSuchKernel { module, entry: entry.to_owned() })?;
        let doing = format!("to find kernel {entry}");
        let function = self.module.load_function(entry).map_err(DeviceError::driver(doing))?;
        let kernel = Kernel { function, parameters: parameters.into() };
        Ok(locked(&self.kernels).entry(entry).or_insert(kernel).clone())
    }
}

/// Machine code where the driver takes it, PTX where it does not.
fn load(context: &Arc<CudaContext>, image: &Image) -> Result<Arc<CudaModule>, DriverError> {
    if !image.cubin.is_empty() {
        match context.load_module(Ptx::from_binary(image.cubin.clone())) {
            Err(DriverError(
                CUDA_ERROR_NO_BINARY_FOR_GPU | CUDA_ERROR_INVALID_IMAGE | CUDA_ERROR_INVALID_SOURCE,
            )) => {}
            answered => return answered,
        }
    }
    context.load_module(Ptx::from_src(&*image.ptx))
}

/// A map that a panicking thread left behind is whole: every change to it is one insertion.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
