//! A run's folder on the orchestrator's disk.
//!
//! ```text
//! run.toml            what the run is
//! keys/               node keys and secrets.json, readable by the owner alone
//! objects/<digest>    initial objects: token shards, weights of manifest 0, manifest 0 itself
//! manifest-0          digest of manifest 0's object
//! journal.redb        the orchestrator's journal
//! bucket/             the embedded store, where there is one
//! store-port          the port that it was last served on, where any would have done
//! ledger              who did what, and what it is worth: `iota ledger`
//! credit.toml         how work is valued, where not by default
//! address             where nodes call, as invitations name it
//! settings.json       what the orchestrator was told when the run began; its journal holds under no other
//! metrics.jsonl       one notice a line
//! evidence/           <miner>.case: what was signed, of a conviction; packed with its objects <miner>.evidence
//! logs/               output of child processes
//! summary.json, report.html, sample.txt, model/
//!                     what `iota up` leaves: the run in numbers and as a page, text, a Hugging Face directory
//! ```

use serde::{Deserialize, Serialize};
use spec::{Digest, Run};
use std::io::Write;
use std::path::{Path, PathBuf};
use wire::{Manifest, Signed};

/// A run's folder.
#[derive(Debug, Clone)]
pub struct RunFolder {
    root: PathBuf,
}

/// What only the run's owner knows.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secrets {
    /// Token of the run's invitations, in hexadecimal.
    pub token: String,
    /// Randomness that audits are drawn from, in hexadecimal.
    pub audit: String,
    /// Access key of the embedded store.
    pub access_key: String,
    /// Secret key of the embedded store.
    pub secret_key: String,
}

impl Secrets {
    /// New secrets from the system's source of randomness.
    ///
    /// # Errors
    /// When the system has none.
    pub fn generate() -> Result<Self, FolderError> {
        let mut bytes = [0; 92];
        getrandom::fill(&mut bytes).map_err(|e| FolderError::Bad {
            path: "the system's random source".into(),
            why: e.to_string(),
        })?;
        let part = |from: usize, len: usize| hex::encode(&bytes[from..from + len]);
        Ok(Self {
            token: part(0, 16),
            audit: part(16, 32),
            access_key: part(48, 12),
            secret_key: part(60, 32),
        })
    }

    /// Those of the `secrets.json` of a run.
    ///
    /// # Errors
    /// A missing or damaged file.
    pub fn read(path: &Path) -> Result<Self, FolderError> {
        let bad = |e: serde_json::Error| FolderError::Bad { path: path.into(), why: e.to_string() };
        serde_json::from_slice(&read(path)?).map_err(bad)
    }
}

