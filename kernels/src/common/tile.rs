//! The register tile of every matrix product: ROWS rows by two vectors of columns, a chain of fused multiply-adds per
//! element, k ascending.

use super::simd::Simd;

/// Vectors of a tile's row.
pub(crate) const TILE_VECTORS: usize = 2;

/// The two operands of a tile: element (i, k) of A at `a + i * a_row + k * a_k`, row k of B (two vectors) at
/// `b + k * b_k`.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_k: usize,
    pub(crate) b: *const f32,
    pub(crate) b_k: usize,
}

/// Where a tile's chains come from.
#[derive(Clone, Copy)]
pub(crate) enum From {
    /// They start at +0.
    Zero,
    /// They go on from here; row stride in elements.
    Chain(*const f32, usize),
}

/// Where a tile's chains go.
#[derive(Clone, Copy)]
pub(crate) enum To {
    /// They are kept here; row stride in elements.
    Store(*mut f32, usize),
    /// The second place gets the first's value plus the chain; both may be one. Row stride in elements.
    Sum(*const f32, *mut f32, usize),
}

/// How many steps a tile takes.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    /// First steps, fewer than rows: step i updates rows 0..=i.
    pub(crate) head: usize,
    /// Then steps of all rows.
    pub(crate) whole: usize,
    /// Last steps, fewer than rows: step i updates rows i + 1 and on.
    pub(crate) tail: usize,
}

impl Steps {
    /// All rows take part in all steps.
    pub(crate) fn whole(depth: usize) -> Self {
        Self { head: 0, whole: depth, tail: 0 }
    }

    fn all(&self) -> usize {
        self.head + self.whole + self.tail
    }
}

/// Runs the steps of a tile.
///
/// # Safety
/// All steps of the operands can be read; `from` and `to` address ROWS rows of two vectors at their stride, which nobody
/// else touches meanwhile.
#[inline(always)]
pub(crate) unsafe fn run<S: Simd, const ROWS: usize>(
    s: S,
    steps: Steps,
    operands: Operands,
    from: From,
    to: To,
) {
    let Operands { mut a, a_row, a_k, mut b, b_k } = operands;
    let mut acc = [[s.splat(0.0); TILE_VECTORS]; ROWS];
    if let From::Chain(c, stride) = from {
        for i in 0..ROWS {
            for j in 0..TILE_VECTORS {
                // SAFETY: row i, vector j of the tile, readable by contract.
                acc[i][j] = unsafe { s.load_ptr(c.add(i * stride + j * S::LANES)) };
            }
        }
    }
    // One step of some rows. A macro, because the loops over rows must be unrolled for the chains to stay in registers.
    macro_rules! step {
        ($rows:expr) => {
            // SAFETY: a step of both operands, which can be read by contract. The last step moves the pointers beyond what
            // can be read, so they move by wrapping arithmetic.
            unsafe {
                let b0 = s.load_ptr(b);
                let b1 = s.load_ptr(b.add(S::LANES));
                for i in $rows {
                    let x = s.splat(*a.add(i * a_row));
                    acc[i][0] = s.fma(x, b0, acc[i][0]);
                    acc[i][1] = s.fma(x, b1, acc[i][1]);
                }
            }
            a = a.wrapping_add(a_k);
            b = b.wrapping_add(b_k);
        };
    }
    for step in 0..ROWS - 1 {
        if step < steps.head {
            step!(0..step + 1);
        }
    }
    for _ in 0..steps.whole {
        step!(0..ROWS);
    }
    for step in 0..ROWS - 1 {
        if step < steps.tail {
            step!(step + 1..ROWS);
        }
    }
    for i in 0..ROWS {
        for j in 0..TILE_VECTORS {
            // SAFETY: row i, vector j of the tile, readable and writable by contract.
            unsafe {
                match to {
                    To::Store(c, stride) => s.store_ptr(acc[i][j], c.add(i * stride + j * S::LANES)),
                    To::Sum(x, c, stride) => {
                        let offset = i * stride + j * S::LANES;
                        s.store_ptr(s.add(s.load_ptr(x.add(offset)), acc[i][j]), c.add(offset));
                    }
                }
            }
        }
    }
}

/// A small product on slices: `c[i][j] = (chain ? c[i][j] : 0) + …` over the steps, for ROWS rows and `width` columns, a
/// multiple of two vectors. A's element (i, k) stands at `i * a_row + k * a_k`, B's rows are `b_k` apart, C's `c_row`.
#[inline(always)]
pub(crate) fn product<S: Simd, const ROWS: usize>(
    s: S,
    steps: Steps,
    (a, a_row, a_k): (&[f32], usize, usize),
    (b, b_k): (&[f32], usize),
    (c, c_row): (&mut [f32], usize),
    width: usize,
    chain: bool,
) {
    let columns = TILE_VECTORS * S::LANES;
    assert!(width.is_multiple_of(columns) && width > 0);
    assert!((ROWS - 1) * c_row + width <= c.len());
    if let Some(last) = steps.all().checked_sub(1) {
        assert!((ROWS - 1) * a_row + last * a_k < a.len());
        assert!(last * b_k + width <= b.len());
    }
    for first in (0..width).step_by(columns) {
        let operands = Operands { a: a.as_ptr(), a_row, a_k, b: b.as_ptr().wrapping_add(first), b_k };
        let c = c.as_mut_ptr().wrapping_add(first);
        let from = if chain { From::Chain(c, c_row) } else { From::Zero };
        // SAFETY: the asserts above bound every element that the tile reads and writes; `c` is borrowed exclusively.
        unsafe { run::<S, ROWS>(s, steps, operands, from, To::Store(c, c_row)) };
    }
}
