//! PTX that lies in the repository, for machines with a driver but no NVRTC: compiled for the oldest architecture, so that
//! every newer device takes it. It is slower there than what NVRTC makes for the device itself, and has the same bits.
//!
//! `kernels/ptx/<room>.ptx.gz` is a first line that names what it was compiled from, and the PTX. One that was compiled
//! from another source or with other options is none. `cargo xtask nvrtc --ptx` writes them.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::Source;
use super::compile::{Image, OPTIONS};

/// What the committed PTX is compiled for.
pub const TARGET: &str = "compute_75";

macro_rules! rooms {
    ($($room:literal)*) => {
        &[$(($room, include_bytes!(concat!("../../ptx/", $room, ".ptx.gz")))),*]
    };
}

const COMMITTED: &[(&str, &[u8])] = rooms! {
    "adamw" "attention" "codec" "cross_entropy" "embedding" "matmul" "merge" "philox" "reduce" "residual" "rms_norm"
    "rope" "swiglu"
};

/// The committed image of `source`, if there is one of this very text.
pub fn image(source: &Source) -> Option<Image> {
    let (_, packed) = COMMITTED.iter().find(|(room, _)| *room == source.name)?;
    Some(Image { ptx: unpack(packed, &first_line(source))?, cubin: Vec::new() })
}

/// The bytes of the file that keeps `ptx`, which is what `source` compiles to for [`TARGET`].
///
/// # Errors
/// None of a writer into memory's own; the compressor's type has them.
pub fn pack(source: &Source, ptx: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(first_line(source).as_bytes())?;
    encoder.write_all(ptx.as_bytes())?;
    encoder.finish()
}

fn unpack(packed: &[u8], first_line: &str) -> Option<String> {
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).ok()?;
    text.strip_prefix(first_line).map(str::to_owned)
}

fn first_line(source: &Source) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in source.pieces.iter().copied().chain(OPTIONS).chain([TARGET]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    format!("// {TARGET}, from {}\n", hasher.finalize().to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_compiled_from_this_text_is_taken() {
        let source = Source { name: "a", pieces: &["text"] };
        let packed = pack(&source, ".version 8.8").unwrap();
        assert_eq!(unpack(&packed, &first_line(&source)).as_deref(), Some(".version 8.8"));
        let other = Source { name: "a", pieces: &["text "] };
        assert_eq!(unpack(&packed, &first_line(&other)), None);
        assert_eq!(unpack(&packed[..packed.len() - 9], &first_line(&source)), None);
        assert_eq!(image(&source), None);
    }
}
