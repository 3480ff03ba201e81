//! Which tiles an output has.

use super::program::{Kind, Op};
use crate::payload::{self, HEADER_LEN};
use std::ops::Range;

/// Rows and columns of a tile of a matrix; values of a tile of anything else.
const SIDE: usize = 128;
const AREA: usize = SIDE * SIDE;

/// An output as a matrix, and how it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Bytes before the first row.
    pub head: usize,
    /// Bytes of an element.
    pub element: usize,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// No tile has rows of two stretches of so many.
    pub period: usize,
    /// Rows of a tile.
    pub tall: usize,
    /// Columns of a tile.
    pub wide: usize,
}

/// A part of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Its rows.
    pub rows: Range<usize>,
    /// Its columns.
    pub cols: Range<usize>,
    /// Whether what stands before the first row belongs to it.
    pub head: bool,
}

impl Grid {
    /// How output `output` of an op is cut.
    pub fn of(op: &Op, output: usize) -> Self {
        let bytes = op.outputs.get(output).map_or(0, |bytes| *bytes as usize);
        let values = bytes / 4;
        let flat = |tall| Self { head: 0, element: 4, rows: values, cols: 1, period: values, tall, wide: 1 };
        // Whole rows, as many as are one tile's worth of values.
        let rows = |cols: usize| {
            let rows = values / cols.max(1);
            Self { head: 0, element: 4, rows, cols, period: rows, tall: tall(cols), wide: cols }
        };
        let matrix = |cols: usize| Self { tall: SIDE, wide: SIDE, ..rows(cols) };
        match &op.kind {
            Kind::Decode(expected) => rows(expected.cols as usize),
            Kind::Encode(expected) => {
                let cols = payload::format(expected.codec).encoded_len(expected.cols as usize);
                let (rows, tall) = (expected.rows as usize, tall(expected.cols as usize));
                Self { head: HEADER_LEN, element: 1, rows, cols, period: rows, tall, wide: cols }
            }
            Kind::Embedding { dim, .. } => rows(*dim),
            Kind::EmbeddingBack { dim, .. } => matrix(*dim),
            Kind::Norm { dim, .. } if output == 0 => rows(*dim),
            // The reciprocal roots, of the same rows.
            Kind::Norm { dim, .. } => flat(tall(*dim)),
            Kind::NormBack { dim, .. } if output == 0 => rows(*dim),
            Kind::NormBack { dim, .. } => matrix(*dim),
            Kind::ProductNt { n, .. } | Kind::ProductNn { n, .. } | Kind::ProductTn { n, .. } => matrix(*n),
            Kind::Rope { seq, heads, head_dim, .. } => Self { period: *seq, ..rows(heads * head_dim) },
            Kind::Attention(shape) => match output {
                0 => Self {
                    period: shape.seq,
                    tall: SIDE,
                    wide: shape.head_dim,
                    ..rows(shape.heads * shape.head_dim)
                },
                _ => Self { period: shape.seq, ..flat(SIDE) },
            },
            Kind::AttentionBack(shape) => {
                let heads = if output == 0 { shape.heads } else { shape.kv_heads };
                Self { period: shape.seq, tall: SIDE, wide: shape.head_dim, ..rows(heads * shape.head_dim) }
            }
            Kind::SwiGlu | Kind::SwiGluBack | Kind::Accumulate | Kind::Scale { .. } | Kind::AdamW(_) => {
                flat(AREA)
            }
            Kind::Loss { vocab, .. } if output == 1 => rows(*vocab),
            Kind::Loss { vocab, .. } => flat(tall(*vocab)),
            Kind::Squares => flat(AREA / kernels::reduce::BLOCK),
            Kind::Mean | Kind::GlobalNorm => {
                Self { head: 0, element: bytes, rows: 1, cols: 1, period: 1, tall: 1, wide: 1 }
            }
            Kind::State { .. } => Self { element: 1, rows: bytes, period: bytes, ..flat(4 * AREA) },
        }
    }

    fn tiles_of_period(&self) -> usize {
        self.period.div_ceil(self.tall.max(1))
    }

    fn tiles_across(&self) -> usize {
        self.cols.div_ceil(self.wide.max(1))
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        let periods = if self.period == 0 { 0 } else { self.rows.div_ceil(self.period) };
        periods * self.tiles_of_period() * self.tiles_across()
    }

    /// Tile `index`.
    pub fn tile(&self, index: usize) -> Option<Tile> {
        if index >= self.tiles() {
            return None;
        }
        let (down, across) = (index / self.tiles_across(), index % self.tiles_across());
        let (period, within) = (down / self.tiles_of_period(), down % self.tiles_of_period());
        let first = period * self.period + within * self.tall;
        let end = (first + self.tall).min((period + 1) * self.period).min(self.rows);
        let left = across * self.wide;
        Some(Tile {
            rows: first..end,
            cols: left..(left + self.wide).min(self.cols),
            head: index == 0 && self.head > 0,
        })
    }

    /// The tile that byte `at` of the output is in.
    pub fn tile_at(&self, at: u64) -> usize {
        let element = (at as usize).saturating_sub(self.head) / self.element.max(1);
        let (row, col) = (element / self.cols.max(1), element % self.cols.max(1));
        let (period, within) = (row / self.period.max(1), row % self.period.max(1));
        (period * self.tiles_of_period() + within / self.tall) * self.tiles_across() + col / self.wide.max(1)
    }

    /// Where the bytes of a tile lie in the output, one after another.
    pub fn bytes(&self, tile: &Tile) -> Vec<Range<u64>> {
        let head = tile.head.then_some(0..self.head as u64);
        let place = |row: usize, col: usize| (self.head + (row * self.cols + col) * self.element) as u64;
        let whole = tile.cols.len() == self.cols && !tile.rows.is_empty();
        let body: Vec<Range<u64>> = match whole {
            true => std::iter::once(place(tile.rows.start, 0)..place(tile.rows.end, 0)).collect(),
            false => {
                let row = |row| place(row, tile.cols.start)..place(row, tile.cols.end);
                tile.rows.clone().map(row).collect()
            }
        };
        head.into_iter().chain(body).collect()
    }
}

fn tall(cols: usize) -> usize {
    (AREA / cols.max(1)).clamp(1, SIDE)
}
