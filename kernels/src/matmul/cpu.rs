//! The CPU path: a packed SGEMM.
//!
//! Loops, outside in: columns by `BLOCK_COLUMNS`, k by `BLOCK_DEPTH` (B is packed here, by all workers), then in
//! parallel blocks of rows (A is packed here, by the worker), panels of B (first-level cache), panels of A, the register
//! tile. A block of k stores its chains and the next one goes on from them: the same bits as one long chain. For the
//! weight gradient the chains of an unfinished chunk are kept aside, and the chunk's last block adds them to C.

use super::{
    GRADIENT_TOKENS, Matmul,
    pack::{Layout, Operand},
};
use crate::common::{
    parallel,
    simd::{Simd, SimdPath, dispatch},
    tile::{self, From, Operands, TILE_VECTORS, To},
};
use std::cell::Cell;

/// Columns of B packed at a time.
const BLOCK_COLUMNS: usize = 4096;
/// k of one block: a panel of B fits the first-level cache beside a panel of A.
const BLOCK_DEPTH: usize = 256;
/// Panels of A of one task.
const TASK_PANELS: usize = 8;
/// Tasks wanted per worker, so that a slow one does not hold up the rest.
const TASKS_PER_WORKER: usize = 4;

thread_local! {
    /// Packed B of the calling thread, kept between calls: fresh pages cost more than packing.
    static PACKED_B: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// Packed A of a worker.
    static PACKED_A: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// Unfinished chains of the calling thread.
    static KEPT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// As [`super::nn`], on the path asked for.
pub fn nn(path: SimdPath, args: &Matmul<'_>, c: &mut [f32]) {
    args.check(c);
    if args.k == 0 {
        return c.fill(0.0);
    }
    let a = Operand { data: args.a, layout: Layout::LaneMajor, lanes: args.m, k: args.k };
    let b = Operand { data: args.b, layout: Layout::KMajor, lanes: args.n, k: args.k };
    Product { path, a, b, c: Target(c.as_mut_ptr()) }.store();
}

/// As [`super::nt`], on the path asked for.
pub fn nt(path: SimdPath, args: &Matmul<'_>, c: &mut [f32]) {
    args.check(c);
    if args.k == 0 {
        return c.fill(0.0);
    }
    let a = Operand { data: args.a, layout: Layout::LaneMajor, lanes: args.m, k: args.k };
    let b = Operand { data: args.b, layout: Layout::LaneMajor, lanes: args.n, k: args.k };
    Product { path, a, b, c: Target(c.as_mut_ptr()) }.store();
}

/// As [`super::tn`], on the path asked for.
pub fn tn(path: SimdPath, args: &Matmul<'_>, c: &mut [f32]) {
    args.check(c);
    let a = Operand { data: args.a, layout: Layout::KMajor, lanes: args.m, k: args.k };
    let b = Operand { data: args.b, layout: Layout::KMajor, lanes: args.n, k: args.k };
    Product { path, a, b, c: Target(c.as_mut_ptr()) }.accumulate();
}

/// A matrix that several workers write, each its own tiles.
#[derive(Clone, Copy)]
struct Target(*mut f32);

// SAFETY: workers write disjoint tiles, see `Product::block`.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// The pointer; a method, so that closures capture the whole `Target`.
    fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

struct Product<'a> {
    path: SimdPath,
    a: Operand<'a>,
    b: Operand<'a>,
    c: Target,
}

/// How one block of k treats its chains.
#[derive(Clone, Copy)]
struct Flow {
    /// Chains go on from here, or start at +0.
    from: Option<Target>,
    /// Chains are kept here, or added to C.
    to: Option<Target>,
}

