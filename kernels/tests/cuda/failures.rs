//! What the product says when libraries are missing, memory is full, or a device goes wrong: one sentence that names
//! what was tried and what to do. The stand-in driver goes wrong where its environment tells it to, which it reads once:
//! each trial is a process of its own.

use std::path::PathBuf;
use std::process::Command;

use kernels::adamw;
use kernels::catalogue::{conformance, find};
use kernels::device::{CudaDevice, DeviceError, Grid, Source, trials};

use crate::support::{device, modules};

/// Tells the process of a trial which one it is.
const TRIAL: &str = "IOTA_FAILURE_TRIAL";
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// Adds one to each of `n` elements.
const SOURCE: Source = Source {
    name: "increment",
    pieces: &["extern \"C\" __global__ void increment(float* x, unsigned n) {
        if (threadIdx.x < n) x[threadIdx.x] += 1.0f;
    }"],
};

fn open(ordinal: usize) -> Result<CudaDevice, DeviceError> {
    CudaDevice::open_with_cache(ordinal, modules())
}

/// One step as the product takes it: memory, a launch, the result.
fn step(device: &CudaDevice) -> Result<Vec<f32>, DeviceError> {
    let mut x = device.upload(&[1.0f32; 8])?;
    {
        let mut view = x.view_mut();
        let launch = device.launch(&SOURCE, "increment")?.write(&mut view).u32(8);
        // SAFETY: eight threads touch an element each.
        unsafe { launch.run(Grid { x: 1, y: 1, threads: 8 }) }?;
    }
    device.download(&x.view())
}

fn attempt(trial: &str) -> Result<(), DeviceError> {
    let device = open(0)?;
    match trial {
        "memory" => device.scratch::<f32>(1 << 20).map(|_| ()),
        "compile" => device.prepare(&SOURCE),
        "load" => device.prepare(&adamw::cuda::SOURCE),
        "conformance" => {
            for trial in trials::TRIALS {
                let op = find(trial.op).unwrap();
                let run = |case: &_, inputs: &_, outputs: &mut _| {
                    *outputs = trial.run(&device, 0, 0, case, inputs, outputs).unwrap();
                };
                assert_eq!(conformance::deviations(&[(trial.op, conformance::hash(op, run))]), []);
            }
            Ok(())
        }
        "second" => step(&open(1)?).map(|_| ()),
        // What broke stays broken: the second step says it too.
        "twice" => step(&device).or_else(|_| step(&device)).map(|_| ()),
        _ => step(&device).map(|_| ()),
    }
}

/// The process of a trial.
#[test]
fn a_trial() {
    let Ok(trial) = std::env::var(TRIAL) else { return };
    match attempt(&trial) {
        Ok(()) => println!("\nnothing failed"),
        Err(error) => println!("\nsaid: {error}"),
    }
}

/// What the product says in a trial under `environment`; `None` if nothing failed.
fn said(trial: &str, environment: &[(&str, &str)]) -> Option<String> {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", "failures::a_trial", "--nocapture"]).env(TRIAL, trial);
    let output = process.envs(environment.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let sentence = text.lines().find_map(|line| line.strip_prefix("said: "));
    assert!(sentence.is_some() || text.contains("nothing failed"), "{text}");
    sentence.map(str::to_owned)
}

/// A trial that the stand-in driver makes fail, and what the sentence must hold.
#[track_caller]
fn fails(trial: &str, environment: &[(&str, &str)], parts: &[&str]) {
    let Some(device) = device() else { return };
    if !device.report().unwrap().name.contains("emulated") {
        println!("not run: failures: a real device does not fail when it is told to");
        return;
    }
    let sentence = said(trial, environment).expect("nothing failed");
    for part in parts {
        assert!(sentence.contains(part), "`{part}` is not in: {sentence}");
    }
}

/// The library path without the folders that hold `name`.
fn without(name: &str) -> std::ffi::OsString {
    let path = std::env::var_os(LIBRARY_PATH).unwrap_or_default();
    let kept: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|folder| !folder.join(name).exists()).collect();
    std::env::join_paths(kept).unwrap()
}

#[test]
fn a_step_without_a_fault() {
    if device().is_some() {
        assert_eq!(said("step", &[]), None);
    }
}

