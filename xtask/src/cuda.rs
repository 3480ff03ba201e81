//! The emulated libcuda and NVRTC, laid where the loader finds them.
//!
//! NVRTC opens `libcuda.so.1` by itself, so both must be in the library path before a process starts:
//! this is why they are a matter of `xtask` and not of the product, which never knows.

use crate::{cargo, pip, root, target_dir};
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The NVRTC that the project is tried with; covers sm_75 to sm_120.
const NVRTC: &str = "nvidia-cuda-nvrtc-cu12==12.9.86";

/// NVIDIA's disassembler, which reads machine code for all of those.
const NVDISASM: &str = "nvidia-cuda-nvdisasm==13.5.37";

/// What our kernels are compared with.
const TRITON: &str = "triton==3.9.0";

/// Architectures of that comparison: the cards that people own.
const COMPARED: [&str; 3] = ["86", "89", "120"];

/// Installs NVRTC into `target/nvrtc` unless it is there, and returns the folder of its library.
pub fn install_nvrtc() -> Result<PathBuf> {
    let lib = pip::install("nvrtc", NVRTC, "nvidia/cuda_nvrtc/lib/libnvrtc.so.12")?;
    Ok(lib.parent().map(Path::to_path_buf).unwrap_or_default())
}

/// Installs the disassembler into `target/nvdisasm` unless it is there, and returns its path.
pub fn install_nvdisasm() -> Result<PathBuf> {
    pip::install("nvdisasm", NVDISASM, "nvidia/cu13/bin/nvdisasm")
}

/// Tests of the kernels, which also write what is made of them: one, named in full, with `variables` set.
pub fn run_kernel_test<V: AsRef<OsStr>>(name: &str, variables: &[(&str, V)]) -> Result<bool> {
    let folders = [lay_emulator()?, install_nvrtc()?];
    let mut process =
        cargo(&["test", "--release", "--quiet", "--package", "kernels", "--test", "cuda", "--"]);
    process.args(["--exact", name, "--nocapture"]).env("LD_LIBRARY_PATH", library_path(&folders)?);
    match install_nvdisasm() {
        Ok(tool) => {
            process.env("IOTA_NVDISASM", tool);
        }
        Err(error) => println!("not run: the disassembly: {error:#}"),
    }
    Ok(process.envs(variables.iter().map(|(name, value)| (name, value))).status()?.success())
}

/// Writes `docs/kernels.md`, and the table beside Triton's kernels anew if asked to.
pub fn write_kernels_report(triton: bool) -> Result<bool> {
    let mut variables = vec![("IOTA_KERNELS_REPORT", OsString::from("1"))];
    if triton {
        variables.push(("IOTA_TRITON", compile_triton()?.into()));
    }
    run_kernel_test("report::is_written", &variables)
}

/// Compiles Triton's kernels, which needs no GPU; returns the folder they lie in.
fn compile_triton() -> Result<PathBuf> {
    let module = pip::install("triton", TRITON, "triton/__init__.py")?;
    let packages = module.parent().and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
    let place = target_dir()?.join("triton-kernels");
    let status = Command::new("python3")
        .arg(root().join("kernels/tests/cuda/report/triton_kernels.py"))
        .arg(&place)
        .args(COMPARED)
        .env("PYTHONPATH", packages)
        .env("TRITON_CACHE_DIR", place.join("cache"))
        .status()
        .context("python3 cannot be started: install Python, which Triton needs")?;
    if !status.success() {
        bail!("Triton's kernels do not compile ({status})");
    }
    Ok(place)
}

/// Builds the emulated libcuda and lays it down under both names that loaders ask for.
pub fn lay_emulator() -> Result<PathBuf> {
    let status = cargo(&["build", "--release", "--quiet", "--package", "emulator"]).status()?;
    if !status.success() {
        bail!("the emulated libcuda does not build");
    }
    let target = target_dir()?;
    let built = target.join("release/libcuda_emulator.so");
    let place = target.join("emulated");
    std::fs::create_dir_all(&place)?;
    // A new file moved over the old one: a running process keeps what it has mapped.
    let fresh = place.join("fresh");
    std::fs::copy(&built, &fresh).with_context(|| format!("{} is missing", built.display()))?;
    std::fs::rename(&fresh, place.join("libcuda.so.1"))?;
    // One file under both names, so that a process which opens both has one device.
    let second = place.join("libcuda.so");
    if !second.is_symlink() {
        std::os::unix::fs::symlink("libcuda.so.1", &second)?;
    }
    Ok(place)
}

/// The library path with `folders` in front.
pub fn library_path(folders: &[PathBuf]) -> Result<OsString> {
    let old = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let all = folders.iter().cloned().chain(std::env::split_paths(&old).filter(|p| p != Path::new("")));
    std::env::join_paths(all).context("a folder's name contains the path separator")
}

/// Runs a command under emulation; whether it succeeded. A word that is no program is a command of our binary's.
pub fn run_emulated(command: &[String]) -> Result<bool> {
    let folders = [lay_emulator()?, install_nvrtc()?];
    let (program, arguments) = command.split_first().context("a command is needed")?;
    let ours =
        if program == "iota" { Some(arguments) } else { Some(command).filter(|_| !is_program(program)) };
    let mut process = if let Some(arguments) = ours {
        let mut process = cargo(&["run", "--release", "--quiet", "--package", "cli", "--"]);
        process.args(arguments).current_dir(std::env::current_dir()?);
        process
    } else {
        let mut process = Command::new(program);
        process.args(arguments);
        process
    };
    let status = process
        .env("LD_LIBRARY_PATH", library_path(&folders)?)
        .status()
        .with_context(|| format!("{program} cannot be started"))?;
    Ok(status.success())
}

/// Whether a word names a file, or a program in the search path.
fn is_program(word: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new(word).components().count() > 1
        || std::env::split_paths(&path).any(|folder| folder.join(word).is_file())
}

/// Judges and times the CUDA device of this machine, or the emulated one to try the command; the exit code is the answer.
pub fn run_gpu(emulated: bool) -> Result<ExitCode> {
    let mut folders = vec![install_nvrtc()?];
    if emulated {
        folders.insert(0, lay_emulator()?);
    }
    let mut process = cargo(&["run", "--release", "--quiet", "--package", "benches", "--bin", "gpu", "--"]);
    process.args(emulated.then_some("--emulated")).env("LD_LIBRARY_PATH", library_path(&folders)?);
    let code = process.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