impl Product<'_> {
    /// `C = A * B`.
    fn store(&self) {
        for columns in steps(self.b.lanes, BLOCK_COLUMNS) {
            for depth in steps(self.a.k, BLOCK_DEPTH) {
                let from = (depth.0 > 0).then_some(self.c);
                self.block(columns, depth, Flow { from, to: Some(self.c) });
            }
        }
    }

    /// `C += A * B`, one add per chunk of `GRADIENT_TOKENS`.
    fn accumulate(&self) {
        // Unfinished chains, in the layout of C. One block of k per chunk needs none.
        let kept = if self.a.k > BLOCK_DEPTH { self.a.lanes * self.b.lanes } else { 0 };
        let mut buffer = KEPT.take();
        // Never shorter than it was, and never cleared: a chunk's first block writes before the next one reads.
        buffer.resize(kept.max(buffer.len()), 0.0);
        let kept = Target(buffer.as_mut_ptr());
        for columns in steps(self.b.lanes, BLOCK_COLUMNS) {
            for chunk in steps(self.a.k, GRADIENT_TOKENS) {
                for depth in steps(chunk.1, BLOCK_DEPTH) {
                    let from = (depth.0 > 0).then_some(kept);
                    let to = (depth.0 + depth.1 < chunk.1).then_some(kept);
                    self.block(columns, (chunk.0 + depth.0, depth.1), Flow { from, to });
                }
            }
        }
        KEPT.set(buffer);
    }

    /// All rows, some columns, some k.
    fn block(&self, columns: (usize, usize), depth: (usize, usize), flow: Flow) {
        let rows = self.a.lanes;
        let work = rows * columns.1 * depth.1;
        let (tile_rows, tile_columns) = tile_shape(self.path);
        let panels_b = columns.1.div_ceil(tile_columns);
        let mut packed_b = PACKED_B.take();
        let needed = panels_b * tile_columns * depth.1;
        // Growing clears what is new: what was grown once stays.
        packed_b.resize(needed.max(packed_b.len()), 0.0);
        let panels = packed_b[..needed].chunks_mut(tile_columns * depth.1).enumerate();
        parallel::run(columns.1 * depth.1, panels, |(panel, out)| {
            let first = columns.0 + panel * tile_columns;
            self.b.pack_panel(first, tile_columns, depth.0, depth.1, out);
        });

        // Few rows: cut the columns too, so that every worker has tasks; each packs its rows of A again.
        let row_blocks = steps(rows, TASK_PANELS * tile_rows).count();
        let wanted = TASKS_PER_WORKER * rayon::current_num_threads();
        let cuts = if work < PARALLEL_WORK { 1 } else { (wanted / row_blocks.max(1)).clamp(1, panels_b) };
        let cut_panels = panels_b.div_ceil(cuts);
        let tasks = steps(rows, TASK_PANELS * tile_rows)
            .flat_map(|rows| steps(panels_b, cut_panels).map(move |panels| (rows, panels)));
        let packed = &packed_b[..needed];
        parallel::run(work, tasks, |(rows, panels)| {
            dispatch!(self.path, |s| self.task(s, rows, columns, panels, depth, packed, flow));
        });
        PACKED_B.set(packed_b);
    }

    /// Some rows, some panels of B, some k: one worker.
    #[inline(always)]
    fn task<S: Simd>(
        &self,
        s: S,
        rows: (usize, usize),
        columns: (usize, usize),
        panels: (usize, usize),
        depth: (usize, usize),
        packed_b: &[f32],
        flow: Flow,
    ) {
        let (tile_rows, tile_columns) = (S::TILE_ROWS, TILE_VECTORS * S::LANES);
        let n = self.b.lanes;
        let mut packed_a = PACKED_A.take();
        let needed = rows.1.div_ceil(tile_rows) * tile_rows * depth.1;
        packed_a.resize(needed.max(packed_a.len()), 0.0);
        for (panel, out) in packed_a[..needed].chunks_mut(tile_rows * depth.1).enumerate() {
            self.a.pack_panel(rows.0 + panel * tile_rows, tile_rows, depth.0, depth.1, out);
        }
        for panel_b in panels.0..panels.0 + panels.1 {
            let b = &packed_b[panel_b * tile_columns * depth.1..][..tile_columns * depth.1];
            let first_column = columns.0 + panel_b * tile_columns;
            let width = tile_columns.min(columns.0 + columns.1 - first_column);
            for (panel_a, a) in packed_a[..needed].chunks_exact(tile_rows * depth.1).enumerate() {
                let first_row = rows.0 + panel_a * tile_rows;
                let height = tile_rows.min(rows.0 + rows.1 - first_row);
                let offset = first_row * n + first_column;
                if height == tile_rows && width == tile_columns {
                    let from = flow.from.map_or(From::Zero, |c| From::Chain(c.at(offset), n));
                    let to = flow.to.map_or(To::Add(self.c.at(offset), n), |c| To::Store(c.at(offset), n));
                    // SAFETY: both panels are `depth.1` deep; the whole tile lies inside C (and inside `kept`, which has
                    // C's layout), and no other task has its rows and columns.
                    unsafe { run_tile(s, depth.1, a, b, from, to) };
                } else {
                    self.edge_tile(s, depth.1, a, b, offset, (height, width), flow);
                }
            }
        }
        PACKED_A.set(packed_a);
    }

    /// A tile that sticks out of C: computed whole in a buffer, of which the part inside C is exchanged.
    #[inline(always)]
    fn edge_tile<S: Simd>(
        &self,
        s: S,
        depth: usize,
        a: &[f32],
        b: &[f32],
        offset: usize,
        (height, width): (usize, usize),
        flow: Flow,
    ) {
        let (n, stride) = (self.b.lanes, TILE_VECTORS * S::LANES);
        let mut whole = [0.0f32; TILE_MAX];
        if let Some(c) = flow.from {
            for i in 0..height {
                for j in 0..width {
                    // SAFETY: (i, j) lies inside C's layout, in a tile that is this task's alone.
                    whole[i * stride + j] = unsafe { *c.at(offset + i * n + j) };
                }
            }
        }
        let tile = whole.as_mut_ptr();
        // SAFETY: both panels are `depth` deep; `whole` holds the largest tile of any path.
        unsafe { run_tile(s, depth, a, b, From::Chain(tile, stride), To::Store(tile, stride)) };
        for i in 0..height {
            for j in 0..width {
                let chain = whole[i * stride + j];
                // SAFETY: as above.
                unsafe {
                    match flow.to {
                        Some(c) => *c.at(offset + i * n + j) = chain,
                        None => *self.c.at(offset + i * n + j) += chain,
                    }
                }
            }
        }
    }
}

/// [`tile::run`] with the path's rows.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn run_tile<S: Simd>(s: S, depth: usize, a: &[f32], b: &[f32], from: From, to: To) {
    debug_assert!(a.len() >= depth * S::TILE_ROWS && b.len() >= depth * TILE_VECTORS * S::LANES);
    let operands =
        Operands { a: a.as_ptr(), a_row: 1, a_k: S::TILE_ROWS, b: b.as_ptr(), b_k: TILE_VECTORS * S::LANES };
    // SAFETY: the caller's promise; the branch is decided when the path is compiled.
    unsafe {
        match S::TILE_ROWS {
            14 => tile::run::<S, 14>(s, depth, operands, from, to),
            _ => tile::run::<S, 6>(s, depth, operands, from, to),
        }
    }
}

/// Elements of the largest tile of any path, 14 x 32.
const TILE_MAX: usize = 14 * 32;
/// Work above which a product is worth all workers.
const PARALLEL_WORK: usize = 1 << 16;

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
