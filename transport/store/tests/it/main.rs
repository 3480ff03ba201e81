//! The store against the embedded server, over real sockets.

mod conformance;
mod durability;
mod faults;
mod fixture;
mod grants;
mod refusals;
