//! Inputs of cases: from Philox, so that every machine makes the same ones.

use super::{Buffer, Case, Data, Values};
use crate::philox::{self, Stream};

impl Case {
    /// A buffer of f32 as the case's [`Values`] say.
    pub fn values(&self, name: &'static str, shape: &[usize]) -> Buffer {
        let n = shape.iter().product();
        let mut x = vec![0.0; n];
        philox::normal(&self.stream(name, 0), 0, 1.0, &mut x);
        if self.values == Values::Edge {
            for (i, x) in x.iter_mut().enumerate() {
                *x = edge(self.stream(name, 1).block(i as u64), *x);
            }
        }
        Buffer::new(name, shape, Data::F32(x))
    }

    /// A buffer of f32 in [low, high), whatever the case's [`Values`].
    pub fn between(&self, name: &'static str, shape: &[usize], low: f32, high: f32) -> Buffer {
        let mut x = vec![0.0; shape.iter().product()];
        philox::uniform(&self.stream(name, 2), 0, &mut x);
        for x in &mut x {
            *x = low + *x * (high - low);
        }
        Buffer::new(name, shape, Data::F32(x))
    }

    /// A buffer of integers below `bound`.
    pub fn below(&self, name: &'static str, shape: &[usize], bound: u32) -> Buffer {
        let stream = self.stream(name, 3);
        let n: usize = shape.iter().product();
        let x = (0..n).map(|i| ((u64::from(stream.block(i as u64)[0]) * u64::from(bound)) >> 32) as u32);
        Buffer::new(name, shape, Data::U32(x.collect()))
    }

    /// An output that the op writes whole: filled with a NaN, so that what it leaves out shows.
    pub fn unwritten(&self, name: &'static str, shape: &[usize]) -> Buffer {
        Buffer::new(name, shape, Data::F32(vec![f32::NAN; shape.iter().product()]))
    }

    fn stream(&self, name: &str, purpose: u32) -> Stream {
        Stream { seed: fnv(self.label), tensor: fnv(name), step: 0, purpose }
    }
}

/// Replaces most values by awkward ones: zeros of both signs, subnormals, the edges of the normal range, far exponents.
fn edge(random: [u32; 4], ordinary: f32) -> f32 {
    let sign = random[1] & 0x8000_0000;
    let mantissa = random[2] & 0x007F_FFFF;
    let magnitude = match random[0] >> 29 {
        0 => 0,
        1 => mantissa,
        2 => 0x0080_0000 | mantissa,
        // 2^-50 to 2^50: products and squares stay finite.
        3 | 4 => ((77 + random[3] % 100) << 23) | mantissa,
        5 => 0x3F80_0000,
        _ => return ordinary,
    };
    f32::from_bits(sign | magnitude)
}

/// FNV-1a.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
