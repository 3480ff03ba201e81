//! Finding libcuda and libnvrtc when the program runs.
//!
//! A library that the dynamic linker finds by name is taken as it is. One that lies elsewhere is opened by its path with
//! its symbols global, after which asking for it by name succeeds too.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::DeviceError;

/// Names an NVRTC library file, or the folder it lies in; asked before any other place.
pub const NVRTC_VARIABLE: &str = "IOTA_NVRTC";

/// Makes sure that the CUDA driver can be called. The first answer is kept.
///
/// # Errors
/// [`DeviceError::LibraryMissing`] with every name and place tried.
pub fn require_driver() -> Result<(), DeviceError> {
    static FOUND: OnceLock<Result<(), DeviceError>> = OnceLock::new();
    // SAFETY: asking only opens the library by name and closes it again; the CUDA driver may be opened at any time.
    FOUND
        .get_or_init(|| require(&DRIVER, None, || unsafe { cudarc::driver::sys::is_culib_present() }))
        .clone()
}

/// Makes sure that NVRTC can be called. The first answer is kept.
///
/// # Errors
/// [`DeviceError::LibraryMissing`] with every name and place tried.
pub fn require_nvrtc() -> Result<(), DeviceError> {
    static FOUND: OnceLock<Result<(), DeviceError>> = OnceLock::new();
    let named = std::env::var_os(NVRTC_VARIABLE);
    // SAFETY: asking only opens the library by name and closes it again; NVRTC may be opened at any time.
    let present = || unsafe { cudarc::nvrtc::sys::is_culib_present() };
    FOUND.get_or_init(|| require(&NVRTC, named.as_deref(), present)).clone()
}

/// A library and where it may lie.
pub(super) struct Library {
    title: &'static str,
    /// What the dynamic linker is asked for, and what is looked for in folders.
    names: &'static [&'static str],
    folders: &'static [&'static str],
    advice: &'static str,
}

const DRIVER: Library = Library {
    title: "the CUDA driver",
    names: &["libcuda.so.1", "libcuda.so", "nvcuda.dll"],
    folders: &[
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/wsl/lib",
        "/run/opengl-driver/lib",
        "/usr/local/nvidia/lib64",
        "/usr/local/cuda/compat",
    ],
    advice: "install NVIDIA's driver, or run on the CPU",
};

const NVRTC: Library = Library {
    title: "the CUDA compiler NVRTC",
    names: &["libnvrtc.so.12", "libnvrtc.so", "nvrtc64_120_0.dll"],
    folders: &[
        "/usr/local/cuda/lib64",
        "/usr/local/cuda-12.9/lib64",
        "/opt/cuda/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
    ],
    advice: "install it (`pip install nvidia-cuda-nvrtc-cu12==12.9.86`) and set IOTA_NVRTC to its folder",
};

/// `present` says whether the linker finds the library by name; `named` is where the user says that it lies.
pub(super) fn require(
    library: &Library,
    named: Option<&OsStr>,
    present: impl Fn() -> bool,
) -> Result<(), DeviceError> {
    let mut looked_for = Vec::new();
    // What the user names goes before what the system has.
    if let Some(named) = named {
        let named = Path::new(named);
        let paths = if named.is_dir() { in_folder(library, named) } else { vec![named.to_owned()] };
        let opened = paths.iter().any(|path| open_globally(path));
        looked_for.extend(paths.iter().map(|path| path.display().to_string()));
        if opened && present() {
            return Ok(());
        }
    }
    looked_for.extend(library.names.iter().map(|name| (*name).to_owned()));
    if present() {
        return Ok(());
    }
    for folder in library.folders {
        let opened = in_folder(library, Path::new(folder)).iter().any(|path| open_globally(path));
        looked_for.push(format!("{folder}/*"));
        if opened && present() {
            return Ok(());
        }
    }
    Err(DeviceError::LibraryMissing { library: library.title, looked_for, advice: library.advice })
}

fn in_folder(library: &Library, folder: &Path) -> Vec<PathBuf> {
    library.names.iter().map(|name| folder.join(name)).collect()
}

/// Opens a library for the rest of the process, its symbols visible to libraries opened later.
fn open_globally(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    #[cfg(unix)]
    {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: the file bears the name of NVIDIA's library, whose initialisers may run on any thread at any time.
        let opened = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        opened.map(std::mem::forget).is_ok()
    }
    #[cfg(not(unix))]
    {
        // SAFETY: the file bears the name of NVIDIA's library, whose initialisers may run on any thread at any time.
        let opened = unsafe { libloading::Library::new(path) };
        opened.map(std::mem::forget).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_names_every_place() {
        let nowhere = std::env::temp_dir().join("iota-no-such-folder");
        for (library, name) in [(&DRIVER, "libcuda.so.1"), (&NVRTC, "libnvrtc.so.12")] {
            let Err(error) = require(library, Some(nowhere.as_os_str()), || false) else {
                panic!("{} is reported as present", library.title)
            };
            let said = error.to_string();
            assert!(said.starts_with(library.title), "{said}");
            for place in library.folders.iter().chain([&name, &"iota-no-such-folder"]) {
                assert!(said.contains(place), "`{said}` does not name {place}");
            }
            assert!(said.ends_with(library.advice), "{said}");
        }
    }

    #[test]
    fn what_the_user_names_goes_first() {
        let folder = tempfile_folder();
        let file = folder.join("libcuda.so.1");
        std::fs::write(&file, b"not a library").unwrap();
        let Err(DeviceError::LibraryMissing { looked_for, .. }) =
            require(&DRIVER, Some(folder.as_os_str()), || false)
        else {
            panic!("a text file passes for a library")
        };
        assert_eq!(looked_for[0], file.display().to_string());
        std::fs::remove_dir_all(folder).unwrap();
    }

    fn tempfile_folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("iota-library-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}
