//! Tensor cores: `ldmatrix` and `mma.sync`.
//!
//! Products of int8 add up exactly. Products of bfloat16 and binary16 do not add up as any IEEE sum does: the terms of a
//! step and the accumulator are aligned to the largest exponent, truncated there, and added as integers. Devices differ in
//! the length of a step and in the bits kept: class A up to compute capability 8.9, class B from 9.0 on.

use super::check::Touch;
use super::count::{Access, Mode};
use super::fault::Fault;
use super::lane::LANES;
use super::memory::{Address, BlockMemory};
use super::warp_sync::{words, write_words};
use crate::ptx::ast::Space;

/// `ldmatrix`.
#[derive(Debug)]
pub(super) struct LoadMatrix {
    pub address: Address,
    pub transposed: bool,
    /// Offsets of the registers, one for each matrix: 1, 2 or 4.
    pub regs: Vec<u32>,
    pub members: u32,
}

impl LoadMatrix {
    /// Loads.
    ///
    /// # Safety
    /// Registers lie in the frame.
    pub unsafe fn run<M: Mode>(
        &self,
        memory: &mut BlockMemory<'_>,
        regs: *mut u8,
        pc: u32,
    ) -> Result<(), Box<Fault>> {
        // SAFETY: the caller's promise.
        let mut rows = unsafe { self.address.of_lanes(regs) };
        // Eight lanes for each matrix name its rows.
        let mask = u32::MAX >> (LANES - 8 * self.regs.len());
        if M::COUNT {
            memory.count(Space::Shared, Access::Load, &rows, mask, 16, pc);
        }
        memory.resolve::<M>(Space::Shared, &mut rows, mask, 16, Touch::Read)?;
        for (matrix, &dst) in self.regs.iter().enumerate() {
            let element = |row: usize, column: usize| {
                // SAFETY: `resolve` bounded 16 bytes at the address of each row.
                let half = unsafe { (rows[8 * matrix + row] as *const u16).add(column).read_unaligned() };
                u32::from(half)
            };
            let value = |lane: usize| {
                let (slow, fast) = (lane / 4, 2 * (lane % 4));
                if self.transposed {
                    element(fast, slow) | element(fast + 1, slow) << 16
                } else {
                    element(slow, fast) | element(slow, fast + 1) << 16
                }
            };
            // SAFETY: the caller's promise.
            unsafe { write_words(regs, dst, u32::MAX, value) };
        }
        Ok(())
    }
}

/// The numbers of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Signed8,
    Unsigned8,
    Half,
    Brain,
}

impl Element {
    /// Numbers in a register.
    fn per_word(self) -> usize {
        if matches!(self, Self::Signed8 | Self::Unsigned8) { 4 } else { 2 }
    }

    fn bits(self, word: u32, index: usize) -> u32 {
        let width = 32 / self.per_word();
        word >> (width * index) & (u32::MAX >> (32 - width))
    }

    fn integer(self, bits: u32) -> i32 {
        if self == Self::Signed8 { i32::from(bits as u8 as i8) } else { bits as i32 }
    }
}

/// `mma.sync` of m16n8kK: 16 rows, 8 columns.
#[derive(Debug)]
pub(super) struct Mma {
    pub k: usize,
    pub of_a: Element,
    pub of_b: Element,
    /// Integer sums stay within their range instead of wrapping.
    pub saturate: bool,
    pub d: [u32; 4],
    pub a: Vec<u32>,
    pub b: Vec<u32>,
    pub c: [u32; 4],
    pub members: u32,
}

impl Mma {
    /// Registers of A and B that the shape and the elements ask for.
    pub fn registers(k: usize, of: Element) -> (usize, usize) {
        (16 * k / LANES / of.per_word(), 8 * k / LANES / of.per_word())
    }

