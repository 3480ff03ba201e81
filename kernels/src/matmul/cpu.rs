//! The CPU path: a packed SGEMM.
//!
//! B is packed by all workers: panels of a register tile's columns, cut into blocks of k that fit the first-level cache.
//! Then the workers share C by tasks of some rows and some panels. A task walks blocks of k, panels of A, panels of B,
//! and runs the register tile. A is read where it lies when its rows are contiguous in k, else its panel is packed by
//! the task. A block of k stores its chains and the next one goes on from them: the same bits as one long chain.

use super::{
    GRADIENT_TOKENS, Matmul,
    pack::{Block, Layout, Operand},
};
use crate::common::{
    parallel, scratch,
    simd::{Simd, SimdPath, dispatch},
    target::Target,
    tile::{self, From, Operands, Steps, TILE_VECTORS, To},
};

/// Values of B packed at a time, at most (one panel at least): 32 MiB.
const BLOCK_VALUES: usize = 1 << 23;
/// k of one block: a panel of A stays in the first-level cache while panels of B stream by.
const BLOCK_DEPTH: usize = 256;
/// Panels of A of one task.
const TASK_PANELS: usize = 16;
/// Panels of B of one task, at most: they stay in the second-level cache while every panel of A meets them.
const TASK_COLUMN_PANELS: usize = 8;
/// Rows of A this many values apart, or a multiple, fall on the same sets of the first-level cache: packed, then.
const CONFLICTING_STRIDE: usize = 1024;

/// As [`super::nn`], on the path asked for.
pub fn nn(path: SimdPath, args: &Matmul<'_>, c: &mut [f32]) {
    Product::new(path, args, Layout::LaneMajor, Layout::KMajor, c).run(None);
}

/// As [`super::nn_add`], on the path asked for.
pub fn nn_add(path: SimdPath, args: &Matmul<'_>, c: &mut [f32]) {
    let product = Product::new(path, args, Layout::LaneMajor, Layout::KMajor, c);
    product.run(Some(product.output()));
}

/// As [`super::nt`], on the path asked for.
pub fn nt(path: SimdPath, args: &Matmul<'_>, c: &mut [f32]) {
    Product::new(path, args, Layout::LaneMajor, Layout::LaneMajor, c).run(None);
}

/// As [`super::nt_add`], on the path asked for.
pub fn nt_add(path: SimdPath, args: &Matmul<'_>, x: &[f32], c: &mut [f32]) {
    crate::common::shape::expect_len("matmul", "x", x.len(), args.m * args.n);
    Product::new(path, args, Layout::LaneMajor, Layout::LaneMajor, c).run(Some(x.as_ptr()));
}

/// As [`super::tn`], on the path asked for.
pub fn tn(path: SimdPath, args: &Matmul<'_>, c: &mut [f32]) {
    let product = Product::new(path, args, Layout::KMajor, Layout::KMajor, c);
    for chunk in steps(args.k, GRADIENT_TOKENS) {
        product.chunk(chunk, Some(product.output()));
    }
}

/// What is added to the finished chains: C itself, or a matrix like it.
#[derive(Clone, Copy)]
struct Addend(*const f32);

// SAFETY: each element is read by the worker that writes the same element of C, and by no other.
unsafe impl Send for Addend {}
// SAFETY: as above.
unsafe impl Sync for Addend {}

struct Product<'a> {
    path: SimdPath,
    a: Operand<'a>,
    b: Operand<'a>,
    c: Target,
}

/// Some columns of B, in panels.
#[derive(Clone, Copy)]
struct Panels<'a> {
    /// First of the columns, and how many.
    columns: (usize, usize),
    /// Columns of a panel.
    width: usize,
    /// Panels that are read where they lie; those after them are packed.
    in_place: usize,
    /// For each block of k, all packed panels.
    values: &'a [f32],
}

/// What one worker does at a time.
#[derive(Clone, Copy)]
struct Task<'a> {
    /// First row and how many.
    rows: (usize, usize),
    /// First panel of B and how many.
    panels: (usize, usize),
    /// First k and how many.
    chunk: (usize, usize),
    b: Panels<'a>,
    addend: Option<Addend>,
}

