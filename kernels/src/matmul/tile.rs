//! The register tile: `S::TILE_ROWS` rows by two vectors of columns, a chain of fused multiply-adds per element.

use crate::common::simd::Simd;

/// Vectors of a tile's row.
pub(super) const TILE_VECTORS: usize = 2;
/// Elements of the largest tile of any path, 14 x 32.
pub(super) const TILE_MAX: usize = 14 * 32;

/// Where a tile's chains come from.
#[derive(Clone, Copy)]
pub(super) enum From {
    /// They start at +0.
    Zero,
    /// They go on from here; row stride in elements.
    Chain(*const f32, usize),
}

/// Where a tile's chains go.
#[derive(Clone, Copy)]
pub(super) enum To {
    /// They are kept here; row stride in elements.
    Store(*mut f32, usize),
    /// They are added to what stands here; row stride in elements.
    Add(*mut f32, usize),
}

/// Runs `depth` steps of a whole tile: `a` is depth x ROWS, `b` depth x 2*LANES.
///
/// # Safety
/// `a` and `b` hold a whole panel of `depth`; `from` and `to` address ROWS rows of 2*LANES elements at their stride,
/// which nobody else touches meanwhile.
#[inline(always)]
pub(super) unsafe fn run<S: Simd, const ROWS: usize>(
    s: S,
    depth: usize,
    a: *const f32,
    b: *const f32,
    from: From,
    to: To,
) {
    let mut acc = [[s.splat(0.0); TILE_VECTORS]; ROWS];
    if let From::Chain(c, stride) = from {
        for i in 0..ROWS {
            for j in 0..TILE_VECTORS {
                // SAFETY: row i, vector j of the tile, readable by contract.
                acc[i][j] = unsafe { s.load_ptr(c.add(i * stride + j * S::LANES)) };
            }
        }
    }
    let (mut a, mut b) = (a, b);
    for _ in 0..depth {
        // SAFETY: step k of both panels, of which there are `depth`.
        unsafe {
            let b0 = s.load_ptr(b);
            let b1 = s.load_ptr(b.add(S::LANES));
            for i in 0..ROWS {
                let x = s.splat(*a.add(i));
                acc[i][0] = s.fma(x, b0, acc[i][0]);
                acc[i][1] = s.fma(x, b1, acc[i][1]);
            }
            a = a.add(ROWS);
            b = b.add(TILE_VECTORS * S::LANES);
        }
    }
    for i in 0..ROWS {
        for j in 0..TILE_VECTORS {
            // SAFETY: row i, vector j of the tile, readable and writable by contract.
            unsafe {
                match to {
                    To::Store(c, stride) => s.store_ptr(acc[i][j], c.add(i * stride + j * S::LANES)),
                    To::Add(c, stride) => {
                        let c = c.add(i * stride + j * S::LANES);
                        s.store_ptr(s.add(s.load_ptr(c), acc[i][j]), c);
                    }
                }
            }
        }
    }
}
