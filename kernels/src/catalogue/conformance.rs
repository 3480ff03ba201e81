//! The conformance set: one BLAKE3 hash per op, over all its cases on fixed seeds. Every device computes it when it
//! starts and is refused if it deviates from the committed list.

use super::{Buffers, Case, Data, OPS, Op};
use crate::SimdPath;

/// The committed hashes, `op hash` per line.
pub const GOLDEN: &str = include_str!("../../conformance.txt");

/// An op whose hash is not the committed one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "op {op} hashes to {found}, the conformance set says {expected}: this device does not keep the arithmetic"
)]
pub struct Deviation {
    /// Op.
    pub op: &'static str,
    /// Committed hash, hex; `nothing` for an op that is not in the list.
    pub expected: String,
    /// Hash found, hex.
    pub found: String,
}

/// The hashes of this CPU, on its fastest path.
pub fn conformance() -> Vec<(&'static str, blake3::Hash)> {
    OPS.iter()
        .map(|op| {
            (op.name(), hash(*op, |case, inputs, outputs| op.cpu(SimdPath::best(), case, inputs, outputs)))
        })
        .collect()
}

/// Compares hashes with the committed list; ops that `hashes` leaves out are not judged.
pub fn deviations(hashes: &[(&'static str, blake3::Hash)]) -> Vec<Deviation> {
    hashes
        .iter()
        .filter_map(|(op, hash)| {
            let expected = golden(op).unwrap_or("nothing");
            let found = hash.to_hex();
            (expected != found.as_str()).then(|| Deviation {
                op,
                expected: expected.to_owned(),
                found: found.to_string(),
            })
        })
        .collect()
}

/// The hash of `op` as `run` computes it: per case its label, and per output its name, length and bytes, little-endian,
/// every NaN as 0x7FC00000.
pub fn hash(op: &dyn Op, run: impl Fn(&Case, &Buffers, &mut Buffers)) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for case in op.cases() {
        let mut outputs = op.outputs(&case);
        run(&case, &op.inputs(&case), &mut outputs);
        hasher.update(case.label.as_bytes());
        for buffer in &outputs.0 {
            hasher.update(buffer.name.as_bytes());
            hasher.update(&(buffer.data.len() as u64).to_le_bytes());
            update(&mut hasher, &buffer.data);
        }
    }
    hasher.finalize()
}

fn update(hasher: &mut blake3::Hasher, data: &Data) {
    let mut bytes = Vec::with_capacity(data.bytes().len());
    match data {
        Data::F32(v) => v.iter().for_each(|x| {
            let x = if x.is_nan() { f32::from_bits(0x7FC0_0000) } else { *x };
            bytes.extend(x.to_le_bytes());
        }),
        Data::F64(v) => v.iter().for_each(|x| {
            let x = if x.is_nan() { f64::from_bits(0x7FF8_0000_0000_0000) } else { *x };
            bytes.extend(x.to_le_bytes());
        }),
        Data::U32(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::I64(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::I16(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::I8(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
        Data::U8(v) => bytes.extend(v),
    }
    hasher.update(&bytes);
}

fn golden(op: &str) -> Option<&'static str> {
    GOLDEN.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == op).map(|(_, hash)| hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole list as this CPU would write it, for a reviewed change of the contract.
    fn rewritten() -> String {
        conformance().iter().map(|(op, hash)| format!("{op} {}\n", hash.to_hex())).collect()
    }

    #[test]
    fn this_cpu_keeps_the_conformance_set() {
        let deviations = deviations(&conformance());
        assert!(deviations.is_empty(), "{deviations:#?}\nconformance.txt would be:\n{}", rewritten());
    }

    #[test]
    fn the_list_names_every_op_once() {
        let listed: Vec<&str> = GOLDEN.lines().filter_map(|line| Some(line.split_once(' ')?.0)).collect();
        assert_eq!(listed, OPS.iter().map(|op| op.name()).collect::<Vec<_>>());
    }
}
