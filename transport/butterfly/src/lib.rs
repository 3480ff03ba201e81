//! A sans-IO all-reduce: partition, pairs, rounds, absentees; no arithmetic.
//!
//! The miners of a stage each hold a contribution (integer codes of their change of the weights). At the
//! end all of them hold the sums. A stage is cut into shards; each shard belongs to a *pair* of owners, who
//! both add up everybody's piece of it. Sums are exact integers, so the two must produce the same bits,
//! and if they do not, one of them lies.
//!
//! ```text
//! member                          caller (the orchestrator)
//!   Scale, SendScales -> all members
//!   Holding(scales)          ---->  all living hold the scales of all living
//!   Encode                   <----  Scaled(members)            the one scale on which all tell their change
//!   Encoded -> Commit(root)  ---->  all roots in, or their senders lost
//!   SendPiece to owners      <----  Drawn(secret, seats)       the pairs follow from secret and roots
//!   Holding(pieces)          ---->  every owner holds what the living sent
//!   Reduce                   <----  Closed(contributors)       the one list that everybody adds up
//!   Announce, SendSum  -> all members -> Apply
//! ```
//!
//! [`Butterfly`] is a member's half and [`Caller`] the orchestrator's. Neither sees a number: the member
//! emits [`Effect::Reduce`] and [`Effect::Apply`], which the engine performs, and is told digests.
//!
//! *Napkin.* With `N` members, contributions and sums of `bytes` each, what a member sends
//! and what it receives are each `(3N-4)/N * bytes` with pairs and `2(N-1)/N * bytes` with single owners:
//! see [`bound`]. One member sends nothing.
//!
//! What is deliberately absent: the opening of a piece against its root (the shell does it and says
//! `opens`), and the third party's reduction of a disputed shard (it comes in as [`wire::Call::Settled`]).

mod caller;
mod member;
mod partition;
#[cfg(test)]
mod tests;

pub use caller::{Caller, Heard};
pub use member::{Butterfly, Effect, Event};
pub use partition::{BLOCK, Copies, Cut, Shard, blocks, bound, draw, partition};
pub use wire::Call;
pub use wire::merge::Seat;
