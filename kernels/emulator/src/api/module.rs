//! Modules: PTX text in, kernels and variables out.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use super::device::{MAX_THREADS, SHARED_BYTES};
use super::state::{Function, healthy};
use super::status::Status;
use super::{Handle, Outcome, driver_calls, give, text};
use crate::exec::load;

driver_calls! {
    /// Loads PTX text that ends with a zero byte.
    fn cuModuleLoadData(module: *mut Handle, image: *const c_void) {
        // SAFETY: the contract of every call here.
        unsafe { load_image(module, image, &mut |_| {}) }
    }

    /// Loads PTX text; of the options, the error log is served.
    fn cuModuleLoadDataEx(
        module: *mut Handle,
        image: *const c_void,
        count: c_uint,
        options: *const c_int,
        values: *const *mut c_void,
    ) {
        if count > 0 && (options.is_null() || values.is_null()) {
            return Err(Status::InvalidValue);
        }
        // SAFETY: the contract of every call here.
        unsafe {
            load_image(module, image, &mut |message| write_log(message, count as usize, options, values))
        }
    }

    /// Loads PTX from a file.
    fn cuModuleLoad(module: *mut Handle, path: *const c_char) {
        // SAFETY: the contract of every call here.
        let path = unsafe { text(path)? };
        let mut image = std::fs::read(path).map_err(|_| Status::FileNotFound)?;
        image.push(0);
        // SAFETY: the image ends with a zero byte.
        unsafe { load_image(module, image.as_ptr().cast(), &mut |_| {}) }
    }

    /// Forgets a module, its kernels and variables.
    fn cuModuleUnload(module: Handle) {
        let (mut state, _) = healthy()?;
        let module = module as u64;
        state.modules.remove(&module).ok_or(Status::InvalidHandle)?;
        state.functions.retain(|_, function| function.module != module);
        Ok(())
    }

    /// A kernel of a module.
    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) {
        let (mut state, _) = healthy()?;
        // SAFETY: the contract of every call here.
        let name = unsafe { text(name)? };
        let module = module as u64;
        let loaded = state.modules.get(&module).ok_or(Status::InvalidHandle)?;
        let program = loaded.programs.get(name).cloned().ok_or(Status::NotFound)?;
        let room = SHARED_BYTES.saturating_sub(program.shared_bytes as u32);
        let handle = state.fresh_handle();
        // SAFETY: the contract of every call here.
        unsafe { give(function, handle as Handle)? };
        state.functions.insert(handle, Function { module, program, max_dynamic_shared: room });
        Ok(())
    }

    /// Address and size of a variable of a module; either may be null.
    fn cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: Handle, name: *const c_char) {
        let (state, _) = healthy()?;
        // SAFETY: the contract of every call here.
        let name = unsafe { text(name)? };
        let loaded = state.modules.get(&(module as u64)).ok_or(Status::InvalidHandle)?;
        let &(found, size) = loaded.variables.get(name).ok_or(Status::NotFound)?;
        // SAFETY: the contract of every call here.
        unsafe {
            if !address.is_null() {
                address.write(found);
            }
            if !bytes.is_null() {
                bytes.write(size);
            }
        }
        Ok(())
    }

    /// A number about a kernel. Physical registers are never assigned here: their number is 0.
    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle) {
        let (state, settings) = healthy()?;
        let function = state.functions.get(&(function as u64)).ok_or(Status::InvalidHandle)?;
        let program = &function.program;
        let found = match attribute {
            0 => program.max_threads.unwrap_or(MAX_THREADS).min(MAX_THREADS),
            1 => program.shared_bytes as u32,
            3 => program.local_bytes as u32,
            5 => program.ptx_version,
            6 => settings.model.sm,
            8 => function.max_dynamic_shared,
            2 | 4 | 7 | 9..=16 => 0,
            _ => return Err(Status::InvalidValue),
        };
        // SAFETY: the contract of every call here.
        unsafe { give(value, found as c_int) }
    }

    /// Changes what may be changed: the dynamic shared memory a launch may ask for.
    fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) {
        let (mut state, settings) = healthy()?;
        let function = state.functions.get_mut(&(function as u64)).ok_or(Status::InvalidHandle)?;
        match attribute {
            8 => {
                let room = settings.model.shared_per_block.saturating_sub(function.program.shared_bytes as u32);
                let value = u32::try_from(value).ok().filter(|value| *value <= room);
                function.max_dynamic_shared = value.ok_or(Status::InvalidValue)?;
                Ok(())
            }
            // The split between cache and shared memory, which this device does not have.
            9 => Ok(()),
            _ => Err(Status::InvalidValue),
        }
    }

    /// The split between cache and shared memory, which this device does not have.
    fn cuFuncSetCacheConfig(function: Handle, _config: c_int) {
        let (state, _) = healthy()?;
        state.functions.get(&(function as u64)).map(|_| ()).ok_or(Status::InvalidHandle)
    }
}

