//! Philox4x32-10, word by word.

use super::Stream;

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The four words of a counter under a key.
pub fn block(mut key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let mut c = counter;
    for _ in 0..ROUNDS {
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c
}

impl Stream {
    /// The four words of block `index`.
    pub fn block(&self, index: u64) -> [u32; 4] {
        block([self.seed, self.tensor], [self.step, index as u32, self.purpose, (index >> 32) as u32])
    }

    fn uniform_at(&self, element: u64) -> f32 {
        to_uniform(self.block(element / 4)[(element % 4) as usize])
    }
}

/// A word as a number in [0, 1).
pub fn to_uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// As [`super::uniform`].
pub fn uniform(stream: &Stream, first: u64, out: &mut [f32]) {
    for (i, x) in out.iter_mut().enumerate() {
        *x = stream.uniform_at(first + i as u64);
    }
}

/// As [`super::normal`].
pub fn normal(stream: &Stream, first: u64, std: f32, out: &mut [f32]) {
    for (i, x) in out.iter_mut().enumerate() {
        let element = first + i as u64;
        let mut sum = stream.uniform_at(12 * element);
        for j in 1..12 {
            sum += stream.uniform_at(12 * element + j);
        }
        *x = (sum - 6.0) * std;
    }
}
