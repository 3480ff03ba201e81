//! Windows that no verdict speaks of yet, found by miner, by what is owed, by what waits for a validator, and by who replays it.
//!
//! With thousands of miners as many windows wait at a time, and one of them is looked for with nearly every word of a miner or
//! validator. What they are found by follows from the windows: it is no part of a snapshot, but built again from one.

use crate::audit::{Pending, Standing};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spec::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// By miner and first inner step.
pub(crate) type At = (NodeId, u32);

/// The windows of an epoch that wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Windows {
    all: BTreeMap<At, Pending>,
    by: Index,
}

/// What windows are found by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Index {
    /// That miners have to reveal, by since when.
    owed: BTreeSet<(u64, At)>,
    /// In the store, for a validator to be found.
    revealed: BTreeSet<At>,
    /// By who replays it.
    ordered: BTreeMap<NodeId, BTreeSet<At>>,
}

impl Index {
    fn add(&mut self, at: At, pending: &Pending) {
        match &pending.standing {
            Standing::Drawn => drop(self.owed.insert((pending.since_ms, at))),
            Standing::Revealed { .. } => drop(self.revealed.insert(at)),
            Standing::Ordered { validator, .. } => {
                self.ordered.entry(*validator).or_default().insert(at);
            }
            Standing::Accused { .. } => {}
        }
    }

    fn remove(&mut self, at: At, pending: &Pending) {
        match &pending.standing {
            Standing::Drawn => drop(self.owed.remove(&(pending.since_ms, at))),
            Standing::Revealed { .. } => drop(self.revealed.remove(&at)),
            Standing::Ordered { validator, .. } => {
                if let Some(its) = self.ordered.get_mut(validator) {
                    its.remove(&at);
                    if its.is_empty() {
                        self.ordered.remove(validator);
                    }
                }
            }
            Standing::Accused { .. } => {}
        }
    }
}

impl Windows {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn get(&self, at: At) -> Option<&Pending> {
        self.all.get(&at)
    }

    pub fn iter(&self) -> impl Iterator<Item = (At, &Pending)> {
        self.all.iter().map(|(&at, pending)| (at, pending))
    }

    /// Those of one miner, in order.
    pub fn of(&self, miner: NodeId) -> impl Iterator<Item = (At, &Pending)> {
        self.all.range((miner, 0)..=(miner, u32::MAX)).map(|(&at, pending)| (at, pending))
    }

    /// How many miners have to reveal.
    pub fn owed(&self) -> usize {
        self.by.owed.len()
    }

    /// Those that miners have had to reveal since `since_ms` or before, in no order that means anything.
    pub fn owed_since(&self, since_ms: u64) -> impl Iterator<Item = (At, &Pending)> {
        let early = self.by.owed.iter().take_while(move |(since, _)| *since <= since_ms);
        early.filter_map(|&(_, at)| Some((at, self.all.get(&at)?)))
    }

    /// Those that wait for a validator, in order.
    pub fn revealed(&self) -> impl Iterator<Item = At> {
        self.by.revealed.iter().copied()
    }

    /// Those that a validator replays, in order.
    pub fn ordered_to(&self, validator: NodeId) -> impl Iterator<Item = (At, &Pending)> {
        let its = self.by.ordered.get(&validator).into_iter().flatten();
        its.filter_map(|&at| Some((at, self.all.get(&at)?)))
    }

    /// How many a validator replays.
    pub fn load(&self, validator: NodeId) -> usize {
        self.by.ordered.get(&validator).map_or(0, BTreeSet::len)
    }

    pub fn insert(&mut self, at: At, pending: Pending) {
        self.remove(at);
        self.by.add(at, &pending);
        self.all.insert(at, pending);
    }

    pub fn remove(&mut self, at: At) -> Option<Pending> {
        let pending = self.all.remove(&at)?;
        self.by.remove(at, &pending);
        Some(pending)
    }

    /// Drops those of one miner.
    pub fn forget(&mut self, miner: NodeId) {
        let its: Vec<At> = self.of(miner).map(|(at, _)| at).collect();
        for at in its {
            self.remove(at);
        }
    }

    /// Changes one; the answer is what `change` says, if there is such a window.
    pub fn change<R>(&mut self, at: At, change: impl FnOnce(&mut Pending) -> R) -> Option<R> {
        let pending = self.all.get_mut(&at)?;
        self.by.remove(at, pending);
        let answer = change(pending);
        self.by.add(at, pending);
        Some(answer)
    }

