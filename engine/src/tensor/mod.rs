//! Tensors: a shape and contiguous f32 values, row-major.
//!
//! A tensor owns its values and is moved, never copied behind the reader's back: there is no `Clone`. A [`View`]
//! borrows values of someone else, for example one parameter out of a stage's flat array.

mod pool;

use rayon::prelude::*;

/// Values of one piece of work when a pass over an array is shared among threads; elementwise, so any cut gives the same
/// bits.
const PIECE: usize = 1 << 16;

/// Values of a shape, owned.
#[derive(Debug, PartialEq)]
pub struct Tensor {
    /// Extents, of which the first `rank` count; in place, so that making a tensor allocates nothing but its values.
    shape: [usize; RANK_MAX],
    rank: usize,
    data: Vec<f32>,
}

/// Token ids, owned.
#[derive(Debug, PartialEq, Eq)]
pub struct Tokens(Vec<u32>);

impl Tokens {
    /// The tokens that `at` says, of positions from 0.
    ///
    /// # Errors
    /// The first that `at` returns.
    pub fn try_from_fn<E>(len: usize, mut at: impl FnMut(usize) -> Result<u32, E>) -> Result<Self, E> {
        let mut tokens = Self(pool::take(len));
        for (position, token) in tokens.0.iter_mut().enumerate() {
            *token = at(position)?;
        }
        Ok(tokens)
    }

    /// A copy of a slice.
    pub fn copy_of(tokens: &[u32]) -> Self {
        let mut copy = Self(pool::take(tokens.len()));
        copy.0.copy_from_slice(tokens);
        copy
    }
}

impl std::ops::Deref for Tokens {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        &self.0
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.0));
    }
}

/// Axes of the highest tensor.
const RANK_MAX: usize = 2;

/// Values of a shape, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Extents, slowest first.
    pub shape: &'a [usize],
    /// Values, row-major.
    pub data: &'a [f32],
}

impl Tensor {
    /// A tensor of `shape` that holds `data`.
    ///
    /// # Panics
    /// When the number of values contradicts the shape.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        let expected: usize = shape.iter().product();
        assert_eq!(data.len(), expected, "tensor of shape {shape:?}: number of values");
        assert!(shape.len() <= RANK_MAX, "tensor of shape {shape:?}: at most {RANK_MAX} axes");
        let mut extents = [1; RANK_MAX];
        extents[..shape.len()].copy_from_slice(shape);
        Self { shape: extents, rank: shape.len(), data }
    }

    /// A tensor that a kernel is about to write completely: until then its values are arbitrary.
    pub fn unwritten(shape: &[usize]) -> Self {
        Self::new(shape, pool::take(shape.iter().product()))
    }

    /// A tensor with the values of a view.
    pub fn copy_of(view: View<'_>) -> Self {
        let mut copy = Self::unwritten(view.shape);
        copy.data.copy_from_slice(view.data);
        copy
    }

    /// Extents, slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank]
    }

    /// Values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Values, to be written.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The extent of the fastest axis.
    pub fn cols(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }

    /// The product of all other extents.
    pub fn rows(&self) -> usize {
        self.shape().split_last().map_or(1, |(_, slower)| slower.iter().product())
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.cols()..][..self.cols()]
    }

    /// The whole tensor, borrowed.
    pub fn view(&self) -> View<'_> {
        View { shape: self.shape(), data: &self.data }
    }

    /// Whether no value is a NaN or an infinity.
    pub fn is_finite(&self) -> bool {
        all_finite(&self.data)
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.data));
    }
}

/// Whether no value is a NaN or an infinity.
pub fn all_finite(values: &[f32]) -> bool {
    // An exponent of all ones, and nothing else, is NaN or infinite. No early exit in a piece: it becomes vector code.
    const EXPONENT: u32 = 0x7F80_0000;
    values
        .par_chunks(PIECE)
        .all(|piece| !piece.iter().fold(false, |bad, v| bad | (v.to_bits() & EXPONENT == EXPONENT)))
}

/// Whether the magnitude of every value is below a positive `bound`; a NaN's is not.
pub fn all_below(values: &[f32], bound: f32) -> bool {
    // Magnitudes compare like their bits, and those of a NaN are the largest.
    let bound = bound.to_bits();
    values
        .par_chunks(PIECE)
        .all(|piece| !piece.iter().fold(false, |beyond, v| beyond | (v.to_bits() & 0x7FFF_FFFF >= bound)))
}

/// Overwrites all of `to` with `from`, which is as long.
pub fn copy(to: &mut [f32], from: &[f32]) {
    to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// Overwrites all values with +0.
pub fn clear(values: &mut [f32]) {
    values.par_chunks_mut(PIECE).for_each(|piece| piece.fill(0.0));
}
