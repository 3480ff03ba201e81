//! The miner as a value: what to compute next, what to send, what to forget
