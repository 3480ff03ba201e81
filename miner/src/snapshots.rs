//! The state in which an epoch began, on disk: what a miner that was killed goes on from.
//!
//! One file a run and stage: BLAKE3 of the rest (32 bytes), epoch (u32 LE), state file. Written whole or not at all.

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

/// A miner's snapshots.
pub struct Snapshots {
    folder: PathBuf,
}

impl Snapshots {
    /// Those in a folder, which is made when the first is written.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps the state in which `epoch` begins, in place of an older one.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, state: &StageState, epoch: u32) -> Result<(), SnapshotError> {
        let path = self.path(state.run(), state.stage().shape().index);
        let mut body = epoch.to_le_bytes().to_vec();
        body.extend_from_slice(&state.state_bytes()?);
        let written = (|| {
            std::fs::create_dir_all(&self.folder)?;
            let fresh = path.with_extension("fresh");
            let mut file = std::fs::File::create(&fresh)?;
            file.write_all(Digest::of(&body).as_bytes())?;
            file.write_all(&body)?;
            file.sync_data()?;
            std::fs::rename(&fresh, &path)
        })();
        written.map_err(|source| SnapshotError::File { path, source })
    }

    /// The state in which `epoch` began with these weights, if it was kept and is whole.
    pub fn read(&self, run: &Run, stage: usize, epoch: u32, weights: Digest) -> Option<StageState> {
        let bytes = std::fs::read(self.path(run, stage)).ok()?;
        let (digest, body) = bytes.split_at_checked(32)?;
        let (number, state) = body.split_at_checked(4)?;
        if *digest != *Digest::of(body).as_bytes() || *number != epoch.to_le_bytes() {
            return None;
        }
        let state = StageState::from_state(run, stage, state).ok()?;
        (state.weights_digest().ok()? == weights && !state.anchor_is_missing()).then_some(state)
    }

    fn path(&self, run: &Run, stage: usize) -> PathBuf {
        self.folder.join(format!("{}-{stage}.state", run.id().short()))
    }
}
