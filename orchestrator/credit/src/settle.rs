//! Settlement: what becomes of an entry's weights outside of the ledger.

use crate::entry::Entry;
use serde::Serialize;
use spec::NodeId;
use std::collections::BTreeMap;

/// Something that pays by an entry's weights.
pub trait Settlement {
    /// What it makes of an entry.
    type Order;

    /// The order to pay by this entry.
    ///
    /// # Errors
    /// Whoever cannot be paid, and what to do.
    fn settle(&self, entry: &Entry) -> Result<Self::Order, SettleError>;
}

/// Weights that cannot be settled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// A key that the chain does not know.
    #[error(
        "settlement: {miner} has weight {weight} and no uid on the chain: register it, and add it to the table of uids"
    )]
    Unregistered {
        /// Who.
        miner: NodeId,
        /// What it is due.
        weight: u16,
    },
    /// Two keys under one uid.
    #[error("settlement: uid {uid} stands for {one} and for {other}: correct the table of uids")]
    Twice {
        /// The uid.
        uid: u16,
        /// One key.
        one: NodeId,
        /// The other, or the one that burns.
        other: String,
    },
    /// A line of the table that cannot be read.
    #[error("table of uids, line {line}: expected `KEY UID`, found {found:?}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What stands there.
        found: String,
    },
}

/// Settles on a chain whose validators set weights by uid. It prints the call; sending it needs the owner's wallet, which
/// this program never holds.
#[derive(Debug, Clone)]
pub struct ChainAdapter {
    netuid: u16,
    version_key: u64,
    burn_uid: u16,
    uids: BTreeMap<NodeId, u16>,
}

/// The arguments of `set_weights`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Payload {
    /// The call.
    pub call: &'static str,
    /// The subnet.
    pub netuid: u16,
    /// Who is paid, in ascending order.
    pub dests: Vec<u16>,
    /// What each is paid, of 65535 in all.
    pub weights: Vec<u16>,
    /// The weights' version.
    pub version_key: u64,
}

impl ChainAdapter {
    /// An adapter for subnet `netuid`; `table` has one `KEY UID` a line, `#` begins a comment. What is burned goes to
    /// `burn_uid`.
    ///
    /// # Errors
    /// A line that cannot be read, or a uid that stands twice.
    pub fn new(netuid: u16, version_key: u64, burn_uid: u16, table: &str) -> Result<Self, SettleError> {
        let mut uids = BTreeMap::new();
        let mut keys: BTreeMap<u16, NodeId> = BTreeMap::new();
        for (number, text) in (1..).zip(table.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let wrong = || SettleError::Line { line: number, found: text.chars().take(100).collect() };
            let (key, uid) = text.split_once(char::is_whitespace).ok_or_else(wrong)?;
            let key: NodeId = key.parse().map_err(|_| wrong())?;
            let uid: u16 = uid.trim().parse().map_err(|_| wrong())?;
            if uid == burn_uid {
                return Err(SettleError::Twice { uid, one: key, other: "what is burned".into() });
            }
            if let Some(one) = keys.insert(uid, key).filter(|one| *one != key) {
                return Err(SettleError::Twice { uid, one, other: key.to_string() });
            }
            uids.insert(key, uid);
        }
        Ok(Self { netuid, version_key, burn_uid, uids })
    }
}

impl Settlement for ChainAdapter {
    type Order = Payload;

    fn settle(&self, entry: &Entry) -> Result<Payload, SettleError> {
        let mut paid = BTreeMap::new();
        for share in entry.shares.iter().filter(|share| share.weight > 0) {
            let (miner, weight) = (share.miner, share.weight);
            let uid = self.uids.get(&miner).ok_or(SettleError::Unregistered { miner, weight })?;
            paid.insert(*uid, weight);
        }
        if entry.burned > 0 {
            paid.insert(self.burn_uid, entry.burned);
        }
        let (dests, weights) = paid.into_iter().unzip();
        let (netuid, version_key) = (self.netuid, self.version_key);
        Ok(Payload { call: "set_weights", netuid, dests, weights, version_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rule, Share};
    use spec::Digest;

    fn entry() -> Entry {
        let share = |name, weight| Share { miner: NodeId([name; 32]), stage: 0, score: 1, weight };
        Entry {
            run: Digest([1; 32]),
            epoch: 4,
            manifest: Digest([2; 32]),
            previous: Digest([3; 32]),
            rule: Rule::default(),
            work: vec![],
            struck: vec![],
            shares: vec![share(1, 40_000), share(2, 0), share(3, 20_000)],
            burned: 5535,
        }
    }

    #[test]
    fn the_payload_names_uids_in_order() {
        let table = format!("# the run's miners\n{} 12\n{}\t7 # home\n\n", NodeId([1; 32]), NodeId([3; 32]));
        let payload = ChainAdapter::new(9, 3, 0, &table).unwrap().settle(&entry()).unwrap();
        assert_eq!(
            serde_json::to_string(&payload).unwrap(),
            r#"{"call":"set_weights","netuid":9,"dests":[0,7,12],"weights":[5535,20000,40000],"version_key":3}"#
        );
    }

    #[test]
    fn who_cannot_be_paid_is_named() {
        let one = format!("{} 12", NodeId([1; 32]));
        let error = ChainAdapter::new(9, 3, 0, &one).unwrap().settle(&entry()).unwrap_err();
        assert_eq!(error, SettleError::Unregistered { miner: NodeId([3; 32]), weight: 20_000 });
        let twice = format!("{one}\n{} 12", NodeId([2; 32]));
        assert!(matches!(ChainAdapter::new(9, 3, 0, &twice), Err(SettleError::Twice { uid: 12, .. })));
        assert!(matches!(ChainAdapter::new(9, 3, 12, &one), Err(SettleError::Twice { uid: 12, .. })));
        for bad in ["abc 1", "12", &format!("{} 70000", NodeId([2; 32]))] {
            let error = ChainAdapter::new(9, 3, 0, &format!("\n{bad}")).unwrap_err();
            assert!(error.to_string().starts_with("table of uids, line 2: expected `KEY UID`"), "{error}");
        }
    }
}
