//! A permutation that can be asked at any place without being written down.
//!
//! A Feistel network with Philox as its round function permutes the numbers of `2 * half_bits` bits, the smallest such
//! domain that holds `0..count`; from outside `0..count` it walks on along the cycle until it is inside again. The
//! domain is less than four times `count`, so a walk takes fewer than four steps on average.

use kernels::philox::Stream;

const ROUNDS: u64 = 6;
/// Philox `purpose` of the sample order.
const PURPOSE: u32 = 2;

/// A permutation of `0..count`, fixed by (seed, epoch, pass).
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    seed: u64,
    epoch: u32,
    pass: u64,
    count: u64,
    half_bits: u32,
}

impl Permutation {
    /// The permutation of `0..count` that belongs to a pass over the data.
    pub fn new(seed: u64, epoch: u32, pass: u64, count: u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Self { seed, epoch, pass, count, half_bits: bits.div_ceil(2).max(1) }
    }

    /// Where `slot`, below `count`, goes.
    pub fn at(&self, slot: u64) -> u64 {
        assert!(slot < self.count, "permutation of {} asked at {slot}", self.count);
        let mut x = self.shuffle(slot);
        while x >= self.count {
            x = self.shuffle(x);
        }
        x
    }

    fn shuffle(&self, x: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (self.round(round, right) & mask));
        }
        left << self.half_bits | right
    }

    /// 32 bits suffice for a half: a shard of 2^64 windows does not exist.
    fn round(&self, round: u64, half: u64) -> u64 {
        let [seed_low, seed_high] = halves(self.seed);
        let [pass_low, pass_high] = halves(self.pass);
        let epoch_key = Stream { seed: seed_low, tensor: seed_high, step: self.epoch, purpose: PURPOSE };
        let [a, b, ..] = epoch_key.block(u64::from(pass_low) << 32 | u64::from(pass_high));
        let round_key = Stream { seed: a, tensor: b, step: round as u32, purpose: PURPOSE };
        u64::from(round_key.block(half)[0])
    }
}

/// Low and high 32 bits.
fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}