    /// Changes every one.
    pub fn change_all(&mut self, change: impl FnMut(&mut Pending)) {
        self.all.values_mut().for_each(change);
        *self = std::mem::take(&mut self.all).into_iter().collect();
    }
}

impl FromIterator<(At, Pending)> for Windows {
    fn from_iter<T: IntoIterator<Item = (At, Pending)>>(windows: T) -> Self {
        let mut all = Self::default();
        all.extend(windows);
        all
    }
}

impl Extend<(At, Pending)> for Windows {
    fn extend<T: IntoIterator<Item = (At, Pending)>>(&mut self, windows: T) {
        for (at, pending) in windows {
            self.insert(at, pending);
        }
    }
}

impl IntoIterator for Windows {
    type Item = (At, Pending);
    type IntoIter = std::collections::btree_map::IntoIter<At, Pending>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

impl Serialize for Windows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Windows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::{Digest, Mode, Operation, Outcome};
    use wire::{Key, ObjectRef, Receipt, Signed, StageRecord};

    fn pending() -> Pending {
        let object = ObjectRef { digest: Digest([1; 32]), bytes: 1 };
        let record = StageRecord { weights: object, momentum: None, miners: Vec::new() };
        let body = Receipt {
            run: Digest::default(),
            mode: Mode::Portable,
            epoch: 0,
            sequence: 0,
            previous: Digest::default(),
            stage: 0,
            operation: Operation::Apply,
            state: None,
            input_receipt: None,
            input: None,
            output: None,
            loss_q32: None,
            outcome: Outcome::Ok,
        };
        Pending::beginning(&record, &Signed::new(body, &Key::from_seed([7; 32])), None, 0)
    }

    /// A window's way through an audit, and what can happen on it, in some order.
    fn standing(draw: u64) -> Standing {
        let state = ObjectRef { digest: Digest([1; 32]), bytes: 1 };
        let (inputs, validator) = (Vec::new(), NodeId([100 + (draw / 4 % 3) as u8; 32]));
        match draw % 4 {
            0 => Standing::Drawn,
            1 => Standing::Revealed { state, inputs },
            2 => Standing::Ordered { validator, state, inputs },
            _ => Standing::Accused { evidence: Digest::default(), state, inputs },
        }
    }

    #[test]
    fn whatever_happens_windows_are_found_as_when_they_are_looked_for_one_by_one() {
        let mut windows = Windows::default();
        let mut noise = blake3::Hasher::new().finalize_xof();
        let (mut found, mut changed) = (0, 0);
        for turn in 0..2_000 {
            let mut bytes = [0; 32];
            noise.fill(&mut bytes);
            let at = (NodeId([bytes[0] % 12; 32]), u32::from(bytes[1] % 3));
            let (since_ms, draw) = (u64::from(bytes[2]), u64::from(bytes[3]));
            match bytes[4] % 16 {
                0 => drop(windows.remove(at)),
                1 => windows.forget(at.0),
                2 if turn % 10 == 0 => windows.change_all(|of| of.since_ms = since_ms),
                3..8 => {
                    let mut of = pending();
                    (of.standing, of.since_ms) = (standing(draw), since_ms);
                    windows.insert(at, of);
                }
                _ => {
                    let change = |of: &mut Pending| (of.standing, of.since_ms) = (standing(draw), since_ms);
                    changed += usize::from(windows.change(at, change).is_some());
                }
            }
            let again: Windows = postcard::from_bytes(&wire::to_bytes(&windows)).unwrap();
            assert_eq!(again.by, windows.by, "after turn {turn}");
            let all = || windows.iter();
            let late: BTreeSet<At> = windows.owed_since(100).map(|(at, _)| at).collect();
            let is_late = |of: &Pending| of.standing == Standing::Drawn && of.since_ms <= 100;
            assert!(all().filter(|(_, of)| is_late(of)).map(|(at, _)| at).eq(late.iter().copied()));
            let is_revealed = |of: &Pending| matches!(of.standing, Standing::Revealed { .. });
            assert!(windows.revealed().eq(all().filter(|(_, of)| is_revealed(of)).map(|(at, _)| at)));
            let validator = NodeId([101; 32]);
            let has = |of: &Pending| matches!(of.standing, Standing::Ordered { validator: by, .. } if by == validator);
            let its: Vec<At> = all().filter(|(_, of)| has(of)).map(|(at, _)| at).collect();
            assert!(windows.ordered_to(validator).map(|(at, _)| at).eq(its.iter().copied()));
            assert_eq!(windows.load(validator), its.len());
            found += late.len() + its.len();
        }
        assert!(found > 1_000 && changed > 100, "{found} {changed}");
    }
}