/// A tile's extents, and where its chains come from and go.
#[derive(Clone, Copy)]
struct Place {
    height: usize,
    width: usize,
    from: From,
    to: To,
}

impl<'a> Product<'a> {
    fn new(path: SimdPath, args: &Matmul<'a>, a: Layout, b: Layout, c: &mut [f32]) -> Self {
        args.check(c);
        let a = Operand { data: args.a, layout: a, lanes: args.m, k: args.k };
        let b = Operand { data: args.b, layout: b, lanes: args.n, k: args.k };
        Self { path, a, b, c: Target::of(c) }
    }

    /// C as an addend: through the pointer that is written through, so that neither invalidates the other.
    fn output(&self) -> *const f32 {
        self.c.at(0)
    }

    /// All k in one chain, which starts at +0 and is stored or added.
    fn run(&self, addend: Option<*const f32>) {
        self.chunk((0, self.a.k), addend);
    }

    /// Some k in one chain.
    fn chunk(&self, chunk: (usize, usize), addend: Option<*const f32>) {
        let (tile_rows, width) = tile_shape(self.path);
        let (rows, addend) = (self.a.lanes, addend.map(Addend));
        let block_columns = (BLOCK_VALUES / chunk.1.max(1)).max(1);
        for columns in steps(self.b.lanes, block_columns.next_multiple_of(width)) {
            let panels = columns.1.div_ceil(width);
            let in_place = if self.b.in_place(Layout::KMajor) { columns.1 / width } else { 0 };
            let needed = (panels - in_place) * width * chunk.1;
            let mut packed = scratch::take(needed);
            let b = self.pack(columns, (width, in_place), chunk, &mut packed);

            // Equal shares of the panels of A and of B, small enough for the cache, many enough for the workers.
            let work = rows * columns.1 * chunk.1;
            let row_panels = rows.div_ceil(tile_rows);
            let wanted = if work < parallel::SERIAL_WORK { 1 } else { parallel::tasks_wanted() };
            let row_shares = row_panels.div_ceil(TASK_PANELS);
            let column_shares =
                panels.div_ceil(TASK_COLUMN_PANELS).max(wanted.div_ceil(row_shares.max(1))).min(panels);
            let (task_rows, task_panels) =
                (row_panels.div_ceil(row_shares.max(1)) * tile_rows, panels.div_ceil(column_shares));
            let (row_shares, column_shares) = (rows.div_ceil(task_rows.max(1)), panels.div_ceil(task_panels));
            parallel::indices(work, row_shares * column_shares, |index| {
                let (first_row, first_panel) =
                    (index / column_shares * task_rows, index % column_shares * task_panels);
                let task = Task {
                    rows: (first_row, task_rows.min(rows - first_row)),
                    panels: (first_panel, task_panels.min(panels - first_panel)),
                    chunk,
                    b,
                    addend,
                };
                dispatch!(self.path, |s| self.task(s, task));
            });
        }
    }

