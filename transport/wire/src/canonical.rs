//! The one byte form of a value that is stored, hashed or compared.

use serde::Serialize;
use spec::Digest;

/// Most values fit into so many bytes: room that is taken at once rather than byte by byte.
const USUAL_BYTES: usize = 512;

/// Postcard of `value`: how manifests and evidence lie in the store.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let room = Vec::with_capacity(USUAL_BYTES);
    postcard::to_extend(value, room).expect("a value of ours serialises into memory")
}

/// BLAKE3 of [`to_bytes`]: two machines with equal digests are in the same state.
pub fn digest_of<T: Serialize>(value: &T) -> Digest {
    Digest::of(&to_bytes(value))
}
