//! One head of one sequence, inside a token-major matrix.

use super::{KEY_BLOCK, Shape};
use crate::common::{
    simd::Simd,
    tile::{Steps, product},
};

/// Columns are padded to a multiple of this: two vectors of the widest path.
const COLUMNS: usize = 32;

/// The rows of one head.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    data: &'a [f32],
    at: Rows,
    dim: usize,
}

/// Where a head's rows lie.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Offset of row 0.
    pub(super) first: usize,
    /// Elements from row to row.
    pub(super) stride: usize,
}

impl Shape {
    /// Rows of query head `head` of sequence `batch`.
    pub(super) fn query_rows(&self, batch: usize, head: usize) -> Rows {
        let stride = self.heads * self.head_dim;
        Rows { first: batch * self.seq * stride + head * self.head_dim, stride }
    }

    /// Rows of key head `head` of sequence `batch`.
    pub(super) fn key_rows(&self, batch: usize, head: usize) -> Rows {
        let stride = self.kv_heads * self.head_dim;
        Rows { first: batch * self.seq * stride + head * self.head_dim, stride }
    }

    /// Elements of a padded row.
    pub(super) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(COLUMNS)
    }

    /// Elements of padded rows of a block; none where rows can be read where they lie.
    pub(super) fn padding_len(&self) -> usize {
        if self.padded_dim() == self.head_dim { 0 } else { KEY_BLOCK * self.padded_dim() }
    }
}

impl<'a> Head<'a> {
    pub(super) fn new(data: &'a [f32], at: Rows, dim: usize) -> Self {
        Self { data, at, dim }
    }

    /// Row `row`.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        &self.from(row)[..self.dim]
    }

    /// All from row `row` on.
    #[inline(always)]
    fn from(&self, row: usize) -> &'a [f32] {
        &self.data[self.at.first + row * self.at.stride..]
    }

    /// `count` rows as the right operand of a product, and their stride: where they lie, or padded in `room`.
    #[inline(always)]
    pub(super) fn operand<'b>(&self, first: usize, count: usize, room: &'b mut [f32]) -> (&'b [f32], usize)
    where
        'a: 'b,
    {
        if room.is_empty() {
            return (self.from(first), self.at.stride);
        }
        let width = room.len() / KEY_BLOCK;
        for (i, out) in room.chunks_exact_mut(width).take(count).enumerate() {
            out[..self.dim].copy_from_slice(self.row(first + i));
            out[self.dim..].fill(0.0);
        }
        (room, width)
    }

    /// `count` rows transposed to dim x 64; missing rows are zeros.
    #[inline(always)]
    pub(super) fn transpose<S: Simd>(&self, s: S, first: usize, count: usize, out: &mut [f32]) {
        let out = &mut out[..self.dim * KEY_BLOCK];
        let whole = if count == KEY_BLOCK { self.dim / S::LANES * S::LANES } else { 0 };
        for i in (0..KEY_BLOCK).step_by(S::LANES) {
            for t in (0..whole).step_by(S::LANES) {
                let from = &self.from(first + i)[t..];
                let to = t * KEY_BLOCK + i;
                assert!((S::LANES - 1) * self.at.stride + S::LANES <= from.len());
                assert!(to + (S::LANES - 1) * KEY_BLOCK + S::LANES <= out.len());
                // SAFETY: the asserts above bound the square on both sides.
                unsafe { s.transpose(from.as_ptr(), self.at.stride, out[to..].as_mut_ptr(), KEY_BLOCK) };
            }
        }
        for i in 0..KEY_BLOCK {
            for t in whole..self.dim {
                out[t * KEY_BLOCK + i] = if i < count { self.row(first + i)[t] } else { 0.0 };
            }
        }
    }

    /// The products of `count` rows from `first` on with 64 transposed rows: `out[row][column]`. `diagonal` says that
    /// both blocks begin with the same row, and that nobody asks for what stands left of the diagonal.
    #[inline(always)]
    pub(super) fn products<S: Simd>(
        &self,
        s: S,
        (first, count): (usize, usize),
        transposed: &[f32],
        diagonal: bool,
        out: &mut [f32],
    ) {
        let steps = Steps::whole(self.dim);
        let columns = 2 * S::LANES;
        let whole = count / rows::<S>() * rows::<S>();
        for i in 0..count {
            let tall = i < whole;
            if tall && !i.is_multiple_of(rows::<S>()) {
                continue;
            }
            let column = if diagonal { i / columns * columns } else { 0 };
            let a = (self.from(first + i), self.at.stride, 1);
            let b = (&transposed[column..], KEY_BLOCK);
            let c = (&mut out[i * KEY_BLOCK + column..], KEY_BLOCK);
            let width = KEY_BLOCK - column;
            match (tall, rows::<S>()) {
                (true, 8) => product::<S, 8>(s, steps, a, b, c, width, false),
                (true, _) => product::<S, 4>(s, steps, a, b, c, width, false),
                (false, _) => product::<S, 1>(s, steps, a, b, c, width, false),
            }
        }
    }
}

/// Rows of a tile on a path; divides the block.
#[inline(always)]
pub(super) const fn rows<S: Simd>() -> usize {
    if S::TILE_ROWS > 8 { 8 } else { 4 }
}

/// [`product`] of a tile of [`rows`] rows that goes on from what stands in C.
#[inline(always)]
pub(super) fn go_on<S: Simd>(
    s: S,
    steps: Steps,
    a: (&[f32], usize, usize),
    b: (&[f32], usize),
    c: (&mut [f32], usize),
    width: usize,
) {
    match rows::<S>() {
        8 => product::<S, 8>(s, steps, a, b, c, width, true),
        _ => product::<S, 4>(s, steps, a, b, c, width, true),
    }
}

#[inline(always)]
pub(super) fn scale<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for i in (0..x.len()).step_by(S::LANES) {
        s.store(s.mul(s.load(&x[i..]), factor), &mut x[i..]);
    }
}
