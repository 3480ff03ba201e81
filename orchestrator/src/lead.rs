//! What a run is led with: its folder's run, key and secrets, and what its core was told when it began.

use crate::folder::{FolderError, RunFolder};
use crate::journal::History;
use crate::owner::called_at;
use orchestrator_core::{Config, ConfigError, Effect, Orchestrator, Timeouts};
use serde::{Deserialize, Serialize};
use spec::Run;
use std::net::SocketAddr;
use std::path::PathBuf;
use transport::identity::IdentityError;
use transport::{Hub, TransportError};
use wire::{Key, Machine, Manifest, Signed};

const SETTINGS: &str = "settings.json";

/// A run that cannot be led.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// The run's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The orchestrator's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A secret that cannot be read.
    #[error("{path}: {what} is no hexadecimal number of the right length")]
    Secret {
        /// The file.
        path: PathBuf,
        /// Which secret.
        what: &'static str,
    },
    /// A run that this version cannot do.
    #[error(transparent)]
    Run(#[from] ConfigError),
}

/// A run's folder, read.
pub(crate) struct Lead {
    pub run: Run,
    pub key: Key,
    pub manifest: Signed<Manifest>,
    /// What lets any node in, where admission is by invitation.
    pub token: Vec<u8>,
    /// What draws of audits and merges, and tokens with terms, grow from.
    pub secret: [u8; 32],
}

impl Lead {
    /// Reads it.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn read(folder: &RunFolder) -> Result<Self, LeadError> {
        let secrets = folder.secrets()?;
        let bad = |what| LeadError::Secret { path: folder.path("keys/secrets.json"), what };
        let token = hex::decode(&secrets.token).map_err(|_| bad("token"))?;
        let secret = hex::decode(&secrets.audit).ok().and_then(|bytes| bytes.try_into().ok());
        let key = transport::identity::load(&folder.key_path("orchestrator"))?;
        let (run, manifest) = (folder.run()?, folder.manifest()?);
        Ok(Self { run, key, manifest, token, secret: secret.ok_or_else(|| bad("audit"))? })
    }

    /// The core as its journal leaves it, and the time of its last event. `again` is given everything that follows from the
    /// events that are replayed, with their times.
    ///
    /// # Errors
    /// A run that this version cannot do, and what `again` says.
    pub fn resume<E: From<LeadError>>(
        &self,
        settings: Settings,
        history: History,
        mut again: impl FnMut(u64, Effect) -> Result<(), E>,
    ) -> Result<(Orchestrator, u64), E> {
        let (config, mut now_ms) = (self.config(settings), 0);
        let core = match history.standing {
            Some(standing) => {
                now_ms = standing.now_ms;
                Orchestrator::restore(config, standing.core)
            }
            None => Orchestrator::new(config),
        };
        let mut core = core.map_err(LeadError::from)?;
        for entry in history.entries {
            now_ms = entry.now_ms;
            for effect in core.handle(now_ms, entry.event) {
                again(now_ms, effect)?;
            }
        }
        Ok((core, now_ms))
    }

    fn config(&self, settings: Settings) -> Config {
        Config {
            run: self.run.clone(),
            key: self.key.clone(),
            manifest: self.manifest.clone(),
            token: self.token.clone(),
            secret: self.secret,
            validators: settings.validators,
            lanes_at_start: settings.lanes_at_start,
            mixes_routes: settings.mixes_routes,
            direct: settings.direct,
            timeouts: Timeouts {
                seat_grace_ms: settings.seat_grace_ms,
                reveal_ms: settings.reveal_ms,
                uplink_bytes_per_s: settings.uplink_bytes_per_s,
                lane_patience_percent: settings.lane_patience_percent,
                ..Timeouts::default()
            },
        }
    }
}

/// Listens for nodes. Where any port will do it is the one of the last time, if that is free: nodes call there after a restart.
pub(crate) fn listen_again(
    folder: &RunFolder,
    listen: SocketAddr,
    key: &Key,
    liveness: transport::Config,
) -> Result<Hub, TransportError> {
    let last = called_at(folder).ok().and_then(|place| place.rsplit(':').next()?.parse().ok());
    if let Some(port) = last.filter(|_| listen.port() == 0)
        && let Ok(hub) = Hub::listen(SocketAddr::new(listen.ip(), port), key, liveness.clone())
    {
        return Ok(hub);
    }
    Hub::listen(listen, key, liveness)
}

/// What the core was told besides the run. Its journal, replayed under other settings, would be another run's; so those
/// that a run was begun with stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub validators: u16,
    /// 0 in runs begun before there was such a thing: all.
    #[serde(default)]
    pub lanes_at_start: u16,
    pub mixes_routes: bool,
    pub seat_grace_ms: u64,
    pub reveal_ms: u64,
    /// In runs begun before there was such a thing transfers are given no time of their own.
    #[serde(default)]
    pub uplink_bytes_per_s: u64,
    /// Runs begun before there was such a thing wait however long a lane takes.
    #[serde(default)]
    pub lane_patience_percent: u16,
    /// In runs begun before there was such a thing all goes through the relay.
    #[serde(default)]
    pub direct: bool,
}

impl Settings {
    /// Notes these down where the run begins; else those that were noted down then.
    pub fn of_run(self, folder: &RunFolder, resumes: bool) -> Result<Self, FolderError> {
        let path = folder.path(SETTINGS);
        if resumes && path.exists() {
            let noted = Self::noted(folder)?;
            if noted != self {
                tracing::warn!(?noted, "the run goes on with the settings that it was begun with");
            }
            return Ok(noted);
        }
        let bad = |error: serde_json::Error| FolderError::Bad { path: path.clone(), why: error.to_string() };
        folder.write(SETTINGS, &serde_json::to_vec_pretty(&self).map_err(bad)?, false)?;
        Ok(self)
    }

    /// Those that were noted down.
    pub fn noted(folder: &RunFolder) -> Result<Self, FolderError> {
        let path = folder.path(SETTINGS);
        let text = std::fs::read(&path).map_err(|source| FolderError::Io { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|error| FolderError::Bad { path, why: error.to_string() })
    }
}
