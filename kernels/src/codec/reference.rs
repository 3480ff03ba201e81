//! The formats, element by element.

use half::bf16;

use super::{BLOCK, DecodeError, EXPONENT_MAX, EXPONENT_MIN, Format, NonFinite};
use crate::common::block;

const BITS: u32 = 8;

/// As [`super::encode`].
pub fn encode(format: Format, x: &[f32], bytes: &mut [u8]) -> Result<(), NonFinite> {
    if let Some(index) = x.iter().position(|x| !x.is_finite()) {
        return Err(NonFinite { index });
    }
    match format {
        Format::F32 => {
            for (x, out) in x.iter().zip(bytes.chunks_exact_mut(4)) {
                out.copy_from_slice(&x.to_le_bytes());
            }
        }
        Format::Bf16 => {
            for (index, (x, out)) in x.iter().zip(bytes.chunks_exact_mut(2)).enumerate() {
                let rounded = bf16::from_f32(*x);
                if !rounded.is_finite() {
                    return Err(NonFinite { index });
                }
                out.copy_from_slice(&rounded.to_le_bytes());
            }
        }
        Format::Int8 => {
            let (exponents, codes) = bytes.split_at_mut(x.len().div_ceil(BLOCK));
            for ((x, e_out), codes) in x.chunks(BLOCK).zip(exponents).zip(codes.chunks_mut(BLOCK)) {
                let e =
                    block::exponent(x.iter().fold(0.0, |amax, x| crate::common::scalar::max(x.abs(), amax)));
                *e_out = e as i8 as u8;
                for (x, q) in x.iter().zip(codes) {
                    *q = block::quantise(*x, block::to_code(BITS, e), block::code_max(BITS)) as i8 as u8;
                }
            }
        }
    }
    Ok(())
}

/// As [`super::encode_with_feedback`].
pub fn encode_with_feedback(
    format: Format,
    x: &[f32],
    residual: &mut [f32],
    bytes: &mut [u8],
) -> Result<(), NonFinite> {
    let v: Vec<f32> = x.iter().zip(&*residual).map(|(x, r)| x + r).collect();
    encode(format, &v, bytes)?;
    let mut back = vec![0.0; v.len()];
    if let Err(error) = decode(format, bytes, &mut back) {
        unreachable!("an encoder's bytes are canonical: {error}");
    }
    for (r, (v, back)) in residual.iter_mut().zip(v.iter().zip(&back)) {
        *r = v - back;
    }
    Ok(())
}

/// As [`super::decode`].
pub fn decode(format: Format, bytes: &[u8], y: &mut [f32]) -> Result<(), DecodeError> {
    let (count, expected) = (y.len(), format.encoded_len(y.len()));
    if bytes.len() != expected {
        return Err(DecodeError::Length { format, count, expected, found: bytes.len() });
    }
    match format {
        Format::F32 => {
            for (y, b) in y.iter_mut().zip(bytes.chunks_exact(4)) {
                *y = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        Format::Bf16 => {
            for (y, b) in y.iter_mut().zip(bytes.chunks_exact(2)) {
                *y = bf16::from_le_bytes([b[0], b[1]]).to_f32();
            }
        }
        Format::Int8 => {
            let (exponents, codes) = bytes.split_at(count.div_ceil(BLOCK));
            for (index, ((y, e), codes)) in
                y.chunks_mut(BLOCK).zip(exponents).zip(codes.chunks(BLOCK)).enumerate()
            {
                decode_block(index, i32::from(*e as i8), codes, y)?;
            }
        }
    }
    match y.iter().position(|y| !y.is_finite()) {
        Some(index) => Err(DecodeError::NonFinite { index }),
        None => Ok(()),
    }
}

fn decode_block(index: usize, e: i32, codes: &[u8], y: &mut [f32]) -> Result<(), DecodeError> {
    if !(EXPONENT_MIN..=EXPONENT_MAX).contains(&e) {
        return Err(DecodeError::Exponent { block: index, found: e });
    }
    let mut largest = 0;
    for (i, (code, y)) in codes.iter().zip(y).enumerate() {
        let q = i32::from(*code as i8);
        if q == -128 {
            return Err(DecodeError::Code { index: index * BLOCK + i });
        }
        largest = largest.max(q.abs());
        *y = q as f32 * block::from_code(BITS, e);
    }
    if largest < 64 && e != EXPONENT_MIN {
        return Err(DecodeError::NotCanonical { block: index, exponent: e, found: largest });
    }
    Ok(())
}
