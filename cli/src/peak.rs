//! What this machine can do at best, measured now.

use kernels::probe;
use std::time::Instant;

/// Rounds of a measurement: the best counts, for a neighbour's burst must not pass for the machine's limit.
const ROUNDS: usize = 12;

/// Fused multiply-adds on all threads of the current pool, in GFLOP/s.
pub fn fma_gflops() -> f64 {
    best(|| probe::fma_chains(1_000_000))
}

/// Reading and writing memory far beyond the caches on all threads of the current pool, in GB/s.
pub fn memory_gbytes() -> f64 {
    let mut stream = probe::Stream::new();
    best(|| stream.pass())
}

/// The highest rate of a piece of work that says how much it did, in units of 10^9 a second.
pub fn best(mut work: impl FnMut() -> u64) -> f64 {
    let rates = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        let done = work();
        done as f64 / begin.elapsed().as_secs_f64() / 1e9
    });
    rates.fold(0.0, f64::max)
}
