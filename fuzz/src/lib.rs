//! Every decoder of bytes that come from outside, fed with bytes that nobody would send.
//!
//! A [`Target`] is one decoder and some inputs that it takes. Cases are these inputs, edited by a generator that knows only a
//! number: the same number is the same case on every machine, so a failing one is named by it. The generator is blind to what the
//! decoder does with a case; checksums are made to fit, so that edits get past them.
//!
//! `cargo run --release -p fuzz -- --seconds 600` for long; the tests do a slice.

mod mutate;
mod targets;
mod tile;

pub use targets::targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Takes bytes; whether they were good ones.
pub type Decode = Box<dyn Fn(&[u8]) -> bool>;

/// One decoder.
pub struct Target {
    /// What it decodes.
    pub name: String,
    /// Inputs that it takes; at least one.
    pub seeds: Vec<Vec<u8>>,
    /// Decodes; whether the bytes were taken for good ones.
    pub decode: Decode,
}

/// What a while of cases came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases tried.
    pub cases: u64,
    /// Those taken for good ones.
    pub taken: u64,
}

/// A case on which a decoder panicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked {
    /// The case's number.
    pub number: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What the panic said.
    pub said: String,
}

impl Target {
    /// The bytes of a case.
    pub fn case(&self, number: u64) -> Vec<u8> {
        mutate::case(&self.name, &self.seeds, number)
    }

    /// Tries cases from number `first` on, as long as `time` lasts.
    ///
    /// # Errors
    /// The first case on which the decoder panics.
    pub fn run(&self, first: u64, time: Duration) -> Result<Tally, Panicked> {
        let (began, mut tally) = (Instant::now(), Tally::default());
        while began.elapsed() < time {
            let number = first + tally.cases;
            let bytes = self.case(number);
            match catch_unwind(AssertUnwindSafe(|| (self.decode)(&bytes))) {
                Ok(taken) => tally.taken += u64::from(taken),
                Err(panic) => {
                    let said = panic.downcast_ref::<String>().cloned();
                    let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
                    return Err(Panicked { number, bytes, said: said.unwrap_or_default() });
                }
            }
            tally.cases += 1;
        }
        Ok(tally)
    }
}
