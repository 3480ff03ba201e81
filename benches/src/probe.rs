//! What this machine can do at best, measured now: fused multiply-adds from registers, and a stream over memory.

use std::{hint::black_box, sync::Mutex, time::Instant};

use kernels::SimdPath;
use rayon::prelude::*;

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
    let flops: usize = rayon::broadcast(|_| chains(STEPS)).iter().sum();
    flops as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Runs `steps` steps of independent chains on the best path and returns the flops done.
fn chains(steps: usize) -> usize {
    match SimdPath::best() {
        #[cfg(target_arch = "x86_64")]
        SimdPath::Avx512 => {
            // SAFETY: the path is available, so the CPU has AVX-512F.
            unsafe { x86::chains_avx512(steps) }
        }
        #[cfg(target_arch = "x86_64")]
        SimdPath::Avx2 => {
            // SAFETY: the path is available, so the CPU has AVX2 and FMA.
            unsafe { x86::chains_avx2(steps) }
        }
        _ => {
            let mut acc = [[0.0f32; 8]; 12];
            let (a, b) = (black_box(0.999_f32), black_box(0.001_f32));
            for _ in 0..steps {
                for x in acc.as_flattened_mut() {
                    *x = *x * a + b;
                }
            }
            black_box(acc);
            2 * 96 * steps
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub(super) fn chains_avx512(steps: usize) -> usize {
        let mut acc = [_mm512_setzero_ps(); CHAINS];
        let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        for _ in 0..steps {
            for x in &mut acc {
                *x = _mm512_fmadd_ps(*x, a, b);
            }
        }
        black_box(acc);
        2 * 16 * CHAINS * steps
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn chains_avx2(steps: usize) -> usize {
        let mut acc = [_mm256_setzero_ps(); CHAINS];
        let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        for _ in 0..steps {
            for x in &mut acc {
                *x = _mm256_fmadd_ps(*x, a, b);
            }
        }
        black_box(acc);
        2 * 8 * CHAINS * steps
    }
}

/// In place, so that no line is fetched only to be overwritten: what is counted is what moves.
fn stream_rate() -> f64 {
    const ELEMENTS: usize = 1 << 24;
    thread_local! {
        static ARRAYS: std::cell::RefCell<[Vec<f32>; 2]> =
            std::cell::RefCell::new([vec![1.0; ELEMENTS], vec![2.0; ELEMENTS]]);
    }
    ARRAYS.with_borrow_mut(|[a, b]| {
        let scale = black_box(0.5);
        let start = Instant::now();
        a.par_chunks_mut(1 << 16).zip(b.par_chunks(1 << 16)).for_each(|(a, b)| {
            for (a, b) in a.iter_mut().zip(b) {
                *a += scale * b;
            }
        });
        let seconds = start.elapsed().as_secs_f64();
        black_box(a);
        12.0 * ELEMENTS as f64 / seconds / 1e9
    })
}