    /// Packs some columns and some k of B.
    fn pack<'b>(
        &self,
        columns: (usize, usize),
        (width, in_place): (usize, usize),
        chunk: (usize, usize),
        values: &'b mut [f32],
    ) -> Panels<'b> {
        let panels = columns.1.div_ceil(width) - in_place;
        let target = Target::of(values);
        // A task is one block of k, and, where B is not read row by row anyway, one panel.
        let task_panels = match self.b.layout {
            Layout::KMajor => panels.max(1),
            Layout::LaneMajor => 1,
        };
        let per_depth = panels.div_ceil(task_panels);
        let blocks = chunk.1.div_ceil(BLOCK_DEPTH);
        parallel::indices(values.len(), blocks * per_depth, |index| {
            let (first_panel, first_k) = (index % per_depth * task_panels, index / per_depth * BLOCK_DEPTH);
            let depth = BLOCK_DEPTH.min(chunk.1 - first_k);
            let block = Block {
                first_lane: columns.0 + (in_place + first_panel) * width,
                lanes: (task_panels * width).min(columns.1 - (in_place + first_panel) * width),
                width,
                first_k: chunk.0 + first_k,
                depth,
            };
            let offset = (first_k * panels + first_panel * depth) * width;
            // SAFETY: the panels of a block of k lie one behind another, the blocks likewise, `values` holds them all,
            // and this task alone writes these ones.
            let out = unsafe { target.slice(offset, block.values()) };
            dispatch!(self.path, |s| self.b.pack(s, block, out));
        });
        Panels { columns, width, in_place, values }
    }

    /// One worker: some rows, some panels of B, all k of a chunk.
    #[inline(always)]
    fn task<S: Simd>(&self, s: S, task: Task<'_>) {
        let n = self.b.lanes;
        let stride = task.panels.1 * task.b.width;
        // Chains of an unfinished block of k wait in C, or, where C is still to be read, aside.
        let aside = task.addend.is_some() && task.chunk.1 > BLOCK_DEPTH;
        // Arbitrary at first: a task's first block of k writes before the next one reads.
        let mut chains = scratch::take(if aside { task.rows.1 * stride } else { 0 });
        let first_column = task.b.columns.0 + task.panels.0 * task.b.width;
        let kept = if aside { chains.as_mut_ptr() } else { self.c.at(task.rows.0 * n + first_column) };
        let kept_stride = if aside { stride } else { n };
        for first_k in (0..task.chunk.1).step_by(BLOCK_DEPTH) {
            let depth = BLOCK_DEPTH.min(task.chunk.1 - first_k);
            let last = first_k + depth == task.chunk.1;
            self.block(s, &task, (first_k, depth), |row, column, height, width| {
                let (offset, kept) = (
                    (task.rows.0 + row) * n + first_column + column,
                    kept.wrapping_add(row * kept_stride + column),
                );
                let from = if first_k == 0 { From::Zero } else { From::Chain(kept, kept_stride) };
                let to = match (last, task.addend) {
                    (false, _) => To::Store(kept, kept_stride),
                    (true, None) => To::Store(self.c.at(offset), n),
                    (true, Some(Addend(x))) => To::Sum(x.wrapping_add(offset), self.c.at(offset), n),
                };
                Place { height, width, from, to }
            });
        }
        if task.chunk.1 == 0 {
            self.empty_sum(&task, first_column);
        }
    }

    /// A task's tiles for one block of k.
    #[inline(always)]
    fn block<S: Simd>(
        &self,
        s: S,
        task: &Task<'_>,
        (first_k, depth): (usize, usize),
        place: impl Fn(usize, usize, usize, usize) -> Place,
    ) {
        let (tile_rows, width, n) = (S::TILE_ROWS, task.b.width, self.b.lanes);
        let packed_panels = task.b.columns.1.div_ceil(width) - task.b.in_place;
        let whole = task.rows.1 / tile_rows * tile_rows;
        let in_place = if self.a.in_place(Layout::LaneMajor) { whole } else { 0 };
        let rest = Block {
            first_lane: task.rows.0 + in_place,
            lanes: task.rows.1 - in_place,
            width: tile_rows,
            first_k: task.chunk.0 + first_k,
            depth,
        };
        let mut packed = scratch::take(rest.values());
        self.a.pack(s, rest, &mut packed);
        for row in (0..task.rows.1).step_by(tile_rows) {
            let height = tile_rows.min(task.rows.1 - row);
            let (a, a_row, a_k) = if row < in_place {
                let a = &self.a.data[(task.rows.0 + row) * self.a.k + task.chunk.0 + first_k..];
                debug_assert!(a.len() >= (tile_rows - 1) * self.a.k + depth);
                (a, self.a.k, 1)
            } else {
                (&packed[(row - in_place) * depth..][..tile_rows * depth], 1, tile_rows)
            };
            if row + tile_rows < in_place {
                // The next rows of A, while these meet all panels of B.
                for next in (row + tile_rows..).take(tile_rows) {
                    let first = (task.rows.0 + next) * self.a.k + task.chunk.0 + first_k;
                    s.prefetch(&self.a.data[first..][..depth]);
                }
            }
            for panel in task.panels.0..task.panels.0 + task.panels.1 {
                let (b, b_k) = if panel < task.b.in_place {
                    let first = (task.chunk.0 + first_k) * n + task.b.columns.0 + panel * width;
                    (&self.b.data[first..][..(depth - 1) * n + width], n)
                } else {
                    let panel = panel - task.b.in_place;
                    let first = (first_k * packed_panels + panel * depth) * width;
                    (&task.b.values[first..][..depth * width], width)
                };
                let column = (panel - task.panels.0) * width;
                let tile_width = width.min(task.b.columns.1 - panel * width);
                let operands = Operands { a: a.as_ptr(), a_row, a_k, b: b.as_ptr(), b_k };
                // SAFETY: the rows of A are whole where they lie, or padded to the tile; both operands are `depth` deep;
                // the tile is this task's alone.
                unsafe { run_tile(s, depth, operands, place(row, column, height, tile_width)) };
            }
        }
    }

    /// A sum of nothing is +0.
    fn empty_sum(&self, task: &Task<'_>, first_column: usize) {
        let columns = (task.panels.1 * task.b.width).min(self.b.lanes - first_column);
        for row in task.rows.0..task.rows.0 + task.rows.1 {
            for offset in row * self.b.lanes + first_column..row * self.b.lanes + first_column + columns {
                // SAFETY: an element of C, and of the addend, in this task's rows and columns.
                unsafe { *self.c.at(offset) = task.addend.map_or(0.0, |Addend(x)| *x.add(offset) + 0.0) };
            }
        }
    }
}

