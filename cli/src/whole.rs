//! Files and folders that are made whole or not at all.

use crate::failure::{Failure, Result};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Makes the folder `out`, which must not be there, of what `fill` writes into it; a failure leaves nothing behind.
pub fn folder<T>(out: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    if out.exists() {
        return Err(Failure::input(format!("--out {}: exists already; choose a new folder", out.display())));
    }
    let cannot = |e: std::io::Error| Failure::input(format!("--out {}: cannot be made ({e})", out.display()));
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(".".as_ref());
    std::fs::create_dir_all(parent).map_err(cannot)?;
    // Made inside a folder of its own beside its place, and moved in at the end.
    let place = tempfile::Builder::new().prefix(".iota-").tempdir_in(parent).map_err(cannot)?;
    let fresh = place.path().join("fresh");
    std::fs::create_dir(&fresh).map_err(cannot)?;
    let made = fill(&fresh)?;
    std::fs::rename(&fresh, out).map_err(cannot)?;
    Ok(made)
}

/// Writes a file and waits until the disk has it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = (|| {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    written.map_err(|e| trouble(path, &e))
}

/// Copies a file and waits until the disk has it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).and_then(|_| File::open(to)?.sync_all()).map_err(|e| trouble(to, &e))
}

/// Writes a file whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("fresh");
    write(&fresh, bytes)
        .and_then(|()| settle(&fresh, path))
        .inspect_err(|_| drop(std::fs::remove_file(&fresh)))
}

/// Gives what is written its name, and waits until the disk knows it.
pub fn settle(fresh: &Path, path: &Path) -> Result<()> {
    let settled = (|| {
        if fresh.is_dir() {
            File::open(fresh)?.sync_all()?;
        }
        std::fs::rename(fresh, path)?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    })();
    settled.map_err(|e| trouble(path, &e))
}

/// The sentence for a file that the disk does not take.
pub fn trouble(path: &Path, error: &std::io::Error) -> Failure {
    Failure::input(format!(
        "{}: cannot be written ({error}); free the disk or choose another folder; nothing half-written is left",
        path.display()
    ))
}
