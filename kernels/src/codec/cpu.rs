//! The CPU path: blocks in parallel, written so that the compiler turns their loops into vectors.

use half::bf16;

use super::{BLOCK, DecodeError, EXPONENT_MAX, EXPONENT_MIN, Format, NonFinite, check, reference};
use crate::common::{
    block, parallel,
    simd::{Simd, SimdPath, dispatch},
};
use rayon::prelude::*;

const BITS: u32 = 8;
/// Elements of one task, a whole number of blocks.
const TASK: usize = 64 * BLOCK;

/// As [`super::encode`], on the path asked for.
pub fn encode(path: SimdPath, format: Format, x: &[f32], bytes: &mut [u8]) -> Result<(), NonFinite> {
    check(format, x.len(), bytes.len());
    if let Some(index) = x.iter().position(|x| !x.is_finite()) {
        return Err(NonFinite { index });
    }
    match format {
        Format::F32 => {
            parallel::run(x.len(), x.par_chunks(TASK).zip(bytes.par_chunks_mut(4 * TASK)), |(x, out)| {
                for (x, out) in x.iter().zip(out.chunks_exact_mut(4)) {
                    out.copy_from_slice(&x.to_le_bytes());
                }
            });
        }
        Format::Bf16 => {
            if let Some(index) = x.iter().position(|x| !bf16::from_f32(*x).is_finite()) {
                return Err(NonFinite { index });
            }
            parallel::run(x.len(), x.par_chunks(TASK).zip(bytes.par_chunks_mut(2 * TASK)), |(x, out)| {
                for (x, out) in x.iter().zip(out.chunks_exact_mut(2)) {
                    out.copy_from_slice(&bf16::from_f32(*x).to_le_bytes());
                }
            });
        }
        Format::Int8 => {
            let (exponents, codes) = bytes.split_at_mut(x.len().div_ceil(BLOCK));
            let tasks = x
                .par_chunks(TASK)
                .zip(exponents.par_chunks_mut(TASK / BLOCK))
                .zip(codes.par_chunks_mut(TASK));
            parallel::run(x.len(), tasks, |((x, exponents), codes)| {
                dispatch!(path, |s| encode_blocks(s, x, exponents, codes));
            });
        }
    }
    Ok(())
}

#[inline(always)]
fn encode_blocks<S: Simd>(_: S, x: &[f32], exponents: &mut [u8], codes: &mut [u8]) {
    let max = block::code_max(BITS) as f32;
    for ((x, e_out), codes) in x.chunks(BLOCK).zip(exponents).zip(codes.chunks_mut(BLOCK)) {
        // The order of magnitudes is the order of their bits.
        let amax = x.iter().fold(0, |amax, x| amax.max(x.to_bits() & 0x7FFF_FFFF));
        let e = block::exponent(f32::from_bits(amax));
        *e_out = e as i8 as u8;
        let factor = block::to_code(BITS, e);
        for (x, q) in x.iter().zip(codes) {
            *q = block::rni((x * factor).clamp(-max, max)) as i8 as u8;
        }
    }
}

/// As [`super::encode_with_feedback`], on the path asked for.
pub fn encode_with_feedback(
    path: SimdPath,
    format: Format,
    x: &[f32],
    residual: &mut [f32],
    bytes: &mut [u8],
) -> Result<(), NonFinite> {
    crate::common::shape::expect_len("codec::encode_with_feedback", "residual", residual.len(), x.len());
    let v: Vec<f32> = x.iter().zip(&*residual).map(|(x, r)| x + r).collect();
    encode(path, format, &v, bytes)?;
    if let Err(error) = decode(path, format, bytes, residual) {
        unreachable!("an encoder's bytes are canonical: {error}");
    }
    for (r, v) in residual.iter_mut().zip(&v) {
        *r = v - *r;
    }
    Ok(())
}

/// As [`super::decode`], on the path asked for.
pub fn decode(path: SimdPath, format: Format, bytes: &[u8], y: &mut [f32]) -> Result<(), DecodeError> {
    if format != Format::Int8 || bytes.len() != format.encoded_len(y.len()) {
        return reference::decode(format, bytes, y);
    }
    let (exponents, codes) = bytes.split_at(y.len().div_ceil(BLOCK));
    let mut canonical = vec![false; y.len().div_ceil(TASK)];
    let tasks = y
        .par_chunks_mut(TASK)
        .zip(exponents.par_chunks(TASK / BLOCK))
        .zip(codes.par_chunks(TASK))
        .zip(canonical.par_iter_mut());
    parallel::run(bytes.len(), tasks, |(((y, exponents), codes), canonical)| {
        *canonical = dispatch!(path, |s| decode_blocks(s, exponents, codes, y));
    });
    // Only bytes that are refused are worth a second, careful look.
    if canonical.contains(&false) { reference::decode(format, bytes, y) } else { Ok(()) }
}

#[inline(always)]
fn decode_blocks<S: Simd>(_: S, exponents: &[u8], codes: &[u8], y: &mut [f32]) -> bool {
    let mut canonical = true;
    for ((e, codes), y) in exponents.iter().zip(codes.chunks(BLOCK)).zip(y.chunks_mut(BLOCK)) {
        let e = i32::from(*e as i8);
        if !(EXPONENT_MIN..=EXPONENT_MAX).contains(&e) {
            return false;
        }
        let largest = codes.iter().fold(0u8, |largest, q| largest.max((*q as i8).unsigned_abs()));
        canonical &= largest < 128 && (largest >= 64 || e == EXPONENT_MIN);
        let factor = block::from_code(BITS, e);
        for (q, y) in codes.iter().zip(y) {
            *y = f32::from(*q as i8) * factor;
        }
    }
    canonical
}
