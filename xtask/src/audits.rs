//! Honest work replayed elsewhere, by the thousand: how often that convicts anybody, and what it costs.

use crate::cargo;
use crate::cuda::{install_nvrtc, lay_emulator, library_path};
use anyhow::Result;

#[derive(clap::Args)]
pub struct Arguments {
    /// Operations to audit at least
    #[arg(long, default_value_t = 10_000)]
    operations: u64,
    /// Leave out the emulated CUDA device
    #[arg(long)]
    no_device: bool,
}

/// Prints the tables; `false` if an honest operation was found unequal.
///
/// # Errors
/// The tests or the emulated device cannot be built.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let mut process = cargo(&["test", "--release", "--quiet", "--package", "validator", "--test", "audits"]);
    process.args(["--", "--nocapture", "--test-threads", "1"]);
    process.env("IOTA_AUDITED_OPERATIONS", arguments.operations.to_string());
    if !arguments.no_device {
        process.env("LD_LIBRARY_PATH", library_path(&[lay_emulator()?, install_nvrtc()?])?);
    }
    Ok(process.status()?.success())
}
