//! The opcode table: every instruction that maps lanes to lanes, by name, types and lane function.
//!
//! The decoder looks opcodes up here, the interpreter calls what it finds, and the conformance test walks the
//! same rows and fails when one was not tried.

mod bits;
mod compare;
mod convert;
mod float;
mod integer;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::lane::LaneOp;

/// All rows.
pub fn rows() -> impl Iterator<Item = &'static LaneOp> {
    let tables: [&'static [&'static [LaneOp]]; 5] =
        [integer::ROWS, bits::ROWS, float::ROWS, compare::ROWS, convert::ROWS];
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

    #[test]
    fn no_opcode_has_two_rows() {
        let mut seen = BTreeMap::new();
        for row in rows() {
            assert!(seen.insert(row.name, ()).is_none(), "{} twice", row.name);
        }
    }
}