    /// Multiplies on a device of compute capability `sm`.
    ///
    /// # Safety
    /// Registers lie in the frame.
    pub unsafe fn run(&self, regs: *mut u8, sm: u32) {
        // SAFETY: the caller's promise.
        let load = |places: &[u32]| places.iter().map(|&at| unsafe { words(regs, at) }).collect::<Vec<_>>();
        let (a, b, c) = (load(&self.a), load(&self.b), load(&self.c));
        // Element (row, column) of a fragment: which lane holds it, in which register, at which place.
        let per = self.of_a.per_word();
        let of_a = |row: usize, k: usize| {
            let lane = row % 8 * 4 + k / per % 4;
            let reg = row / 8 + 2 * (k / (4 * per));
            self.of_a.bits(a[reg][lane], k % per)
        };
        let of_b =
            |k: usize, column: usize| self.of_b.bits(b[k / (4 * per)][column * 4 + k / per % 4], k % per);
        let mut out = [[0u32; LANES]; 4];
        for row in 0..16 {
            for column in 0..8 {
                let (reg, lane) = (row / 8 * 2 + column % 2, row % 8 * 4 + column / 2);
                let terms: Vec<(u32, u32)> = (0..self.k).map(|k| (of_a(row, k), of_b(k, column))).collect();
                out[reg][lane] = self.sum(&terms, c[reg][lane], sm);
            }
        }
        for (&at, values) in self.d.iter().zip(&out) {
            // SAFETY: the caller's promise.
            unsafe { write_words(regs, at, u32::MAX, |lane| values[lane]) };
        }
    }

    fn sum(&self, terms: &[(u32, u32)], c: u32, sm: u32) -> u32 {
        match self.of_a {
            Element::Signed8 | Element::Unsigned8 => {
                let product =
                    |&(a, b): &(u32, u32)| i64::from(self.of_a.integer(a)) * i64::from(self.of_b.integer(b));
                let sum = terms.iter().map(product).sum::<i64>() + i64::from(c as i32);
                if self.saturate { sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32 } else { sum as u32 }
            }
            of => {
                let (length, kept) = if sm >= 90 { (16, 25) } else { (8, 24) };
                terms.chunks(length).fold(c, |c, terms| step(of, terms, c, kept))
            }
        }
    }
}

/// A finite number: sign, significand, fraction bits of it, exponent; or one that is not.
#[derive(Clone, Copy)]
struct Parts {
    negative: bool,
    significand: u64,
    fraction: i32,
    exponent: i32,
    infinite: bool,
    nan: bool,
}

fn parts(bits: u32, fraction: u32, exponent: u32) -> Parts {
    let (field, rest) = (bits >> fraction & ((1 << exponent) - 1), bits & ((1 << fraction) - 1));
    let special = field == (1 << exponent) - 1;
    Parts {
        negative: bits >> (fraction + exponent) & 1 != 0,
        significand: u64::from(if field == 0 { rest } else { rest | 1 << fraction }),
        fraction: fraction as i32,
        exponent: field.max(1) as i32 - ((1 << (exponent - 1)) - 1),
        infinite: special && rest == 0,
        nan: special && rest != 0,
    }
}

const NOT_A_NUMBER: u32 = 0x7fff_ffff;

/// One step: products and accumulator aligned to the largest exponent with `kept` bits behind the point, truncated, added
/// exactly, the sum truncated to binary32.
fn step(of: Element, terms: &[(u32, u32)], c: u32, kept: i32) -> u32 {
    let decode = |bits| if of == Element::Half { parts(bits, 10, 5) } else { parts(bits, 7, 8) };
    let product = |&(a, b): &(u32, u32)| {
        let (a, b) = (decode(a), decode(b));
        let zero = |x: &Parts| x.significand == 0 && !x.infinite && !x.nan;
        let infinite = a.infinite || b.infinite;
        Parts {
            negative: a.negative != b.negative,
            significand: a.significand * b.significand,
            fraction: a.fraction + b.fraction,
            exponent: a.exponent + b.exponent,
            infinite,
            nan: a.nan || b.nan || (infinite && (zero(&a) || zero(&b))),
        }
    };
    let all: Vec<Parts> = terms.iter().map(product).chain([parts(c, 23, 8)]).collect();
    let infinity = |negative| all.iter().any(|term| term.infinite && term.negative == negative);
    let (plus, minus) = (infinity(false), infinity(true));
    if all.iter().any(|term| term.nan) || (plus && minus) {
        return NOT_A_NUMBER;
    }
    if plus || minus {
        return if plus { 0x7f80_0000 } else { 0xff80_0000 };
    }
    let there = all.iter().filter(|term| term.significand != 0);
    let floor = if c & 0x7fff_ffff == 0 { -(108 + kept) } else { i32::MIN };
    let largest = there.clone().map(|term| term.exponent).max().unwrap_or(floor).max(floor);
    let sum: i64 = there
        .map(|term| {
            let shift = kept + term.exponent - largest - term.fraction;
            let magnitude = match shift {
                0.. => term.significand << shift,
                -63..=-1 => term.significand >> -shift,
                _ => 0,
            } as i64;
            if term.negative { -magnitude } else { magnitude }
        })
        .sum();
    truncated(sum, largest - kept)
}

