//! `iota doctor`: what this machine has, and whether its arithmetic keeps the contract.

use crate::failure::{Failure, Result};
use crate::peak;
use engine::memory::{DRIVER_BYTES, StageMemory};
use engine::model::Stage;
use kernels::SimdPath;
use kernels::catalogue::conformance::{self, Deviation};
use kernels::device::{CudaDevice, DeviceError, library, trials};
use kernels::matmul::{self, Matmul};
use spec::Run;
use std::path::{Path, PathBuf};
use std::process::Command;

const GIB: f64 = (1u64 << 30) as f64;

#[derive(clap::Args)]
pub struct Arguments {
    /// A run's folder or its run.toml: say what memory its stages take, and whether the CUDA devices have it
    #[arg(long, value_name = "RUN")]
    run: Option<PathBuf>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let run = arguments.run.as_deref().map(read_run).transpose()?;
    machine();
    let mut broken = cpu_conformance();
    broken += cuda();
    if let Some(run) = run {
        stages(&run)?;
    }
    match broken {
        0 => Ok(()),
        1 => Err(Failure::run("one device does not keep the arithmetic: do not train on it")),
        more => Err(Failure::run(format!("{more} devices do not keep the arithmetic: do not train on them"))),
    }
}

fn machine() {
    let cores = std::thread::available_parallelism().map_or("unknown".into(), |n| n.to_string());
    let paths: Vec<String> = SimdPath::available().iter().map(|path| format!("{path:?}")).collect();
    line("cores", &format!("{cores}, {} worker threads", rayon::current_num_threads()));
    line("SIMD path", &format!("{:?} (of {})", SimdPath::best(), paths.join(", ")));
    let all = peak::fma_gflops();
    line("FMA peak", &format!("{} on one thread, {all:.1} GFLOP/s on all", one_thread_gflops()));
    let matmul = matmul_gflops();
    let share = 100.0 * matmul / all;
    line("matmul", &format!("{matmul:.1} GFLOP/s, {share:.0} % of that, on products of 1024 x 1024 x 1024"));
    line(
        "bandwidth",
        &format!("{:.1} GB/s of memory, read and written by all threads", peak::memory_gbytes()),
    );
    line("memory", &memory().unwrap_or_else(|| "unknown: /proc/meminfo cannot be read".into()));
    line("disk free", &disk().unwrap_or_else(|| "unknown: `df -Pk .` gave no answer".into()));
}

fn one_thread_gflops() -> String {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.map_or_else(|e| format!("unknown ({e})"), |pool| format!("{:.1}", pool.install(peak::fma_gflops)))
}

fn matmul_gflops() -> f64 {
    const N: usize = 1024;
    let (a, b, mut c) = (vec![0.5f32; N * N], vec![0.25f32; N * N], vec![0.0f32; N * N]);
    peak::best(|| {
        matmul::nn(&Matmul { m: N, n: N, k: N, a: &a, b: &b }, &mut c);
        2 * (N as u64).pow(3)
    })
}

/// Total and available, where the system says it in the way of Linux.
fn memory() -> Option<String> {
    let gib = |key| Some(meminfo(key)? as f64 / GIB);
    Some(format!("{:.1} GiB, {:.1} GiB available", gib("MemTotal:")?, gib("MemAvailable:")?))
}

