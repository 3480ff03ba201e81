//! The ledger's file in a run's folder: it only grows, and what is in it is on disk before anybody is told.

use credit::{Ledger, LedgerError, Rule, Strike, Work};
use spec::Digest;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use wire::Key;

/// A run's ledger on disk.
pub struct LedgerFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole entries.
    whole: u64,
    ledger: Ledger,
    rule: Rule,
}

/// A ledger that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LedgerFileError {
    /// The disk.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What stands in it.
    #[error("{path}: {source}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        source: LedgerError,
    },
}

impl LedgerFile {
    /// Opens or makes the file. What a killed writer left half done at its end is cut off.
    ///
    /// # Errors
    /// A disk that fails, or entries that do not hold.
    pub fn open(path: &Path, rule: Rule) -> Result<Self, LedgerFileError> {
        let io = |source| LedgerFileError::Io { path: path.into(), source };
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (ledger, whole) =
            Ledger::read(&bytes).map_err(|source| LedgerFileError::Bad { path: path.into(), source })?;
        file.set_len(whole as u64).map_err(io)?;
        let mut ledger = Self { path: path.into(), file, whole: whole as u64, ledger, rule };
        if whole == 0 {
            ledger.append(Ledger::header()).map_err(io)?;
        }
        Ok(ledger)
    }

    /// Enters a stable epoch, unless it stands there already: after a restart it may be told again.
    ///
    /// # Errors
    /// A disk that fails, or a rule that makes no sense. The epoch is not entered then, and can be once more.
    pub fn enter(
        &mut self,
        key: &Key,
        (run, epoch, manifest): (Digest, u32, Digest),
        work: Vec<Work>,
        struck: Vec<Strike>,
    ) -> Result<(), LedgerFileError> {
        if self.ledger.entries().last().is_some_and(|last| last.body.epoch >= epoch) {
            return Ok(());
        }
        let bad = |path: &Path, source| LedgerFileError::Bad { path: path.into(), source };
        let entry = self.ledger.next(key, (run, epoch, manifest), self.rule, work, struck);
        let entry = entry.map_err(|source| bad(&self.path, source))?;
        let record = Ledger::record(&entry);
        self.append(&record).map_err(|source| LedgerFileError::Io { path: self.path.clone(), source })?;
        self.ledger.push(entry).map_err(|source| bad(&self.path, source))
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        // What a full disk left half done is cut off.
        self.file.set_len(self.whole)?;
        self.file.seek(SeekFrom::Start(self.whole))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        self.whole += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SmallDisk;
    use spec::NodeId;

    fn work() -> Vec<Work> {
        let (miner, head) = (NodeId([1; 32]), Digest([2; 32]));
        let (forwards, folded, steps, flops, first, last) = (4, 4, 2, 100, 0, 9);
        vec![Work { miner, stage: 0, forwards, folded, steps, flops, first, last, head, audits_equal: 1 }]
    }

    #[test]
    fn it_grows_over_restarts_and_a_torn_end_is_cut_off() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("ledger");
        let key = Key::from_seed([3; 32]);
        let enter = |file: &mut LedgerFile, epoch| {
            file.enter(&key, (Digest([4; 32]), epoch, Digest([5; 32])), work(), vec![]).unwrap();
        };
        let mut file = LedgerFile::open(&path, Rule::default()).unwrap();
        enter(&mut file, 0);
        enter(&mut file, 0);
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(Ledger::read(&whole).unwrap().0.entries().len(), 1);
        std::fs::write(&path, [&whole[..], &[200, 0, 0, 0, 1, 2]].concat()).unwrap();
        let mut file = LedgerFile::open(&path, Rule::default()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        enter(&mut file, 1);
        let (ledger, len) = Ledger::read(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((ledger.entries().len(), len > whole.len()), (2, true));
        drop(file);
        std::fs::write(&path, b"something else").unwrap();
        let said = LedgerFile::open(&path, Rule::default()).err().unwrap().to_string();
        assert!(said.contains("this is another file"), "{said}");
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
    }

    /// A small disk of its own is needed, which not every process may mount.
    #[cfg(unix)]
    #[test]
    fn an_epoch_that_a_full_disk_does_not_take_is_entered_once_there_is_room() {
        let Some(disk) = SmallDisk::mount() else { return };
        let path = disk.path("ledger");
        let key = Key::from_seed([3; 32]);
        let mut file = LedgerFile::open(&path, Rule::default()).unwrap();
        // Longer than what is left of a page.
        let miners = (0..100).map(|miner| Work { miner: NodeId([miner; 32]), ..work()[0] });
        let long: Vec<Work> = miners.collect();
        let mut enter =
            |epoch| file.enter(&key, (Digest([4; 32]), epoch, Digest([5; 32])), long.clone(), vec![]);
        enter(0).unwrap();
        disk.fill();
        let error = enter(1).unwrap_err();
        assert!(
            matches!(&error, LedgerFileError::Io { source, .. } if crate::disk::is_full(source)),
            "{error}"
        );
        disk.make_room();
        enter(1).unwrap();
        enter(2).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let (ledger, whole) = Ledger::read(&bytes).unwrap();
        let epochs: Vec<u32> = ledger.entries().iter().map(|entry| entry.body.epoch).collect();
        assert_eq!((epochs, whole), (vec![0, 1, 2], bytes.len()));
    }
}
