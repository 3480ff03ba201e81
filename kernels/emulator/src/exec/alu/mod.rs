//! The opcode table: every instruction that maps lanes to lanes, by name, types and lane function.
//!
//! The decoder looks opcodes up here, the interpreter calls what it finds, and the conformance test walks the
//! same rows and fails when one was not tried.

mod bits;
mod compare;
mod convert;
mod float;
mod half;
mod integer;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::lane::LaneOp;

/// All rows.
pub fn rows() -> impl Iterator<Item = &'static LaneOp> {
    let tables: [&'static [&'static [LaneOp]]; 6] =
        [integer::ROWS, bits::ROWS, float::ROWS, half::ROWS, compare::ROWS, convert::ROWS];
    tables.into_iter().flatten().copied().flatten()
}

/// The row of an opcode.
pub fn find(name: &str) -> Option<&'static LaneOp> {
    static BY_NAME: OnceLock<BTreeMap<&'static str, &'static LaneOp>> = OnceLock::new();
    BY_NAME.get_or_init(|| rows().map(|row| (row.name, row)).collect()).get(name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lane::{LANES, LaneFn, Slot, Slots, has_fast};
    use crate::exec::memory::Aligned;

    /// What a row makes of pseudo-random registers, the lanes of `mask` active.
    fn outcome(row: &LaneOp, run: LaneFn, mask: u32) -> Vec<u64> {
        let block = Aligned::zeroed(5 * Slot::Double.bytes());
        let words = block.as_ptr().cast::<u64>();
        let mut state = 88_172_645_463_325_252u64;
        for index in 0..5 * LANES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // SAFETY: the block holds so many double words.
            unsafe { words.add(index).write(state) };
        }
        let at = |register: usize| (register * Slot::Double.bytes()) as u32;
        let slots = Slots { dst: at(4), src: [at(0), at(1), at(2), at(3)] };
        // SAFETY: every slot is as large as the largest register, and the caller asked for the CPU's features.
        unsafe {
            run(block.as_ptr(), &slots, mask);
            let found = (0..5 * LANES).map(|index| words.add(index).read());
            // Which not-a-number a binary64 holds is left open.
            let double = row.name.ends_with("f64") || row.name.contains(".f64.");
            found.map(|bits| if double && f64::from_bits(bits).is_nan() { u64::MAX } else { bits }).collect()
        }
    }

    #[test]
    fn both_versions_of_a_row_give_the_same_bits() {
        if !has_fast() {
            println!("not run: this CPU lacks AVX2 or FMA, so there is one version only");
            return;
        }
        for row in rows() {
            for mask in [u32::MAX, 0x8001_f00f] {
                let (plain, fast) = (outcome(row, row.plain, mask), outcome(row, row.fast, mask));
                assert_eq!(plain, fast, "{} under mask {mask:#x}", row.name);
            }
        }
    }

    #[test]
    fn no_opcode_has_two_rows() {
        let mut seen = BTreeMap::new();
        for row in rows() {
            assert!(seen.insert(row.name, ()).is_none(), "{} twice", row.name);
        }
    }
}
