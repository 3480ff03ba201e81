//! Local copies of one head's matrices, padded so that the register tile never meets an edge.

use super::{KEY_BLOCK, Shape};

/// Columns are padded to a multiple of this: two vectors of the widest path.
const COLUMNS: usize = 32;

/// Where one head's rows lie in a token-major matrix.
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
}

/// Copies `count` rows of `dim` elements to padded rows of `width`, and clears the padding and `out`'s further rows.
pub(super) fn rows(x: &[f32], at: Rows, row: usize, count: usize, dim: usize, width: usize, out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(width).enumerate() {
        if i < count {
            out[..dim].copy_from_slice(&x[at.first + (row + i) * at.stride..][..dim]);
            out[dim..].fill(0.0);
        } else {
            out.fill(0.0);
        }
    }
}

/// Copies a whole head to blocks of 64 rows, each transposed to `[dim][64]`; missing rows are zeros.
pub(super) fn transposed_blocks(x: &[f32], at: Rows, seq: usize, dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; seq.div_ceil(KEY_BLOCK) * dim * KEY_BLOCK];
    for row in 0..seq {
        let block = &mut out[row / KEY_BLOCK * dim * KEY_BLOCK..][..dim * KEY_BLOCK];
        for (t, x) in x[at.first + row * at.stride..][..dim].iter().enumerate() {
            block[t * KEY_BLOCK + row % KEY_BLOCK] = *x;
        }
    }
    out
}
