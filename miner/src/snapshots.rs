//! The state in which an epoch began, on disk: what a miner that was killed goes on from.
//!
//! One file a run, stage and epoch: BLAKE3 of the rest (32 bytes), digest of the manifest that opened the epoch (32 bytes), state
//! file. Written whole or not at all, beside the work that goes on meanwhile: a disk takes longer than several inner steps. As many epochs are kept as
//! may still be undone.

use engine::state::StageState;
use spec::{Digest, Run};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// A snapshot that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file.
    #[error("{path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The device that holds the state.
    #[error(transparent)]
    Device(#[from] engine::DeviceError),
}

const SUFFIX: &str = ".state";

/// A miner's snapshots.
pub struct Snapshots {
    folder: PathBuf,
    /// The snapshot that is being written.
    writing: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// Those in a folder, which is made when the first is written.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder, writing: None }
    }

    /// Keeps the state in which `epoch` begins after `manifest`, as it is now, and drops those of epochs that are never begun again. `tell`
    /// hears how it ended, on a thread of its own.
    ///
    /// # Errors
    /// The device that holds the state is lost, or the system gives no thread; `tell` hears nothing then.
    pub fn write(
        &mut self,
        state: &StageState,
        (epoch, manifest): (u32, Digest),
        tell: impl FnOnce(Result<(), SnapshotError>) + Send + 'static,
    ) -> Result<(), SnapshotError> {
        let (run, stage) = (state.run(), state.stage().shape().index);
        let path = self.path(run, stage, epoch);
        let (prefix, first) = (prefix(run, stage), epoch.saturating_sub(run.audit.lag));
        let state = state.state_bytes()?;
        self.finish();
        let write = {
            let path = path.clone();
            move || {
                let written = write(&path, &manifest, &state).and_then(|()| prune(&path, &prefix, first));
                tell(written.map_err(|source| SnapshotError::File { path, source }));
            }
        };
        let writing = std::thread::Builder::new().name("snapshot".into()).spawn(write);
        self.writing = Some(writing.map_err(|source| SnapshotError::File { path, source })?);
        Ok(())
    }

    /// The state in which `epoch` began after `manifest`, if it was kept and is whole: the same epoch after another manifest, which
    /// was undone, began elsewhere, even with the same weights.
    pub fn read(&mut self, run: &Run, stage: usize, (epoch, manifest): (u32, Digest)) -> Option<StageState> {
        self.finish();
        let bytes = std::fs::read(self.path(run, stage, epoch)).ok()?;
        let (digest, body) = bytes.split_at_checked(32)?;
        let (opened, state) = body.split_at_checked(32)?;
        if *digest != *Digest::of(body).as_bytes() || *opened != *manifest.as_bytes() {
            return None;
        }
        let state = StageState::from_state(run, stage, state).ok()?;
        (!state.anchor_is_missing()).then_some(state)
    }

    /// Waits for the snapshot that is being written.
    fn finish(&mut self) {
        if let Some(writing) = self.writing.take() {
            // A panic there is told as a missing snapshot: nothing of it is under its name.
            let _ = writing.join();
        }
    }

    fn path(&self, run: &Run, stage: usize, epoch: u32) -> PathBuf {
        self.folder.join(format!("{}{epoch}{SUFFIX}", prefix(run, stage)))
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.finish();
    }
}

fn write(path: &Path, manifest: &Digest, state: &[u8]) -> std::io::Result<()> {
    let digest = blake3::Hasher::new().update(manifest.as_bytes()).update(state).finalize();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension("fresh");
    let written = (|| {
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(digest.as_bytes())?;
        file.write_all(manifest.as_bytes())?;
        file.write_all(state)?;
        file.sync_data()?;
        std::fs::rename(&fresh, path)
    })();
    // Half a state is of no use, and on a full disk its room is.
    written.inspect_err(|_| drop(std::fs::remove_file(&fresh)))
}

/// Removes the snapshots beside `path`, of the same run and stage, of epochs before `first`.
fn prune(path: &Path, prefix: &str, first: u32) -> std::io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    for entry in folder.read_dir()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let epoch = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(SUFFIX)?.parse().ok());
        if epoch.is_some_and(|epoch: u32| epoch < first) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn prefix(run: &Run, stage: usize) -> String {
    format!("{}-{stage}-", run.id().short())
}
