//! Bounds, checked before a byte is read.

/// The version of envelope and messages.
pub const VERSION: u16 = 9;

/// Longest head (the message itself) of any frame, in bytes. An audit order, and what a convict is asked,
/// carry a whole window of receipts; everything else is far shorter.
pub const HEAD_BYTES_MAX: u32 = 1 << 20;

/// Longest body (a payload block), in bytes, as it travels and unpacked: 16,384 tokens of width 4,096 in
/// f32.
pub const BODY_BYTES_MAX: u32 = 256 << 20;

/// Inner steps that a miner which stands in for lost ones may be given in an epoch, after those of the run.
pub const STEPS_MORE_MAX: u32 = 8;

/// Addresses at which a miner may say that it can be reached.
pub const ADDRESSES_MAX: usize = 4;

/// Neighbours that a miner is told of: those on its routes first, then those it merges with. What is beyond goes
/// through the relay.
pub const NEIGHBOURS_MAX: usize = 64;

/// Outputs of a trace's ops, at most: their digests are 64 MiB.
pub const TRACE_VALUES_MAX: u32 = 1 << 21;

/// Longest output that a convict is asked to show, in bytes: it goes into the store with one request.
pub const SHOWN_BYTES_MAX: u64 = 4 << 30;