/// The newest PTX, 10 * major + minor, that a driver for a CUDA version (1000 * major + 10 * minor) reads.
fn newest_ptx(driver: u32) -> u32 {
    match (driver / 1000, driver % 1000 / 10) {
        (..=11, minor) => 70 + minor,
        (12, minor @ 0..=5) => 80 + minor,
        (12, 6) => 85,
        (12, minor) => 79 + minor,
        (major, minor) => 10 * (major - 4) + minor,
    }
}

/// # Safety
/// `image` is null or ends with a zero byte.
unsafe fn load_image(module: *mut Handle, image: *const c_void, log: &mut dyn FnMut(&str)) -> Outcome {
    let (mut state, settings) = healthy()?;
    if image.is_null() || module.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: the caller's promise; a binary image has a zero byte in its header.
    let image = unsafe { CStr::from_ptr(image.cast()) }.to_bytes();
    let mut complain = |message: &str, status| {
        eprintln!("emulated GPU: {message}");
        log(message);
        Err(status)
    };
    let source = match std::str::from_utf8(image) {
        Ok(source) if source.contains(".version") => source,
        // A caller that offers machine code first, as it should, meets an answer and no noise.
        _ if image.starts_with(b"\x7fELF") => {
            log("machine code cannot run here, offer PTX");
            return Err(Status::NoBinaryForGpu);
        }
        _ => return complain("the module is no PTX text", Status::NoBinaryForGpu),
    };
    let loaded = match load(source) {
        Ok(loaded) => loaded,
        Err(error) => {
            return complain(&format!("module refused: {}", error.quoting(source)), Status::InvalidPtx);
        }
    };
    if loaded.target > settings.model.sm {
        let message = format!(
            "the module is for sm_{}, this device is sm_{}; set IOTA_EMULATED_SM or compile for less",
            loaded.target, settings.model.sm
        );
        return complain(&message, Status::NoBinaryForGpu);
    }
    let newest = newest_ptx(settings.driver);
    if loaded.ptx_version > newest {
        let message = format!(
            "the module is PTX {}.{}, this driver serves CUDA {}.{} and reads PTX {}.{} at most",
            loaded.ptx_version / 10,
            loaded.ptx_version % 10,
            settings.driver / 1000,
            settings.driver % 1000 / 10,
            newest / 10,
            newest % 10
        );
        return complain(&message, Status::UnsupportedPtxVersion);
    }
    let handle = state.fresh_handle();
    // SAFETY: not null, the caller's promise for the rest.
    unsafe { give(module, handle as Handle)? };
    state.modules.insert(handle, Arc::new(loaded));
    Ok(())
}

/// `CU_JIT_ERROR_LOG_BUFFER` and `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`
const ERROR_LOG: (c_int, c_int) = (5, 6);

/// # Safety
/// There are `count` options and values, and the log is as long as they say.
unsafe fn write_log(message: &str, count: usize, options: *const c_int, values: *const *mut c_void) {
    let option = |wanted: c_int| {
        // SAFETY: the caller's promise.
        (0..count)
            .find(|&index| unsafe { *options.add(index) } == wanted)
            .map(|index| unsafe { *values.add(index) })
    };
    let (Some(buffer), Some(size)) = (option(ERROR_LOG.0), option(ERROR_LOG.1)) else { return };
    // The size stands in the pointer itself.
    let size = size as usize;
    if buffer.is_null() || size == 0 {
        return;
    }
    let kept = message.len().min(size - 1);
    // SAFETY: the caller's promise.
    unsafe {
        std::ptr::copy_nonoverlapping(message.as_ptr(), buffer.cast::<u8>(), kept);
        buffer.cast::<u8>().add(kept).write(0);
    }
}
