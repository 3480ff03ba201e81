//! What work is worth, and why.
//!
//! [`Work`] is what a miner's receipts of one stable epoch prove. [`Rule`] turns a window of epochs into scores and
//! scores into a vector of u16 weights, in integers alone, so that whoever has the [`Ledger`] computes the same. The
//! ledger is append-only, hash-chained and signed; [`explain`] answers from it why a key got what it got. A
//! [`Settlement`] pays: into a file, or as the payload that a chain wants. [`clasp`] attributes losses to miners; it points at
//! them, and convicts nobody.

pub mod clasp;
mod entry;
mod explain;
mod ledger;
mod rule;
mod settle;
#[cfg(test)]
mod testing;
mod work;

pub use entry::{Entry, Share, Strike};
pub use explain::{Line, Reason, explain};
pub use ledger::{Ledger, LedgerError};
pub use rule::{Rule, RuleError, WEIGHTS_SUM};
pub use settle::{ChainAdapter, Payload, SettleError, Settlement};
pub use work::Work;
