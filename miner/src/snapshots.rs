//! The state in which an epoch began, on disk: what a miner that was killed goes on from.
//!
//! One file a run, stage and epoch: BLAKE3 of the rest (32 bytes), epoch (u32 LE), state file. Written whole or not at
//! all. As many epochs are kept as may still be undone.

use engine::state::StageState;
use spec::{Digest, Run};
use std::io::Write;
use std::path::PathBuf;

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
}

impl Snapshots {
    /// Those in a folder, which is made when the first is written.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps the state in which `epoch` begins, and drops those of epochs that are never begun again.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, state: &StageState, epoch: u32) -> Result<(), SnapshotError> {
        let (run, stage) = (state.run(), state.stage().shape().index);
        let path = self.path(run, stage, epoch);
        let mut body = epoch.to_le_bytes().to_vec();
        body.extend_from_slice(&state.state_bytes()?);
        let written = (|| {
            std::fs::create_dir_all(&self.folder)?;
            let fresh = path.with_extension("fresh");
            let mut file = std::fs::File::create(&fresh)?;
            file.write_all(Digest::of(&body).as_bytes())?;
            file.write_all(&body)?;
            file.sync_data()?;
            std::fs::rename(&fresh, &path)?;
            self.prune(run, stage, epoch.saturating_sub(run.audit.lag))
        })();
        written.map_err(|source| SnapshotError::File { path, source })
    }

    /// The state in which `epoch` began with these weights, if it was kept and is whole.
    pub fn read(&self, run: &Run, stage: usize, epoch: u32, weights: Digest) -> Option<StageState> {
        let bytes = std::fs::read(self.path(run, stage, epoch)).ok()?;
        let (digest, body) = bytes.split_at_checked(32)?;
        let (number, state) = body.split_at_checked(4)?;
        if *digest != *Digest::of(body).as_bytes() || *number != epoch.to_le_bytes() {
            return None;
        }
        let state = StageState::from_state(run, stage, state).ok()?;
        (state.weights_digest().ok()? == weights && !state.anchor_is_missing()).then_some(state)
    }

    /// Removes the snapshots of epochs before `first`.
    fn prune(&self, run: &Run, stage: usize, first: u32) -> std::io::Result<()> {
        let prefix = prefix(run, stage);
        for entry in self.folder.read_dir()?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let epoch = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(SUFFIX)?.parse().ok());
            if epoch.is_some_and(|epoch: u32| epoch < first) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, run: &Run, stage: usize, epoch: u32) -> PathBuf {
        self.folder.join(format!("{}{epoch}{SUFFIX}", prefix(run, stage)))
    }
}

fn prefix(run: &Run, stage: usize) -> String {
    format!("{}-{stage}-", run.id().short())
}
