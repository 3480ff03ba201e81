//! The ledger: entries in a chain, each signed by the orchestrator.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "ILG1"
//! then, for every entry:
//!      0     4  bytes of the entry, u32 LE
//!      4     -  the signed entry, postcard
//! ```

use crate::entry::{Entry, Strike};
use crate::rule::{Rule, RuleError};
use crate::work::Work;
use spec::{Digest, NodeId};
use std::collections::BTreeSet;
use wire::{Key, Signed};

/// What a ledger's file begins with.
const MAGIC: [u8; 4] = *b"ILG1";
/// Longest entry: a hundred thousand keys.
const ENTRY_BYTES_MAX: usize = 32 << 20;

/// A run's ledger, every entry of it checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    entries: Vec<Signed<Entry>>,
}

/// Bytes that are no ledger, or one that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Not a ledger's file.
    #[error("ledger: expected the magic \"ILG1\", found {found:02x?}: this is another file")]
    Magic {
        /// What it begins with.
        found: Vec<u8>,
    },
    /// An entry cannot be decoded.
    #[error("ledger: entry {index} is damaged ({why}): restore the file from a copy")]
    Damaged {
        /// Which.
        index: usize,
        /// How that shows.
        why: String,
    },
    /// An entry contradicts what stands before it.
    #[error("ledger: entry {index} does not hold: its {what} is {found}, expected {expected}")]
    Contradiction {
        /// Which.
        index: usize,
        /// What of it.
        what: &'static str,
        /// What it says.
        found: String,
        /// What follows from the entries before.
        expected: String,
    },
    /// The rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl Ledger {
    /// The entries, oldest first.
    pub fn entries(&self) -> &[Signed<Entry>] {
        &self.entries
    }

    /// The bytes before the first entry.
    pub fn header() -> &'static [u8] {
        &MAGIC
    }

    /// An entry as it is appended to the file.
    pub fn record(entry: &Signed<Entry>) -> Vec<u8> {
        let bytes = entry.to_bytes();
        let mut record = (bytes.len() as u32).to_le_bytes().to_vec();
        record.extend(bytes);
        record
    }

    /// Reads a file and checks every signature, link, score and weight. An entry whose bytes end early, as a writer that
    /// was killed leaves it, is left out; the second value is the length of what holds.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn read(bytes: &[u8]) -> Result<(Self, usize), LedgerError> {
        let Some(mut rest) = bytes.strip_prefix(&MAGIC) else {
            let short = MAGIC.starts_with(bytes);
            let found = bytes.iter().take(MAGIC.len()).copied().collect();
            return if short { Ok((Self::default(), 0)) } else { Err(LedgerError::Magic { found }) };
        };
        let (mut ledger, mut whole) = (Self::default(), MAGIC.len());
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (index, len) = (ledger.entries.len(), u32::from_le_bytes(*len) as usize);
            let damaged = |why: String| LedgerError::Damaged { index, why };
            if len > ENTRY_BYTES_MAX {
                return Err(damaged(format!("{len} bytes, expected at most {ENTRY_BYTES_MAX}")));
            }
            let Some((entry, next)) = after.split_at_checked(len) else { break };
            let entry = postcard::from_bytes(entry).map_err(|error| damaged(error.to_string()))?;
            ledger.push(entry)?;
            rest = next;
            whole += 4 + len;
        }
        Ok((ledger, whole))
    }

    /// The entry that comes next, signed; [`Ledger::push`] takes it.
    ///
    /// # Errors
    /// When the rule makes no sense.
    pub fn next(
        &self,
        key: &Key,
        at: (Digest, u32, Digest),
        rule: Rule,
        mut work: Vec<Work>,
        mut struck: Vec<Strike>,
    ) -> Result<Signed<Entry>, LedgerError> {
        rule.check()?;
        work.sort_by_key(|work| work.miner);
        struck.sort();
        let (run, epoch, manifest) = at;
        let previous = self.head();
        let (shares, burned) = (Vec::new(), 0);
        let mut entry = Entry { run, epoch, manifest, previous, rule, work, struck, shares, burned };
        (entry.shares, entry.burned) = self.shares(&entry);
        Ok(Signed::new(entry, key))
    }

    /// Appends an entry, if it holds.
    ///
    /// # Errors
    /// What of it does not.
    pub fn push(&mut self, signed: Signed<Entry>) -> Result<(), LedgerError> {
        let index = self.entries.len();
        let wrong = |what, found: String, expected: String| {
            Err(LedgerError::Contradiction { index, what, found, expected })
        };
        let entry =
            signed.verify().map_err(|error| LedgerError::Damaged { index, why: error.to_string() })?;
        entry.rule.check()?;
        if entry.previous != self.head() {
            return wrong("link to the entry before", entry.previous.to_string(), self.head().to_string());
        }
        if let Some(last) = self.entries.last() {
            if signed.signer != last.signer {
                return wrong("signer", signed.signer.to_string(), last.signer.to_string());
            }
            if entry.run != last.body.run {
                return wrong("run", entry.run.to_string(), last.body.run.to_string());
            }
            if entry.epoch <= last.body.epoch {
                return wrong("epoch", entry.epoch.to_string(), format!("one after {}", last.body.epoch));
            }
        }
        if entry.work.windows(2).any(|pair| pair[0].miner >= pair[1].miner) {
            return wrong("work", "out of key order".into(), "each key once, in order".into());
        }
        let (shares, burned) = self.shares(entry);
        if (&shares, burned) != (&entry.shares, entry.burned) {
            let said = |shares: &[crate::Share], burned| {
                let weights: Vec<u16> = shares.iter().map(|share| share.weight).collect();
                format!("{weights:?}, {burned} burned")
            };
            return wrong("weights", said(&entry.shares, entry.burned), said(&shares, burned));
        }
        self.entries.push(signed);
        Ok(())
    }

    /// Digest of the last entry; zero while there is none.
    pub fn head(&self) -> Digest {
        self.entries.last().map(Signed::digest).unwrap_or_default()
    }

    /// Everyone convicted, up to the last entry.
    pub fn struck(&self) -> impl Iterator<Item = Strike> {
        self.entries.iter().flat_map(|entry| entry.body.struck.iter().copied())
    }

    fn shares(&self, entry: &Entry) -> (Vec<crate::Share>, u16) {
        let before = self.entries.iter().map(|entry| entry.body.work.as_slice());
        let epochs: Vec<&[Work]> = before.chain([entry.work.as_slice()]).collect();
        let struck: BTreeSet<NodeId> =
            self.struck().chain(entry.struck.iter().copied()).map(|s| s.miner).collect();
        entry.rule.shares(&epochs, &struck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::work;

    fn key() -> Key {
        Key::from_seed([5; 32])
    }

    fn ledger(epochs: u32) -> (Ledger, Vec<u8>) {
        let (mut ledger, mut bytes) = (Ledger::default(), Ledger::header().to_vec());
        for epoch in 0..epochs {
            let at = (Digest([1; 32]), epoch, Digest([epoch as u8; 32]));
            let struck = if epoch == 1 {
                vec![Strike { miner: NodeId([3; 32]), evidence: Some(Digest([9; 32])) }]
            } else {
                vec![]
            };
            let work = vec![work(2, 0, 300), work(1, 0, 100), work(3, 0, 50)];
            let entry = ledger.next(&key(), at, Rule::default(), work, struck).unwrap();
            bytes.extend(Ledger::record(&entry));
            ledger.push(entry).unwrap();
        }
        (ledger, bytes)
    }

    #[test]
    fn what_was_written_is_read_back_and_a_torn_end_is_left_out() {
        let (ledger, bytes) = ledger(3);
        assert_eq!(Ledger::read(&bytes).unwrap(), (ledger.clone(), bytes.len()));
        let (two, whole) = Ledger::read(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(two.entries(), &ledger.entries()[..2]);
        assert_eq!(Ledger::read(&bytes[..whole]).unwrap().0, two);
        assert_eq!(Ledger::read(b"IL").unwrap(), (Ledger::default(), 0));
        assert!(Ledger::read(b"PK\x03\x04").unwrap_err().to_string().contains("another file"));
    }

    #[test]
    fn an_edited_entry_is_noticed_wherever_it_is_edited() {
        let (_, bytes) = ledger(2);
        for at in 4..bytes.len() {
            let mut edited = bytes.clone();
            edited[at] ^= 1;
            let read = Ledger::read(&edited);
            let torn = read.as_ref().is_ok_and(|(ledger, _)| ledger.entries().len() < 2);
            assert!(read.is_err() || torn, "byte {at} may be edited");
        }
    }

    #[test]
    fn weights_that_do_not_follow_from_the_work_are_refused_even_if_signed() {
        let (mut ledger, _) = ledger(2);
        let at = (Digest([1; 32]), 2, Digest([2; 32]));
        let honest = ledger.next(&key(), at, Rule::default(), vec![work(1, 0, 10)], vec![]).unwrap();
        let mut body = honest.body.clone();
        body.shares[0].weight -= 5;
        body.burned += 5;
        let error = ledger.push(Signed::new(body, &key())).unwrap_err().to_string();
        assert!(error.contains("entry 2 does not hold: its weights is ["), "{error}");
        let mut body = honest.body.clone();
        body.previous = Digest([8; 32]);
        assert!(ledger.push(Signed::new(body, &key())).is_err());
        assert!(ledger.push(Signed::new(honest.body.clone(), &Key::from_seed([6; 32]))).is_err());
        ledger.push(honest).unwrap();
    }

    #[test]
    fn a_strike_lasts() {
        let (ledger, _) = ledger(3);
        let weights =
            |i: usize| -> Vec<u16> { ledger.entries()[i].body.shares.iter().map(|s| s.weight).collect() };
        assert!(weights(0)[2] > 0);
        assert_eq!((weights(1)[2], weights(2)[2]), (0, 0));
    }
}
