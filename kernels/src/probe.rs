//! Work that a machine can do at best, for whoever has a clock: fused multiply-adds from registers, and a stream over
//! memory. An op's time is held against the rates of these.

use crate::common::simd::SimdPath;
use rayon::prelude::*;
use std::hint::black_box;

/// Runs `steps` steps of independent chains of fused multiply-adds on every worker of the current pool; returns the
/// flops done, two for each.
pub fn fma_chains(steps: usize) -> u64 {
    rayon::broadcast(|_| chains(steps) as u64).iter().sum()
}

/// Two arrays far beyond the caches.
pub struct Stream {
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Stream {
    /// Elements of an array, 64 MiB.
    const ELEMENTS: usize = 1 << 24;

    /// Arrays that are already in memory, page by page.
    pub fn new() -> Self {
        Self { a: vec![1.0; Self::ELEMENTS], b: vec![2.0; Self::ELEMENTS] }
    }

    /// `a += s * b` on every worker of the current pool; returns the bytes read and written. In place, so that no line is
    /// fetched only to be overwritten: what is counted is what moves.
    pub fn pass(&mut self) -> u64 {
        let scale = black_box(0.5);
        self.a.par_chunks_mut(1 << 16).zip(self.b.par_chunks(1 << 16)).for_each(|(a, b)| {
            for (a, b) in a.iter_mut().zip(b) {
                *a += scale * b;
            }
        });
        black_box(&mut self.a);
        12 * Self::ELEMENTS as u64
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
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
