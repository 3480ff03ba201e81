//! What this machine can do at best, measured now: fused multiply-adds from registers, and a stream over memory.

use std::{sync::Mutex, time::Instant};

use kernels::probe::{Stream, fma_chains};

/// Bounds over all workers.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// f32 fused multiply-adds from registers, two flops each.
    pub gflops: f64,
    /// Bytes read and written by `a += s * b` on arrays far beyond the caches.
    pub gbytes: f64,
}

const ROUNDS: usize = 10;

/// The best rounds of this process so far, a few more of them run now: on a shared machine a neighbour's burst must not
/// pass for the machine's limit.
pub fn measure() -> Peak {
    static BEST: Mutex<Peak> = Mutex::new(Peak { gflops: 0.0, gbytes: 0.0 });
    let mut best = BEST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for _ in 0..ROUNDS {
        best.gflops = best.gflops.max(fma_rate());
        best.gbytes = best.gbytes.max(stream_rate());
    }
    *best
}

fn fma_rate() -> f64 {
    const STEPS: usize = 1_000_000;
    let start = Instant::now();
    let flops = fma_chains(STEPS);
    flops as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn stream_rate() -> f64 {
    thread_local! {
        static ARRAYS: std::cell::RefCell<Stream> = std::cell::RefCell::new(Stream::new());
    }
    ARRAYS.with_borrow_mut(|arrays| {
        let start = Instant::now();
        let bytes = arrays.pass();
        bytes as f64 / start.elapsed().as_secs_f64() / 1e9
    })
}
