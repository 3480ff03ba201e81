//! The CPU path: blocks in parallel, written so that the compiler turns their loops into vectors.

use super::{BLOCK, Contribution, NonFinite, Outer, Rule, check_bits};
use crate::common::{
    block, parallel,
    shape::expect_len,
    simd::{Simd, SimdPath, dispatch},
};
use rayon::prelude::*;

/// Elements of one task, a whole number of blocks.
const TASK: usize = 64 * BLOCK;

/// As [`super::exponents`], on the path asked for.
pub fn exponents(
    path: SimdPath,
    change: &Contribution<'_>,
    residual: &[f32],
    exponents: &mut [i8],
) -> Result<(), NonFinite> {
    change.check(residual, exponents);
    let mut finite = vec![false; residual.len().div_ceil(TASK)];
    let tasks = change
        .par_chunks()
        .zip(residual.par_chunks(TASK))
        .zip(exponents.par_chunks_mut(TASK / BLOCK))
        .zip(finite.par_iter_mut());
    parallel::run(residual.len(), tasks, |(((change, residual), e), finite)| {
        *finite = dispatch!(path, |s| exponents_task(s, &change, residual, e));
    });
    change.all_finite(residual, &finite)
}

#[inline(always)]
fn exponents_task<S: Simd>(_: S, change: &Contribution<'_>, residual: &[f32], exponents: &mut [i8]) -> bool {
    let mut amax_of_all = 0;
    for (b, (residual, e)) in residual.chunks(BLOCK).zip(exponents).enumerate() {
        let old = &change.old[b * BLOCK..][..residual.len()];
        let local = &change.local[b * BLOCK..][..residual.len()];
        let mut amax = 0;
        for i in 0..residual.len() {
            amax = amax.max(((old[i] - local[i]) + residual[i]).to_bits() & 0x7FFF_FFFF);
        }
        *e = block::exponent(f32::from_bits(amax)) as i8;
        amax_of_all = amax_of_all.max(amax);
    }
    f32::from_bits(amax_of_all).is_finite()
}

impl<'a> Contribution<'a> {
    fn par_chunks(&self) -> impl IndexedParallelIterator<Item = Contribution<'a>> {
        self.old
            .par_chunks(TASK)
            .zip(self.local.par_chunks(TASK))
            .map(|(old, local)| Contribution { old, local })
    }

    /// The first element that is not finite, looked for only if some task met one.
    fn all_finite(&self, residual: &[f32], tasks: &[bool]) -> Result<(), NonFinite> {
        if !tasks.contains(&false) {
            return Ok(());
        }
        let not_finite = |&i: &usize| !((self.old[i] - self.local[i]) + residual[i]).is_finite();
        (0..residual.len()).find(not_finite).map_or(Ok(()), |index| Err(NonFinite { index }))
    }
}

/// As [`super::contribute`], on the path asked for.
pub fn contribute(
    path: SimdPath,
    change: &Contribution<'_>,
    exponents: &[i8],
    bits: u32,
    residual: &mut [f32],
    codes: &mut [i16],
) -> Result<(), NonFinite> {
    change.check(residual, exponents);
    check_bits(bits);
    expect_len("merge::contribute", "codes", codes.len(), change.old.len());
    // Nothing may be written before all is known to be finite.
    let mut own = vec![0; exponents.len()];
    self::exponents(path, change, residual, &mut own)?;
    let tasks = change
        .par_chunks()
        .zip(exponents.par_chunks(TASK / BLOCK))
        .zip(residual.par_chunks_mut(TASK).zip(codes.par_chunks_mut(TASK)));
    parallel::run(own.len() * BLOCK, tasks, |((change, exponents), (residual, codes))| {
        dispatch!(path, |s| contribute_task(s, &change, exponents, bits, residual, codes));
    });
    Ok(())
}

#[inline(always)]
fn contribute_task<S: Simd>(
    _: S,
    change: &Contribution<'_>,
    exponents: &[i8],
    bits: u32,
    residual: &mut [f32],
    codes: &mut [i16],
) {
    let max = block::code_max(bits) as f32;
    for (b, (residual, codes)) in residual.chunks_mut(BLOCK).zip(codes.chunks_mut(BLOCK)).enumerate() {
        let e = i32::from(exponents[b]);
        let (to, from) = (block::to_code(bits, e), block::from_code(bits, e));
        let n = residual.len();
        let (old, local) = (&change.old[b * BLOCK..][..n], &change.local[b * BLOCK..][..n]);
        let codes = &mut codes[..n];
        for i in 0..n {
            let v = (old[i] - local[i]) + residual[i];
            let q = block::rni((v * to).clamp(-max, max));
            codes[i] = q as i16;
            residual[i] = v - q as f32 * from;
        }
    }
}

/// As [`super::accumulate`].
pub fn accumulate(sums: &mut [i64], codes: &[i16], weight: u32) {
    expect_len("merge::accumulate", "codes", codes.len(), sums.len());
    parallel::run(codes.len(), sums.par_chunks_mut(TASK).zip(codes.par_chunks(TASK)), |(sums, codes)| {
        for (sum, q) in sums.iter_mut().zip(codes) {
            *sum += i64::from(weight) * i64::from(*q);
        }
    });
}

/// As [`super::outer_step`], on the path asked for.
pub fn outer_step(path: SimdPath, args: &Outer<'_>, p: &mut [f32], buf: &mut [f32]) {
    args.check(p, buf);
    if args.total_weight == 0 {
        return;
    }
    let n = p.len();
    let sums = args.sums.par_chunks(TASK).zip(args.exponents.par_chunks(TASK / BLOCK));
    match args.rule {
        Rule::None => parallel::run(n, sums.zip(p.par_chunks_mut(TASK)), |((sums, exponents), p)| {
            dispatch!(path, |s| plain_task(s, args, sums, exponents, p));
        }),
        Rule::Nesterov { lr, momentum } => {
            let tasks = sums.zip(p.par_chunks_mut(TASK).zip(buf.par_chunks_mut(TASK)));
            parallel::run(n, tasks, |((sums, exponents), (p, buf))| {
                dispatch!(path, |s| nesterov_task(s, args, lr, momentum, sums, exponents, p, buf));
            });
        }
    }
}

#[inline(always)]
fn plain_task<S: Simd>(_: S, args: &Outer<'_>, sums: &[i64], exponents: &[i8], p: &mut [f32]) {
    let weight = args.total_weight as f32;
    for ((sums, e), p) in sums.chunks(BLOCK).zip(exponents).zip(p.chunks_mut(BLOCK)) {
        let from = block::from_code(args.bits, i32::from(*e));
        for (sum, p) in sums.iter().zip(p) {
            *p -= (*sum as f32 * from) / weight;
        }
    }
}

#[inline(always)]
fn nesterov_task<S: Simd>(
    s: S,
    args: &Outer<'_>,
    lr: f32,
    momentum: f32,
    sums: &[i64],
    exponents: &[i8],
    p: &mut [f32],
    buf: &mut [f32],
) {
    let weight = args.total_weight as f32;
    let blocks = sums.chunks(BLOCK).zip(exponents).zip(p.chunks_mut(BLOCK).zip(buf.chunks_mut(BLOCK)));
    for ((sums, e), (p, buf)) in blocks {
        let from = block::from_code(args.bits, i32::from(*e));
        for (sum, (p, buf)) in sums.iter().zip(p.iter_mut().zip(buf)) {
            let d = (*sum as f32 * from) / weight;
            *buf = s.fma1(momentum, *buf, d);
            *p = s.fma1(-lr, s.fma1(momentum, *buf, d), *p);
        }
    }
}
