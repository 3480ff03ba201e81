//! What a run's folder holds against somebody.

use crate::failure::{Failure, Result};
use orchestrator::RunFolder;
use std::path::PathBuf;
use store::S3;
use validator::evidence;

/// Turns the cases that the orchestrator kept into evidence files, which need no store to be checked. A case with an
/// object that the store no longer has becomes a file without it.
///
/// # Errors
/// The folder cannot be read or written, or a case is none.
pub async fn pack_cases(folder: &RunFolder, store: &S3) -> Result<()> {
    for path in files(folder, "case")? {
        let failed =
            |why: &dyn std::fmt::Display| Failure::run(format!("{}: not packed ({why})", path.display()));
        let case = std::fs::read(&path).map_err(|error| failed(&error))?;
        let mut objects = vec![];
        for object in evidence::needed(&case).map_err(|error| failed(&error))? {
            match store.get_spooled("objects", &object, &folder.path("evidence")).await {
                Ok(bytes) => objects.push(bytes),
                Err(error) => tracing::warn!(%error, object = %object.digest, "not in the evidence"),
            }
        }
        let file = evidence::Packed::of(&case, &objects).map_err(|error| failed(&error))?;
        let name = path.with_extension("evidence");
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        let write = |out: &mut std::fs::File| file.write(&mut std::io::BufWriter::new(out));
        folder.write_by(&format!("evidence/{name}"), false, write).map_err(|error| failed(&error))?;
        std::fs::remove_file(&path).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// The evidence files in a run's folder, by name.
///
/// # Errors
/// The folder cannot be read.
pub fn evidence_files(folder: &RunFolder) -> Result<Vec<PathBuf>> {
    files(folder, "evidence")
}

fn files(folder: &RunFolder, extension: &str) -> Result<Vec<PathBuf>> {
    let place = folder.path("evidence");
    let entries = place.read_dir().map_err(|e| Failure::run(format!("{}: {e}", place.display())))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}
