//! The journal: every event of the core, durable before any of its effects, and now and then where the run stood.
//!
//! Drawn in `docs/formats.md`. Entries are chained by BLAKE3, so that a journal with a gap or an edited
//! entry is noticed when it is read. What is kept of it is decision 001's.

mod standing;
#[cfg(test)]
mod tests;

pub use standing::Standing;

use crate::disk::is_full;
use crate::view::View;
use orchestrator_core::{Event, Snapshot};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use spec::Digest;
use std::path::{Path, PathBuf};

const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");
const STANDINGS: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshots");

/// Standings that are kept.
const STANDINGS_KEPT: usize = 2;
/// Entries that are kept although a run goes on from one of two standings after them: the last resort if neither can be
/// used, and what the run's owner may want to look up. About 75 MB.
const ENTRIES_KEPT: u64 = 1 << 18;

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

/// What is known of a run from its journal.
#[derive(Debug, Default)]
pub struct History {
    /// Where it stood last, if that is known.
    pub standing: Option<Standing>,
    /// What happened since; everything, where that is not known.
    pub entries: Vec<Entry>,
    /// Standings that were to be gone on from and could not be: a sentence each.
    pub passed_over: Vec<String>,
}

impl History {
    /// Whether nothing has ever happened.
    pub fn is_empty(&self) -> bool {
        self.standing.is_none() && self.entries.is_empty()
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.standing.as_ref().map_or(0, |standing| standing.sequence) + self.entries.len() as u64
    }
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
    /// What it began with is gone, and nothing that stands for it can be used.
    #[error(
        "journal {path}: it begins with entry {first}, and what stands for those before cannot be used ({}): start the version that wrote it, or restore the file from a copy",
        .why.join("; ")
    )]
    Cut {
        /// Its file.
        path: PathBuf,
        /// The first entry that is there.
        first: u64,
        /// What is wrong with the snapshots.
        why: Vec<String>,
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
    /// By the events before it.
    standing: Option<(u64, Vec<u8>)>,
    /// Entries that are never removed: [`ENTRIES_KEPT`], fewer where that is tried.
    kept: u64,
}

impl Journal {
    /// Opens or makes the journal at `path`; hands back where the run stood last, and what happened since, checked.
    ///
    /// # Errors
    /// A file that is in use, unreadable or damaged.
    pub fn open(path: &Path) -> Result<(Self, History), JournalError> {
        let database = Self::database(path)?;
        let history = read(path, &database)?;
        let before = history.standing.as_ref().map(|standing| standing.chain);
        let chain = history.entries.last().map(|entry| entry.chain).or(before).unwrap_or_default();
        let (next, database) = (history.events(), Some(database));
        let journal = Self {
            path: path.into(),
            database,
            next,
            chain,
            pending: vec![],
            standing: None,
            kept: ENTRIES_KEPT,
        };
        Ok((journal, history))
    }

    /// What it still holds of the run's events, with the number of the first.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn entries(path: &Path) -> Result<(u64, Vec<Entry>), JournalError> {
        let database = Self::database(path)?;
        Tables::open(path, &database)?.map_or(Ok((0, vec![])), |tables| tables.entries_from(0, None))
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

    /// Keeps where the run stands now that all that was appended is handled and done; durable after the next
    /// [`commit`](Self::commit), which also removes what nobody will go on from any more.
    ///
    /// # Errors
    /// A state that cannot be written down.
    pub fn keep(&mut self, now_ms: u64, core: Snapshot, view: View) -> Result<(), JournalError> {
        let (sequence, chain) = (self.next, self.chain);
        let standing = Standing { sequence, chain, now_ms, core, view };
        let bytes = standing.to_bytes().map_err(|e| Self::failed(&self.path, e))?;
        self.standing = Some((sequence, bytes));
        Ok(())
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// A full or broken disk. Nothing of what was appended is in the journal then, and the next commit has it all.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        if self.pending.is_empty() && self.standing.is_none() {
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
        self.standing = None;
        Ok(())
    }

    fn write(&self, database: &Database) -> Result<(), JournalError> {
        let written = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut entries = transaction.open_table(ENTRIES)?;
                for (sequence, bytes) in &self.pending {
                    entries.insert(sequence, bytes.as_slice())?;
                }
                if let Some((sequence, bytes)) = &self.standing {
                    let mut standings = transaction.open_table(STANDINGS)?;
                    standings.insert(sequence, bytes.as_slice())?;
                    let all: Vec<u64> = standings.iter()?.map(|row| Ok(row?.0.value())).collect::<Result<
                        _,
                        redb::Error,
                    >>(
                    )?;
                    if let Some(&older) = all.iter().nth_back(STANDINGS_KEPT - 1) {
                        standings.retain_in(..older, |_, _| false)?;
                        // The last entry before a standing has the chain that it must have.
                        let kept = older.saturating_sub(1).min(self.next.saturating_sub(self.kept));
                        entries.retain_in(..kept, |_, _| false)?;
                    }
                }
            }
            Ok(transaction.commit()?)
        };
        written().map_err(|error| Self::refused(&self.path, error))
    }

    fn refused(path: &Path, error: redb::Error) -> JournalError {
        match error {
            redb::Error::Io(error) if is_full(&error) => JournalError::Full { path: path.into() },
            error => Self::failed(path, error),
        }
    }

    fn failed(path: &Path, why: impl std::fmt::Display) -> JournalError {
        JournalError::Database { path: path.into(), why: why.to_string() }
    }
}

