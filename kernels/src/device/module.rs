//! Compiled kernels of a device: made when a room is first used, kept on disk and here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_INVALID_SOURCE, CUDA_ERROR_NO_BINARY_FOR_GPU,
};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DriverError};
use cudarc::nvrtc::Ptx;

use super::cache::{Key, ModuleCache};
use super::compile::{self, Image};
use super::ptx::{self, Parameter};
use super::{DeviceError, committed};

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

/// The rooms that a device has seen.
pub(super) struct Modules {
    context: Arc<CudaContext>,
    cache: ModuleCache,
    loaded: Mutex<BTreeMap<&'static str, Arc<Module>>>,
}

impl Modules {
    pub fn new(context: Arc<CudaContext>, cache: ModuleCache) -> Self {
        Self { context, cache, loaded: Mutex::default() }
    }

    /// The module of `source`, made for `capability` if the device has not seen it yet: compiled by NVRTC, or else, where
    /// that is missing or newer than the driver, from the committed PTX.
    pub fn of(&self, source: &Source, capability: u32) -> Result<Arc<Module>, DeviceError> {
        if let Some(module) = locked(&self.loaded).get(source.name) {
            return Ok(module.clone());
        }
        // The lock is not held here, so that several rooms may be compiled at once. If two threads bring the same one,
        // the second finds the first one's.
        let compiled = self.compiled(source, capability).and_then(|image| self.load(source, image));
        let module = match compiled {
            Err(why) if why.leaves_the_committed() => self.committed(source, why)?,
            module => module?,
        };
        Ok(locked(&self.loaded).entry(source.name).or_insert(Arc::new(module)).clone())
    }

    /// What NVRTC makes of `source`, or made of it before.
    fn compiled(&self, source: &Source, capability: u32) -> Result<Image, DeviceError> {
        let version = compile::nvrtc_version()?;
        let text = source.text();
        let target = compile::target_for(capability)?;
        let key = Key::new(&text, &target, version);
        if let Some(image) = self.cache.get(&key) {
            return Ok(image);
        }
        let image = compile::compile(source.name, &text, &target)?;
        self.cache.put(&key, &image);
        Ok(image)
    }

    /// The module that lies in the repository; `why` is what keeps the compiler's from being used.
    fn committed(&self, source: &Source, why: DeviceError) -> Result<Module, DeviceError> {
        let Some(image) = committed::image(source) else { return Err(why) };
        self.load(source, image).map_err(|committed| DeviceError::NoModule {
            name: source.name,
            compiled: Box::new(why),
            committed: Box::new(committed),
        })
    }

    fn load(&self, source: &Source, image: Image) -> Result<Module, DeviceError> {
        let module = load(&self.context, &image)
            .map_err(DeviceError::driver(format!("to load the kernels of {}", source.name)))?;
        Ok(Module { module, ptx: image.ptx, kernels: Mutex::default() })
    }
}

/// A loaded module and the kernels taken from it so far.
pub(super) struct Module {
    module: Arc<CudaModule>,
    ptx: String,
    kernels: Mutex<BTreeMap<&'static str, Kernel>>,
}

/// A kernel and what it takes.
#[derive(Clone)]
pub(super) struct Kernel {
    pub(super) function: CudaFunction,
    pub(super) parameters: Arc<[Parameter]>,
    /// Threads of a block, where the kernel declares them.
    pub(super) threads: Option<u32>,
    /// Shared memory that a launch asks for, bytes.
    pub(super) shared_bytes: u32,
}

/// Shared memory that a block may ask for without further ado, bytes.
const SHARED_BYTES: u32 = 48 << 10;

impl Module {
    pub fn kernel(&self, module: &'static str, entry: &'static str) -> Result<Kernel, DeviceError> {
        if let Some(kernel) = locked(&self.kernels).get(entry) {
            return Ok(kernel.clone());
        }
        let parameters = ptx::parameters(&self.ptx, entry)
            .ok_or_else(|| DeviceError::NoSuchKernel { module, entry: entry.to_owned() })?;
        let doing = format!("to find kernel {entry}");
        let function = self.module.load_function(entry).map_err(DeviceError::driver(doing))?;
        let (threads, shared_bytes) =
            (ptx::threads(&self.ptx, entry), ptx::dynamic_shared_bytes(&self.ptx, entry));
        if shared_bytes > SHARED_BYTES {
            let doing = format!("to give blocks of {entry} {shared_bytes} bytes of shared memory");
            let wanted = i32::try_from(shared_bytes).unwrap_or(i32::MAX);
            function
                .set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, wanted)
                .map_err(DeviceError::driver(doing))?;
        }
        let kernel = Kernel { function, parameters: parameters.into(), threads, shared_bytes };
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
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