/// `sum * 2^scale` in binary32, towards zero.
fn truncated(sum: i64, scale: i32) -> u32 {
    if sum == 0 {
        return 0;
    }
    let (sign, magnitude) = (u32::from(sum < 0) << 31, sum.unsigned_abs());
    let top = scale + 63 - magnitude.leading_zeros() as i32;
    if top >= 128 {
        return sign | 0x7f80_0000;
    }
    let shift = (top - 23).max(-149) - scale;
    let significand = match shift {
        ..=0 => magnitude << -shift,
        1..=63 => magnitude >> shift,
        _ => 0,
    } as u32;
    // A normal number's leading bit carries into the exponent.
    let exponent = if top < -126 { 0 } else { ((top + 126) as u32) << 23 };
    sign | (exponent + significand)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brain(value: f32) -> u32 {
        assert_eq!(value.to_bits() & 0xffff, 0, "{value} is no bfloat16");
        value.to_bits() >> 16
    }

    fn sum(pairs: &[(f32, f32)], c: f32, sm: u32) -> u32 {
        let mut terms: Vec<(u32, u32)> = pairs.iter().map(|&(a, b)| (brain(a), brain(b))).collect();
        terms.resize(16, (0, 0));
        let (length, kept) = if sm >= 90 { (16, 25) } else { (8, 24) };
        terms.chunks(length).fold(c.to_bits(), |c, terms| step(Element::Brain, terms, c, kept))
    }

    /// What devices of both classes were found to answer.
    #[test]
    fn sums_as_hardware_gives_them() {
        let two = |exponent: i32| 2f32.powi(exponent);
        let tiny = (two(-12), two(-12));
        let first = vec![(1.5, 1.5), (two(-12), two(-11)), tiny, tiny];
        let mut second = vec![(2.25, 1.0)];
        second.extend(&first[1..]);
        let mut third = vec![(1.0, 1.0)];
        third.extend([(two(-13), two(-12)); 7]);
        let mut late = vec![(0.0, 0.0); 16];
        late[0] = (1.0, 1.0);
        late[8..].fill(tiny);
        for (pairs, c, a, b) in [
            (&first, 0.0, 0x4010_0001, 0x4010_0001),
            (&second, 0.0, 0x4010_0000, 0x4010_0001),
            (&third, 0.0, 0x3f80_0000, 0x3f80_0001),
            (&vec![(two(-12), -two(-13))], 1.0, 0x3f80_0000, 0x3f7f_ffff),
            (&vec![(two(12), two(12)), (-two(12), two(12)), (0.5, 1.0)], 0.0, 0x0000_0000, 0x3f00_0000),
            (&vec![(two(-70), two(-80)); 2], 0.0, 1, 1),
            (&late, 0.0, 0x3f80_0004, 0x3f80_0004),
        ] {
            assert_eq!((sum(pairs, c, 86), sum(pairs, c, 90)), (a, b), "{pairs:?}, {c}");
        }
    }

    #[test]
    fn what_is_not_finite() {
        assert_eq!(sum(&[(f32::INFINITY, 1.0)], 0.0, 86), 0x7f80_0000);
        assert_eq!(sum(&[(f32::INFINITY, 0.0)], 0.0, 86), NOT_A_NUMBER);
        assert_eq!(sum(&[(f32::INFINITY, 1.0), (1.0, f32::NEG_INFINITY)], 0.0, 90), NOT_A_NUMBER);
        assert_eq!(sum(&[(1.0, 1.0)], f32::NEG_INFINITY, 90), 0xff80_0000);
        assert_eq!(sum(&[(2f32.powi(100), 2f32.powi(100))], 0.0, 90), 0x7f80_0000);
    }
}