#[test]
fn no_driver() {
    let path = without("libcuda.so.1");
    match said("step", &[(LIBRARY_PATH, path.to_str().unwrap())]) {
        None => println!("not run: failures without a driver: the system has one"),
        Some(sentence) => {
            for part in ["the CUDA driver was not found", "libcuda.so.1", "install NVIDIA's driver"] {
                assert!(sentence.contains(part), "`{part}` is not in: {sentence}");
            }
        }
    }
}

#[test]
fn no_compiler() {
    let path = without("libnvrtc.so.12");
    let environment = [(LIBRARY_PATH, path.to_str().unwrap())];
    if device().is_none() {
        return;
    }
    match said("compile", &environment) {
        None => println!("not run: failures without NVRTC: the system has one"),
        Some(sentence) => {
            for part in ["NVRTC was not found", "libnvrtc.so.12", "pip install", "IOTA_NVRTC"] {
                assert!(sentence.contains(part), "`{part}` is not in: {sentence}");
            }
        }
    }
}

/// The committed PTX serves every op where there is no compiler, with the same bits.
#[test]
fn no_compiler_and_the_kernels_of_the_repository() {
    if device().is_none() {
        return;
    }
    let path = without("libnvrtc.so.12");
    let environment = [(LIBRARY_PATH, path.to_str().unwrap()), ("IOTA_EMULATED_SM", "75")];
    if said("compile", &environment).is_none() {
        println!("not run: failures without NVRTC: the system has one");
        return;
    }
    assert_eq!(said("conformance", &environment), None);
}

#[test]
fn a_driver_too_old_for_the_kernels() {
    let old = ("IOTA_EMULATED_DRIVER", "12.4");
    let parts = ["there are no kernels of adamw", "UNSUPPORTED_PTX_VERSION", "update the driver"];
    fails("load", &[old], &parts);
    let path = without("libnvrtc.so.12");
    let hidden = (LIBRARY_PATH, path.to_str().unwrap());
    if device().is_some() && said("compile", &[hidden]).is_some() {
        // Both reasons.
        fails(
            "load",
            &[old, hidden],
            &["compiled here, the CUDA compiler NVRTC was not found", parts[1], parts[2]],
        );
    }
}

#[test]
fn no_device() {
    let parts = [
        "failed to start: no CUDA-capable device is detected (CUDA_ERROR_NO_DEVICE); it sees",
        "nvidia-smi",
        "CUDA_VISIBLE_DEVICES",
    ];
    fails("step", &[("IOTA_EMULATED_DEVICES", "0")], &parts);
}

#[test]
fn a_second_device() {
    fails("second", &[], &["CUDA device 1 does not exist: the driver reports 1, numbered from 0"]);
    if device().is_some_and(|device| device.report().unwrap().name.contains("emulated")) {
        assert_eq!(said("second", &[("IOTA_EMULATED_DEVICES", "2")]), None);
    }
}

#[test]
fn not_enough_memory() {
    let parts = ["to reserve 4194304 bytes", "OUT_OF_MEMORY", "memory is full", "make the work smaller"];
    fails("memory", &[("IOTA_EMULATED_MEMORY_MIB", "3")], &parts);
    fails("step", &[("IOTA_EMULATED_FAULTS", "allocation:1")], &["to reserve 32 bytes", "memory is full"]);
}

#[test]
fn a_launch_that_is_refused() {
    let parts = ["to launch increment on Grid", "LAUNCH_FAILED", "start it again"];
    fails("step", &[("IOTA_EMULATED_FAULTS", "launch:1")], &parts);
}

#[test]
fn a_kernel_that_faults_and_its_error_that_stays() {
    let parts =
        ["to copy 32 bytes from the device", "ILLEGAL_ADDRESS", "a kernel went wrong", "start it again"];
    fails("step", &[("IOTA_EMULATED_FAULTS", "sticky:1")], &parts);
    // Nothing works after it, not even a copy.
    let parts = ["to copy 32 bytes to the device", "ILLEGAL_ADDRESS", "cannot use the device any more"];
    fails("twice", &[("IOTA_EMULATED_FAULTS", "sticky:1")], &parts);
}

#[test]
fn a_device_that_is_lost() {
    let parts = ["to launch increment", "DEVICE_UNAVAILABLE", "does not answer any more", "nvidia-smi"];
    fails("step", &[("IOTA_EMULATED_FAULTS", "lost:1")], &parts);
    fails("twice", &[("IOTA_EMULATED_FAULTS", "lost:1")], &["DEVICE_UNAVAILABLE", "run on the CPU"]);
}
