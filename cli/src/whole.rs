//! Folders that are made whole or not at all.

use crate::failure::{Failure, Result};
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
    std::fs::write(path, bytes)
        .and_then(|()| std::fs::File::open(path)?.sync_all())
        .map_err(|e| Failure::input(format!("{}: cannot be written ({e})", path.display())))
}
