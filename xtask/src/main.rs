//! Our tools in our language: `cargo xtask --help` lists them.

mod adversaries;
mod audits;
mod browser;
mod cuda;
mod merges;
mod peers;
mod pip;
mod soak;
mod speed;
mod swarm;
mod test;
mod tidy;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tools of the iota workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold: formatting, lints, architecture, all tests (CUDA on the emulator)
    Test,
    /// Only the architecture: allowed imports, module docs, banned calls
    Tidy,
    /// Install NVRTC into target/nvrtc with pip, for machines without a CUDA toolkit
    Nvrtc {
        /// Compile the kernels anew into kernels/ptx, for machines with a driver but no NVRTC
        #[arg(long)]
        ptx: bool,
    },
    /// Write docs/kernels.md: registers, occupancy, main loops and traffic of every kernel, per architecture
    KernelsReport {
        /// Compile Triton's kernels of the same shapes as well (installed into target/triton) and put them beside ours
        #[arg(long)]
        triton: bool,
    },
    /// Judge and time this machine's CUDA device: conformance, then every op's share of the peak, as a table to paste
    Gpu {
        /// Try the command on the emulated device; the times mean nothing
        #[arg(long)]
        emulated: bool,
    },
    /// Compare exports with what PyTorch, transformers and gguf make of them; installs them into target/peers
    Peers,
    /// Look at the dashboard and the report of a run in a headless Chromium (through npm); its picture goes to docs/
    Browser,
    /// Run every adversary as a real miner and print who was caught, when, and what it cost
    Adversaries(adversaries::Arguments),
    /// Replay honest work on other SIMD paths, thread counts and devices, thousands of operations, and print what that costs
    Audits(audits::Arguments),
    /// Time our training step beside PyTorch's, in turn, and our matrix products beside the crate gemm's
    Speed(speed::Arguments),
    /// Time a swarm of this machine's processes beside one process on the same run, in turn
    Swarm(swarm::Arguments),
    /// Train replicas that merge now and then, beside plain training on as many tokens, and print what it costs in loss
    Merges(merges::Arguments),
    /// Simulate many seeds of every loss, and kill the orchestrator of one run many times: hours, unless told less
    Soak(soak::Arguments),
    /// Run a command with the emulated libcuda and NVRTC in its library path; `iota ...`, and what is no program, runs our binary
    Emulated {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Test => test::run(),
        Task::Tidy => tidy::run().map(|()| true),
        Task::Nvrtc { ptx: true } => cuda::run_kernel_test(
            "committed::the_committed_ptx_is_what_the_compiler_makes",
            &[("IOTA_WRITE_PTX", "1")],
        ),
        Task::Nvrtc { ptx: false } => cuda::install_nvrtc().map(|place| {
            println!("NVRTC is in {}", place.display());
            true
        }),
        Task::KernelsReport { triton } => cuda::write_kernels_report(triton),
        Task::Gpu { emulated } => match cuda::run_gpu(emulated) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Task::Peers => peers::run(),
        Task::Browser => browser::run(),
        Task::Adversaries(arguments) => adversaries::run(&arguments),
        Task::Audits(arguments) => audits::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Speed(arguments) => speed::run(&arguments),
        Task::Swarm(arguments) => swarm::run(&arguments),
        Task::Merges(arguments) => merges::run(&arguments),
        Task::Emulated { command } => cuda::run_emulated(&command),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The workspace's root folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Cargo's target folder.
fn target_dir() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()
        .context("cargo metadata did not answer")?;
    Ok(metadata.target_directory.into())
}

/// `cargo` with arguments, in the workspace's root.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}
