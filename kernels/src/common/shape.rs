//! Shape checks. A wrong length is a bug of the caller, so it panics, and says which slice and which numbers.

/// Panics unless slice `what` of op `op` holds `expected` elements.
#[track_caller]
pub fn expect_len(op: &str, what: &str, found: usize, expected: usize) {
    assert!(found == expected, "{op}: slice `{what}` holds {found} elements, the shape asks for {expected}");
}

/// Panics unless the workspace of op `op` holds at least `expected` elements.
#[track_caller]
pub fn expect_workspace(op: &str, found: usize, expected: usize) {
    assert!(found >= expected, "{op}: the workspace holds {found} elements, the shape asks for {expected}");
}