/// What a journal's file holds.
struct Tables<'a> {
    path: &'a Path,
    entries: ReadOnlyTable<u64, &'static [u8]>,
    /// Not there in files from before there were any.
    standings: Option<ReadOnlyTable<u64, &'static [u8]>>,
}

impl<'a> Tables<'a> {
    /// `None` of a journal in which nothing was ever written.
    fn open(path: &'a Path, database: &Database) -> Result<Option<Self>, JournalError> {
        let opened = || -> Result<Option<Self>, redb::Error> {
            let transaction = database.begin_read()?;
            let open = |table| match transaction.open_table(table) {
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                opened => opened.map(Some),
            };
            let standings = open(STANDINGS)?;
            Ok(open(ENTRIES)?.map(|entries| Self { path, entries, standings }))
        };
        opened().map_err(|error| Journal::failed(path, error))
    }

    /// The entries from number `from` on, and which the first of them is; each must go on from the chain before, which
    /// nobody knows of the first that is there where what came before was removed.
    fn entries_from(&self, from: u64, before: Option<Digest>) -> Result<(u64, Vec<Entry>), JournalError> {
        let failed = |e: redb::StorageError| Journal::failed(self.path, e);
        let (mut entries, mut first, mut chain) = (vec![], from, before);
        for row in self.entries.range(from..).map_err(failed)? {
            let (sequence, bytes) = row.map_err(failed)?;
            let sequence = sequence.value();
            if entries.is_empty() && before.is_none() {
                first = sequence;
                chain = (first == 0).then(Digest::default);
            }
            let damaged = |why: &str| self.damaged(sequence, why);
            if sequence != first + entries.len() as u64 {
                return Err(damaged("an entry before it is missing"));
            }
            let entry = self.decode(sequence, bytes.value())?;
            if let Some(chain) = chain {
                let expected =
                    link(&chain, entry.now_ms, &entry.event).map_err(|_| damaged("it cannot be encoded"))?;
                if entry.chain != expected {
                    return Err(damaged("its chain does not hold"));
                }
            }
            chain = Some(entry.chain);
            entries.push(entry);
        }
        Ok((first, entries))
    }

    /// The newest standing that can be gone on from, and why newer ones cannot.
    fn standing(&self) -> Result<(Option<Standing>, Vec<String>), JournalError> {
        let failed = |e: redb::StorageError| Journal::failed(self.path, e);
        let mut passed_over = vec![];
        let Some(standings) = &self.standings else { return Ok((None, passed_over)) };
        for row in standings.iter().map_err(failed)?.rev() {
            let (sequence, bytes) = row.map_err(failed)?;
            let sequence = sequence.value();
            let last =
                sequence.checked_sub(1).map(|last| self.entries.get(last)).transpose().map_err(failed)?;
            let last = last.flatten().and_then(|last| self.decode(sequence, last.value()).ok());
            match Standing::from_bytes(bytes.value(), sequence, last.map(|entry| entry.chain)) {
                Ok(standing) => return Ok((Some(standing), passed_over)),
                Err(why) => passed_over.push(format!("the snapshot after {sequence} events: {why}")),
            }
        }
        Ok((None, passed_over))
    }

    fn decode(&self, sequence: u64, bytes: &[u8]) -> Result<Entry, JournalError> {
        postcard::from_bytes(bytes).map_err(|_| self.damaged(sequence, "it cannot be decoded"))
    }

    fn damaged(&self, sequence: u64, why: &str) -> JournalError {
        JournalError::Damaged { path: self.path.into(), sequence, why: why.to_owned() }
    }
}

fn read(path: &Path, database: &Database) -> Result<History, JournalError> {
    let Some(tables) = Tables::open(path, database)? else { return Ok(History::default()) };
    let (standing, passed_over) = tables.standing()?;
    let begin = standing.as_ref().map(|standing| (standing.sequence, standing.chain));
    let (from, chain) = begin.unzip();
    let (first, entries) = tables.entries_from(from.unwrap_or_default(), chain)?;
    if standing.is_none() && first > 0 {
        return Err(JournalError::Cut { path: path.into(), first, why: passed_over });
    }
    Ok(History { standing, entries, passed_over })
}

fn link(before: &Digest, now_ms: u64, event: &Event) -> Result<Digest, postcard::Error> {
    let mut bytes = before.0.to_vec();
    bytes.extend(postcard::to_stdvec(&(now_ms, event))?);
    Ok(Digest::of(&bytes))
}