/// One tile, whole or sticking out of C.
///
/// # Safety
/// `depth` steps of the operands can be read for a whole tile; `place` addresses its height and width, which nobody else
/// touches meanwhile.
#[inline(always)]
unsafe fn run_tile<S: Simd>(s: S, depth: usize, operands: Operands, place: Place) {
    let stride = TILE_VECTORS * S::LANES;
    if place.height == S::TILE_ROWS && place.width == stride {
        // SAFETY: the caller's promise.
        return unsafe { s.tall_tile(depth, operands, place.from, place.to) };
    }
    // Computed whole in a buffer, of which the part inside C is exchanged.
    let mut whole = [0.0f32; TILE_MAX];
    if let From::Chain(chain, row) = place.from {
        for i in 0..place.height {
            for j in 0..place.width {
                // SAFETY: inside the height and width that the caller promises.
                whole[i * stride + j] = unsafe { *chain.add(i * row + j) };
            }
        }
    }
    let (from, to) = (From::Chain(whole.as_ptr(), stride), To::Store(whole.as_mut_ptr(), stride));
    // SAFETY: the caller's promise for the operands; `whole` holds the largest tile of any path. A few rows have lower
    // tiles, whose rows are the first of the tall one's.
    unsafe {
        match place.height {
            1..=4 => tile::run::<S, 4>(s, Steps::whole(depth), operands, from, to),
            5..=8 if S::TILE_ROWS > 8 => tile::run::<S, 8>(s, Steps::whole(depth), operands, from, to),
            _ => s.tall_tile(depth, operands, from, to),
        }
    }
    for i in 0..place.height {
        for j in 0..place.width {
            let chain = whole[i * stride + j];
            // SAFETY: inside the height and width that the caller promises.
            unsafe {
                match place.to {
                    To::Store(c, row) => *c.add(i * row + j) = chain,
                    To::Sum(x, c, row) => *c.add(i * row + j) = *x.add(i * row + j) + chain,
                }
            }
        }
    }
}

impl Operand<'_> {
    /// Whether whole panels are read where they lie.
    fn in_place(&self, layout: Layout) -> bool {
        let stride = match layout {
            Layout::LaneMajor => self.k,
            Layout::KMajor => self.lanes,
        };
        self.layout == layout && !stride.is_multiple_of(CONFLICTING_STRIDE)
    }
}

/// Elements of the largest tile of any path, 14 x 32.
const TILE_MAX: usize = 14 * 32;

/// Rows and columns of the path's register tile.
fn tile_shape(path: SimdPath) -> (usize, usize) {
    dispatch!(path, |s| shape_of(s))
}

#[inline(always)]
fn shape_of<S: Simd>(_: S) -> (usize, usize) {
    (S::TILE_ROWS, TILE_VECTORS * S::LANES)
}

/// (first, count) of the steps that cut `0..n`.
fn steps(n: usize, step: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).step_by(step.max(1)).map(move |first| (first, step.min(n - first)))
}
