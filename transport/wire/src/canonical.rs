//! The one byte form of a value that is stored, hashed or compared.

use serde::Serialize;
use spec::Digest;

/// Postcard of `value`: how manifests and evidence lie in the store.
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("a value of ours serialises into memory")
}

/// BLAKE3 of [`to_bytes`]: two machines with equal digests are in the same state.
pub fn digest_of<T: Serialize>(value: &T) -> Digest {
    Digest::of(&to_bytes(value))
}
