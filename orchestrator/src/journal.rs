//! The journal: every event of the core, durable before any of its effects.
//!
//! Drawn in `docs/formats.md`. Entries are chained by BLAKE3, so that a journal with a gap or an edited
//! entry is noticed when it is read.

use orchestrator_core::Event;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use spec::Digest;
use std::path::{Path, PathBuf};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");

/// The journal's file in a run's folder.
pub(crate) const JOURNAL: &str = "journal.redb";

/// One event as it lies in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The core's clock.
    pub now_ms: u64,
    /// BLAKE3 over the chain before and this entry's time and event.
    pub chain: Digest,
    /// What happened.
    pub event: Event,
}

/// A journal that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The database.
    #[error("journal {path}: {why}")]
    Database {
        /// Its file.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// Another process has it open.
    #[error("journal {path}: another orchestrator leads this run: end it first")]
    InUse {
        /// Its file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error(
        "journal {path}: the disk is full; make room, then start the orchestrator again: it goes on where it stands"
    )]
    Full {
        /// Its file.
        path: PathBuf,
    },
    /// An entry is damaged or missing.
    #[error("journal {path}: entry {sequence} is damaged ({why}); restore the file from a copy")]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// Which entry.
        sequence: u64,
        /// How that shows.
        why: String,
    },
}

/// An open journal. The database's lock keeps a second orchestrator out.
pub struct Journal {
    path: PathBuf,
    /// Not there once a write failed, until the next.
    database: Option<Database>,
    next: u64,
    chain: Digest,
    pending: Vec<(u64, Vec<u8>)>,
}

impl Journal {
    /// Opens or makes the journal at `path`, checking all that is in it; hands back its entries.
    ///
    /// # Errors
    /// A file that is in use, unreadable or damaged.
    pub fn open(path: &Path) -> Result<(Self, Vec<Entry>), JournalError> {
        let database = Self::database(path)?;
        let entries = read(path, &database)?;
        let chain = entries.last().map(|entry| entry.chain).unwrap_or_default();
        let next = entries.len() as u64;
        Ok((Self { path: path.into(), database: Some(database), next, chain, pending: vec![] }, entries))
    }

    fn database(path: &Path) -> Result<Database, JournalError> {
        Database::create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => JournalError::InUse { path: path.into() },
            error => Self::refused(path, error.into()),
        })
    }

    /// Adds an event; durable after the next [`commit`](Self::commit).
    ///
    /// # Errors
    /// An event that cannot be written down.
    pub fn append(&mut self, now_ms: u64, event: &Event) -> Result<(), JournalError> {
        self.chain = link(&self.chain, now_ms, event).map_err(|e| Self::failed(&self.path, e))?;
        let entry = Entry { now_ms, chain: self.chain, event: event.clone() };
        let bytes = postcard::to_stdvec(&entry).map_err(|e| Self::failed(&self.path, e))?;
        self.pending.push((self.next, bytes));
        self.next += 1;
        Ok(())
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// A full or broken disk. Nothing of what was appended is in the journal then, and the next commit has it all.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // A database that met an error takes nothing more, so after one it is opened anew.
        let database = match self.database.take() {
            Some(database) => database,
            None => Self::database(&self.path)?,
        };
        self.write(&database)?;
        self.database = Some(database);
        self.pending.clear();
        Ok(())
    }

    fn write(&self, database: &Database) -> Result<(), JournalError> {
        let failed = |e: redb::Error| Self::refused(&self.path, e);
        let transaction = database.begin_write().map_err(|e| failed(e.into()))?;
        {
            let mut table = transaction.open_table(TABLE).map_err(|e| failed(e.into()))?;
            for (sequence, bytes) in &self.pending {
                table.insert(sequence, bytes.as_slice()).map_err(|e| failed(e.into()))?;
            }
        }
        transaction.commit().map_err(|e| failed(e.into()))
    }

    fn refused(path: &Path, error: redb::Error) -> JournalError {
        let full = |error: &std::io::Error| {
            use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
            matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        };
        match error {
            redb::Error::Io(error) if full(&error) => JournalError::Full { path: path.into() },
            error => Self::failed(path, error),
        }
    }

    fn failed(path: &Path, why: impl std::fmt::Display) -> JournalError {
        JournalError::Database { path: path.into(), why: why.to_string() }
    }
}

fn read(path: &Path, database: &Database) -> Result<Vec<Entry>, JournalError> {
    let failed = |e: redb::Error| Journal::failed(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let table = match transaction.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(vec![]),
        Err(e) => return Err(failed(e.into())),
    };
    let (mut entries, mut chain) = (vec![], Digest::default());
    for row in table.iter().map_err(|e| failed(e.into()))? {
        let (sequence, bytes) = row.map_err(|e| failed(e.into()))?;
        let damaged = |why: &str| JournalError::Damaged {
            path: path.into(),
            sequence: sequence.value(),
            why: why.to_owned(),
        };
        if sequence.value() != entries.len() as u64 {
            return Err(damaged("an entry before it is missing"));
        }
        let entry: Entry =
            postcard::from_bytes(bytes.value()).map_err(|_| damaged("it cannot be decoded"))?;
        chain = link(&chain, entry.now_ms, &entry.event).map_err(|_| damaged("it cannot be encoded"))?;
        if entry.chain != chain {
            return Err(damaged("its chain does not hold"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn link(before: &Digest, now_ms: u64, event: &Event) -> Result<Digest, postcard::Error> {
    let mut bytes = before.0.to_vec();
    bytes.extend(postcard::to_stdvec(&(now_ms, event))?);
    Ok(Digest::of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_read_back_and_the_rest_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("journal.redb");
        let (mut journal, entries) = Journal::open(&path).unwrap();
        assert!(entries.is_empty());
        journal.append(3, &Event::Started).unwrap();
        journal.append(4, &Event::Woke).unwrap();
        journal.commit().unwrap();
        journal.append(5, &Event::Stop).unwrap();
        assert!(Journal::open(&path).is_err(), "a second orchestrator must not open the same journal");
        drop(journal);
        let (mut journal, entries) = Journal::open(&path).unwrap();
        let seen: Vec<_> = entries.iter().map(|e| (e.now_ms, e.event.clone())).collect();
        assert_eq!(seen, [(3, Event::Started), (4, Event::Woke)]);
        journal.append(6, &Event::Stop).unwrap();
        journal.commit().unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1.len(), 3);
    }

    #[test]
    fn an_edited_entry_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("journal.redb");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(3, &Event::Started).unwrap();
        journal.append(4, &Event::Woke).unwrap();
        journal.commit().unwrap();
        let forged = Entry { now_ms: 3, chain: Digest::default(), event: Event::Stop };
        journal.pending.push((0, postcard::to_stdvec(&forged).unwrap()));
        journal.commit().unwrap();
        drop(journal);
        let said = Journal::open(&path).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said.contains("entry 0 is damaged (its chain does not hold)"), "{said}");
    }
}