/// A number of the system's, in bytes.
fn meminfo(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// Of the folder in which the command runs.
fn disk() -> Option<String> {
    let output = Command::new("df").args(["-Pk", "."]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kib: f64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(format!("{:.1} GiB here", kib / (1 << 20) as f64))
}

/// 1 if this CPU deviates.
fn cpu_conformance() -> usize {
    let hashes = conformance::conformance();
    verdict("CPU", hashes.len(), &conformance::deviations(&hashes))
}

/// Number of CUDA devices that deviate or cannot compute.
fn cuda() -> usize {
    let missing = |e: &dyn std::fmt::Display| format!("not found: {e}");
    line("CUDA driver", &library::require_driver().map_or_else(|e| missing(&e), |()| "found".into()));
    let instead = |e| format!("{}; the kernels that iota carries serve instead", missing(&e));
    line("NVRTC", &library::require_nvrtc().map_or_else(instead, |()| "found".into()));
    match CudaDevice::count() {
        Ok(0) => line("CUDA devices", "none"),
        Ok(count) => return (0..count).map(device).sum(),
        // What is missing was said above.
        Err(DeviceError::LibraryMissing { .. }) => (),
        Err(error) => line("CUDA devices", &format!("none: {error}")),
    }
    0
}

fn device(ordinal: usize) -> usize {
    let name = format!("CUDA {ordinal}");
    let opened = CudaDevice::open(ordinal).and_then(|device| Ok((device.report()?, device)));
    let (report, device) = match opened {
        Ok(both) => both,
        Err(error) => {
            line(&name, &format!("cannot be used: {error}"));
            return 1;
        }
    };
    line(
        &name,
        &format!(
            "{}, compute capability {}.{}, {} multiprocessors, {:.1} GiB, driver for CUDA {}.{}, NVRTC {}",
            report.name,
            report.capability.0,
            report.capability.1,
            report.multiprocessors,
            report.memory_bytes as f64 / (1u64 << 30) as f64,
            report.driver.0,
            report.driver.1,
            report.nvrtc.map_or("none".into(), |(major, minor)| format!("{major}.{minor}")),
        ),
    );
    match device.prepare_all().map_err(|e| e.to_string()).and_then(|()| trials::deviations(&device)) {
        Ok(deviations) => {
            let broken = verdict(&name, trials::TRIALS.len(), &deviations);
            let left: Vec<&str> = trials::only_on_cpu().collect();
            line(
                &name,
                &format!(
                    "reads {}, made once by the CPU in f64 and judged with the CPU's ops above: a constant of the model needs no kernel",
                    left.join(", ")
                ),
            );
            broken
        }
        Err(error) => {
            line(&name, &format!("cannot compute: {error}"));
            1
        }
    }
}

fn verdict(device: &str, ops: usize, deviations: &[Deviation]) -> usize {
    for deviation in deviations {
        line(device, &deviation.to_string());
    }
    if deviations.is_empty() {
        line(device, &format!("keeps the arithmetic: {ops} ops, every hash as committed"));
    }
    usize::from(!deviations.is_empty())
}

fn read_run(path: &Path) -> Result<Run> {
    let path = if path.is_dir() { path.join("run.toml") } else { path.to_owned() };
    let wrong = |e: &dyn std::fmt::Display| Failure::input(format!("--run {}: {e}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|e| wrong(&e))?;
    Run::from_toml(&text).map_err(|e| wrong(&e))
}

/// What each stage takes, as the engine's account of imagined steps has it.
fn stages(run: &Run) -> Result<()> {
    let available = meminfo("MemAvailable:");
    let devices = (0..CudaDevice::count().unwrap_or(0)).filter_map(|n| Some((n, CudaDevice::open(n).ok()?)));
    let devices: Vec<_> = devices.collect();
    for index in 0..run.model.stage_count() {
        let name = format!("stage {index}");
        let Some(memory) = StageMemory::least(run, index) else { continue };
        let least = memory.card_bytes() as f64 / GIB;
        line(
            &name,
            &format!(
                "{} parameters: a card of {least:.1} GiB at least (state {:.1}, work {:.1}, driver {:.1}), and of the host {:.1} GiB for the \
                 weights of the last merge, residual and outer momentum{}",
                memory.parameters,
                memory.state_bytes as f64 / GIB,
                (memory.reserved_bytes - memory.state_bytes) as f64 / GIB,
                DRIVER_BYTES as f64 / GIB,
                memory.host_bytes as f64 / GIB,
                match available {
                    Some(bytes) if bytes < memory.host_bytes =>
                        format!(", which it has not: {:.1} GiB are available", bytes as f64 / GIB),
                    _ => String::new(),
                },
            ),
        );
        let stage = Stage::new(&run.model, index);
        for (ordinal, device) in &devices {
            let Some(fits) = stage.as_ref().map(|stage| StageMemory::fitting(run, stage, device)) else {
                continue;
            };
            let says = match fits {
                Ok(fits) => format!(
                    "fits CUDA {ordinal} and {} there ({:.1} GiB)",
                    fits.keeping,
                    fits.reserved_bytes as f64 / GIB
                ),
                Err(error) => format!("does not fit CUDA {ordinal}: {error}"),
            };
            line(&name, &says);
        }
    }
    Ok(())
}

fn line(what: &str, says: &str) {
    println!("{what:<12} {says}");
}
