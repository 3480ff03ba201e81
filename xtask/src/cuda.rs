//! The emulated libcuda and NVRTC, laid where the loader finds them.
//!
//! NVRTC opens `libcuda.so.1` by itself, so both must be in the library path before a process starts:
//! this is why they are a matter of `xtask` and not of the product, which never knows.

use crate::{cargo, pip, target_dir};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The NVRTC that the project is tried with; covers sm_75 to sm_120.
const NVRTC: &str = "nvidia-cuda-nvrtc-cu12==12.9.86";

/// NVIDIA's disassembler, which reads machine code for all of those.
const NVDISASM: &str = "nvidia-cuda-nvdisasm==13.5.37";

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
pub fn run_kernel_test(name: &str, variables: &[(&str, &str)]) -> Result<bool> {
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
    Ok(process.envs(variables.iter().copied()).status()?.success())
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

/// Runs a command under emulation; whether it succeeded.
pub fn run_emulated(command: &[String]) -> Result<bool> {
    let folders = [lay_emulator()?, install_nvrtc()?];
    let (program, arguments) = command.split_first().context("a command is needed")?;
    let mut process = if program == "iota" {
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
