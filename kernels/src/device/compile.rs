//! CUDA C++ to PTX and CUBIN by NVRTC.

use std::ffi::{CStr, CString, c_char, c_int};

use cudarc::nvrtc::{result, sys};

use super::resources::{self, Resources};
use super::{DeviceError, library, ptx};

/// The options every kernel is compiled with. They keep the compiler from fusing, flushing or approximating anything:
/// `kernels/ARITHMETIC.md` says why.
pub const OPTIONS: [&str; 4] = ["--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

/// What a source becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The portable form; it also says which parameters each kernel takes.
    pub ptx: String,
    /// Machine code for exactly one architecture; empty where the compiler knows only a virtual one.
    pub cubin: Vec<u8>,
}

/// The compiler's version, (major, minor).
///
/// # Errors
/// [`DeviceError::LibraryMissing`] without NVRTC.
pub fn nvrtc_version() -> Result<(u32, u32), DeviceError> {
    library::require_nvrtc()?;
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: both pointers are to live integers; the library is present.
    let answer = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    answer.result().map_err(|error| failed("nvrtcVersion", &[], error))?;
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

/// The compiler's name for the code of compute capability `capability` (86 for 8.6): `sm_86`, machine code, if the
/// compiler knows it; else the newest virtual architecture below it, whose PTX the driver finishes.
///
/// # Errors
/// [`DeviceError::LibraryMissing`] without NVRTC; [`DeviceError::NoTarget`] if no architecture it knows will do.
pub fn target_for(capability: u32) -> Result<String, DeviceError> {
    choose_target(capability, &known_architectures()?).ok_or(DeviceError::NoTarget { capability })
}

/// Compiles `source` for `target` (see [`target_for`]); `name` is what messages call it.
///
/// # Errors
/// [`DeviceError::LibraryMissing`] without NVRTC; [`DeviceError::Compile`] with the compiler's log.
pub fn compile(name: &str, source: &str, target: &str) -> Result<Image, DeviceError> {
    Ok(translate(name, source, target, &[])?.0)
}

/// As [`compile`], and what each kernel takes of a multiprocessor.
///
/// # Errors
/// As [`compile`].
pub fn compile_with_resources(
    name: &str,
    source: &str,
    target: &str,
) -> Result<(Image, Vec<Resources>), DeviceError> {
    let (image, log) = translate(name, source, target, &["--ptxas-options=-v"])?;
    let mut kernels = resources::of_log(&log);
    for kernel in &mut kernels {
        kernel.shared_bytes += ptx::dynamic_shared_bytes(&image.ptx, &kernel.entry);
    }
    Ok((image, kernels))
}

/// The image, and what the compiler said while it made it.
fn translate(
    name: &str,
    source: &str,
    target: &str,
    further: &[&str],
) -> Result<(Image, String), DeviceError> {
    library::require_nvrtc()?;
    let options = OPTIONS.iter().chain(further).map(|option| (*option).to_owned());
    let options: Vec<String> = options.chain([format!("--gpu-architecture={target}")]).collect();

    let text = CString::new(source).map_err(|_| DeviceError::Compile {
        name: name.to_owned(),
        options: options.clone(),
        log: "the source contains a zero byte".to_owned(),
    })?;
    let program =
        Program(result::create_program(&text, None).map_err(|error| failed(name, &options, error))?);
    // SAFETY: the program was created above and is destroyed only when `program` goes.
    let compiled = unsafe { result::compile_program(program.0, &options) };
    // SAFETY: as above; a failed compilation has a log too.
    let log = unsafe { result::get_program_log(program.0) }.map(|log| text_of(&log));
    compiled.map_err(|error| DeviceError::Compile {
        name: name.to_owned(),
        options: options.clone(),
        log: log.clone().unwrap_or_else(|_| error.to_string()),
    })?;
    // SAFETY: the program is compiled.
    let ptx = unsafe { result::get_ptx(program.0) }.map_err(|error| failed(name, &options, error))?;
    let cubin = program.cubin().map_err(|error| failed(name, &options, error))?;
    Ok((Image { ptx: text_of(&ptx), cubin }, log.unwrap_or_default()))
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn cubin(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the program is alive and compiled; `bytes` is a live integer.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut bytes) }.result()?;
        let mut cubin = vec![0u8; bytes];
        if bytes > 0 {
            // SAFETY: the buffer has the size that the library asked for.
            unsafe { sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()) }.result()?;
        }
        Ok(cubin)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created by `create_program`, destroyed once. A failure leaves nothing to be done.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn known_architectures() -> Result<Vec<u32>, DeviceError> {
    library::require_nvrtc()?;
    let mut count: c_int = 0;
    // SAFETY: the library is present; the pointer is to a live integer.
    let answer = unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) };
    answer.result().map_err(|error| failed("nvrtcGetNumSupportedArchs", &[], error))?;
    let mut known: Vec<c_int> = vec![0; count.unsigned_abs() as usize];
    // SAFETY: the buffer holds as many integers as the library has just said that it writes.
    let answer = unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) };
    answer.result().map_err(|error| failed("nvrtcGetSupportedArchs", &[], error))?;
    Ok(known.into_iter().map(c_int::unsigned_abs).collect())
}

fn choose_target(capability: u32, known: &[u32]) -> Option<String> {
    if known.contains(&capability) {
        return Some(format!("sm_{capability}"));
    }
    let below = known.iter().filter(|architecture| **architecture < capability).max()?;
    Some(format!("compute_{below}"))
}

fn failed(name: &str, options: &[String], error: result::NvrtcError) -> DeviceError {
    DeviceError::Compile { name: name.to_owned(), options: options.to_vec(), log: error.to_string() }
}

fn text_of(bytes: &[c_char]) -> String {
    match CStr::from_bytes_until_nul(bytemuck::cast_slice(bytes)) {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => String::from_utf8_lossy(bytemuck::cast_slice(bytes)).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::choose_target;

    #[test]
    fn exact_architecture_or_the_newest_below() {
        let known = [75, 80, 86, 89, 90, 100, 120];
        assert_eq!(choose_target(86, &known).as_deref(), Some("sm_86"));
        assert_eq!(choose_target(130, &known).as_deref(), Some("compute_120"));
        assert_eq!(choose_target(87, &known).as_deref(), Some("compute_86"));
        assert_eq!(choose_target(61, &known), None);
    }
}
