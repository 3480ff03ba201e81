//! Everything that varies, drawn from the seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::ops::Range;

/// A stream of draws. Each user has a stream of its own, so that one draw more here moves nothing there.
#[derive(Debug, Clone)]
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream called `name` of `seed`.
    pub fn of(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("iota sim chance v1");
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A number of `range`, which is not empty. The bias of the remainder is nobody's concern here.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.0.next_u64() % (range.end - range.start)
    }

    /// 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
