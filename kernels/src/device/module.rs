//! Compiled kernels of a device: made when a room is first used, kept on disk and here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

    /// The module of `source`, compiled for `capability` if the device has not seen it yet.
    pub fn of(&self, source: &Source, capability: u32) -> Result<Arc<Module>, DeviceError> {
        if let Some(module) = locked(&self.loaded).get(source.name) {
            return Ok(module.clone());
        }
        // The lock is not held here, so that several rooms may be compiled at once. If two threads bring the same one,
        // the second finds the first one's.
        let image = self.image(source, capability)?;
        let module = load(&self.context, &image)
            .map_err(DeviceError::driver(format!("to load the kernels of {}", source.name)))?;
        let module = Arc::new(Module { module, ptx: image.ptx, kernels: Mutex::default() });
        Ok(locked(&self.loaded).entry(source.name).or_insert(module).clone())
    }

    fn image(&self, source: &Source, capability: u32) -> Result<Image, DeviceError> {
        let version = match compile::nvrtc_version() {
            Ok(version) => version,
            Err(missing) => return committed::image(source).ok_or(missing),
        };
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
}

impl Module {
    pub fn kernel(&self, module: &'static str, entry: &'static str) -> Result<Kernel, DeviceError> {
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
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