/// A run's folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No run here.
    #[error("{path} is no run folder (no run.toml): make one with `iota run new`")]
    NoRun {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// A run here already.
    #[error("{path} holds a run already: choose another folder")]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{path}: {why}")]
    Bad {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl RunFolder {
    /// Makes a new folder; nothing may be there, or an empty folder.
    ///
    /// # Errors
    /// A folder that holds anything, or cannot be made.
    pub fn create(root: &Path) -> Result<Self, FolderError> {
        if root.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(FolderError::Taken { path: root.into() });
        }
        let folder = Self { root: root.into() };
        for name in ["", "keys", "objects", "evidence", "logs"] {
            let path = root.join(name);
            std::fs::create_dir_all(&path).map_err(|source| FolderError::Io { path, source })?;
        }
        Ok(folder)
    }

    /// The folder of an existing run.
    ///
    /// # Errors
    /// No `run.toml` there.
    pub fn open(root: &Path) -> Result<Self, FolderError> {
        if !root.join("run.toml").is_file() {
            return Err(FolderError::NoRun { path: root.into() });
        }
        Ok(Self { root: root.into() })
    }

    /// A path inside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    /// The path of a node's key file.
    pub fn key_path(&self, node: &str) -> PathBuf {
        self.root.join("keys").join(format!("{node}.key"))
    }

    /// Writes a file whole or not at all, readable by the owner alone if `secret`.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, inside: &str, bytes: &[u8], secret: bool) -> Result<(), FolderError> {
        self.write_by(inside, secret, |file| file.write_all(bytes))
    }

    /// As [`RunFolder::write`], by whoever knows the bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_by(
        &self,
        inside: &str,
        secret: bool,
        write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
    ) -> Result<(), FolderError> {
        let path = self.path(inside);
        let fresh = path.with_extension("fresh");
        let written = (|| {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            if secret {
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            }
            let mut file = options.open(&fresh)?;
            write(&mut file)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)
        })();
        if written.is_err() {
            // What was written of it takes room that others may wait for.
            let _ = std::fs::remove_file(&fresh);
        }
        written.map_err(|source| FolderError::Io { path, source })
    }

    /// Writes an object under its digest.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_object(&self, bytes: &[u8]) -> Result<Digest, FolderError> {
        let digest = Digest::of(bytes);
        self.write(&format!("objects/{digest}"), bytes, false)?;
        Ok(digest)
    }

    /// The files of the initial objects; those `needed` must be among them.
    ///
    /// # Errors
    /// A file that is missing, or a folder that cannot be read.
    pub fn objects(&self, needed: &[Digest]) -> Result<Vec<PathBuf>, FolderError> {
        let folder = self.path("objects");
        let io = |source| FolderError::Io { path: folder.clone(), source };
        let mut objects = vec![];
        for entry in folder.read_dir().map_err(io)? {
            objects.push(entry.map_err(io)?.path());
        }
        let missing = needed.iter().map(|digest| self.path(&format!("objects/{digest}")));
        if let Some(path) = missing.into_iter().find(|path| !path.is_file()) {
            let why = "this object of the run is missing: restore it, or make a new run".into();
            return Err(FolderError::Bad { path, why });
        }
        Ok(objects)
    }

    /// The bytes of an initial object, verified against its name.
    ///
    /// # Errors
    /// A file that cannot be read or is not what its name says.
    pub fn object(path: &Path) -> Result<Vec<u8>, FolderError> {
        let bytes = read(path)?;
        if path.file_name().and_then(|name| name.to_str()) != Some(&Digest::of(&bytes).to_string()) {
            let why = format!("its BLAKE3 is {}, which is not its name", Digest::of(&bytes));
            return Err(FolderError::Bad { path: path.into(), why });
        }
        Ok(bytes)
    }

    /// The run.
    ///
    /// # Errors
    /// A `run.toml` that cannot be read.
    pub fn run(&self) -> Result<Run, FolderError> {
        let path = self.path("run.toml");
        let text = String::from_utf8(read(&path)?)
            .map_err(|e| FolderError::Bad { path: path.clone(), why: e.to_string() })?;
        Run::from_toml(&text).map_err(|e| FolderError::Bad { path, why: e.to_string() })
    }

    /// Manifest 0.
    ///
    /// # Errors
    /// A missing or damaged manifest.
    pub fn manifest(&self) -> Result<Signed<Manifest>, FolderError> {
        let named = String::from_utf8_lossy(&read(&self.path("manifest-0"))?).trim().to_owned();
        let path = self.path("objects").join(named);
        let manifest: Signed<Manifest> = postcard::from_bytes(&read(&path)?)
            .map_err(|e| FolderError::Bad { path: path.clone(), why: e.to_string() })?;
        manifest.verify().map_err(|e| FolderError::Bad { path, why: e.to_string() })?;
        Ok(manifest)
    }

    /// The run's secrets.
    ///
    /// # Errors
    /// A missing or damaged file.
    pub fn secrets(&self) -> Result<Secrets, FolderError> {
        Secrets::read(&self.path("keys/secrets.json"))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FolderError> {
    std::fs::read(path).map_err(|source| FolderError::Io { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SmallDisk;
    use crate::shell::OrchestratorError;

    #[test]
    fn a_folder_is_made_once_and_its_objects_are_verified() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("run");
        assert!(RunFolder::open(&root).unwrap_err().to_string().contains("no run folder"));
        let folder = RunFolder::create(&root).unwrap();
        assert!(RunFolder::create(&root).unwrap_err().to_string().contains("holds a run already"));
        let digest = folder.write_object(b"abc").unwrap();
        let [path] = &folder.objects(&[digest]).unwrap()[..] else { panic!("one object") };
        assert_eq!(RunFolder::object(path).unwrap(), b"abc");
        let absent = folder.objects(&[Digest::of(b"x")]).unwrap_err().to_string();
        assert!(absent.contains("missing") && absent.contains(&Digest::of(b"x").to_string()), "{absent}");
        std::fs::write(root.join(format!("objects/{digest}")), b"abd").unwrap();
        assert!(RunFolder::object(path).unwrap_err().to_string().contains("not its name"));
    }

    #[cfg(unix)]
    #[test]
    fn evidence_that_a_full_disk_does_not_take_is_not_there_in_part_and_is_written_once_there_is_room() {
        let Some(disk) = SmallDisk::mount() else { return };
        let folder = RunFolder::create(&disk.path("run")).unwrap();
        let (inside, case) = ("evidence/miner.case", vec![7; 20 << 10]);
        disk.fill();
        let error = OrchestratorError::from(folder.write(inside, &case, false).unwrap_err());
        assert_eq!(error.lacks_room(), Some(&*folder.path(inside)), "{error}: the shell waits for room");
        assert_eq!(std::fs::read_dir(folder.path("evidence")).unwrap().count(), 0);
        disk.make_room();
        folder.write(inside, &case, false).unwrap();
        assert_eq!(std::fs::read(folder.path(inside)).unwrap(), case);
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&place.path().join("run")).unwrap();
        folder.write("keys/secrets.json", b"{}", true).unwrap();
        let mode = std::fs::metadata(folder.path("keys/secrets.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
