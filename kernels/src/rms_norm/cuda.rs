//! Launches RMSNorm on a CUDA device.

use super::GRADIENT_ROWS;
use crate::common::shape::{expect_len, expect_workspace};
use crate::device::{Base, CudaDevice, DeviceError, Grid, Source, View, ViewMut, count32, shared};

/// The room's kernels.
pub const SOURCE: Source =
    Source { name: "rms_norm", pieces: &[shared::VECTOR, shared::REDUCE, include_str!("rms_norm.cu")] };

/// Inputs of the forward pass, on the device; as [`super::Forward`].
#[derive(Debug)]
pub struct Forward<'a> {
    /// Rows (tokens).
    pub rows: usize,
    /// Elements of a row.
    pub dim: usize,
    /// Added to the mean square.
    pub eps: f32,
    /// Input, rows x dim.
    pub x: &'a View<'a, f32>,
    /// Weight, dim.
    pub w: &'a View<'a, f32>,
}

/// Inputs of the backward pass, on the device; as [`super::Backward`].
#[derive(Debug)]
pub struct Backward<'a> {
    /// Rows (tokens).
    pub rows: usize,
    /// Elements of a row.
    pub dim: usize,
    /// Input of the forward pass, rows x dim.
    pub x: &'a View<'a, f32>,
    /// Weight, dim.
    pub w: &'a View<'a, f32>,
    /// Reciprocal root mean squares that the forward pass returned, rows.
    pub r: &'a View<'a, f32>,
    /// Gradient of the output, rows x dim.
    pub dy: &'a View<'a, f32>,
}

/// Where a row waits between its reduction and its use. The bits are the same on every rung that can hold the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// In registers, few of them: dim <= 1024, a multiple of 4.
    HeldShort,
    /// In registers: forward dim <= 4096, backward dim <= 2048, a multiple of 4.
    HeldLong,
    /// In memory, read again: any dim, any alignment.
    Any,
}

impl Rung {
    /// The fastest rung for rows of `dim` elements, whose longest held row is `longest`.
    fn fastest(dim: usize, longest: usize, aligned: bool) -> Self {
        if !aligned || !dim.is_multiple_of(4) || dim > longest {
            Self::Any
        } else if dim <= SHORT {
            Self::HeldShort
        } else {
            Self::HeldLong
        }
    }
}

/// Longest row of [`Rung::HeldShort`].
const SHORT: usize = 1024;
/// Longest rows of [`Rung::HeldLong`].
const LONG_FORWARD: usize = 4096;
const LONG_BACKWARD: usize = 2048;

const THREADS_OF_WARP: u32 = 32;
const WARPS_OF_BLOCK: u32 = 8;
const COLUMNS_OF_BLOCK: u32 = 128;

/// Queues the forward pass: normalised rows to `y` (rows x dim), reciprocal root mean squares to `r` (rows).
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`]; [`DeviceError::TooLarge`].
pub fn forward(
    device: &CudaDevice,
    args: &Forward<'_>,
    y: &mut ViewMut<'_, f32>,
    r: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    forward_on(device, Rung::HeldShort, WARPS_OF_BLOCK, args, y, r)
}

/// As [`forward`], on a chosen rung or a slower one if that cannot hold the rows, with a chosen number of rows (1 to 8)
/// per block.
///
/// # Errors
/// As [`forward`].
pub fn forward_on(
    device: &CudaDevice,
    rung: Rung,
    warps: u32,
    args: &Forward<'_>,
    y: &mut ViewMut<'_, f32>,
    r: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    normalise(device, rung, warps, args, None, y, r)
}

/// Queues the residual stream's step and the forward pass of what it gives: `sum = x + addend` (rows x dim), as
/// [`crate::residual::add`], and of that the normalised rows to `y` and the reciprocal root mean squares to `r`. The sum
/// is written, but not read again.
///
/// # Errors
/// As [`forward`].
pub fn forward_of_sum(
    device: &CudaDevice,
    args: &Forward<'_>,
    addend: &View<'_, f32>,
    sum: &mut ViewMut<'_, f32>,
    y: &mut ViewMut<'_, f32>,
    r: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    normalise(device, Rung::HeldShort, WARPS_OF_BLOCK, args, Some((addend, sum)), y, r)
}

fn normalise(
    device: &CudaDevice,
    rung: Rung,
    warps: u32,
    args: &Forward<'_>,
    addend_and_sum: Option<(&View<'_, f32>, &mut ViewMut<'_, f32>)>,
    y: &mut ViewMut<'_, f32>,
    r: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "rms_norm::cuda::forward";
    expect_len(op, "x", args.x.len(), args.rows * args.dim);
    expect_len(op, "w", args.w.len(), args.dim);
    expect_len(op, "y", y.len(), args.rows * args.dim);
    expect_len(op, "r", r.len(), args.rows);
    let mut aligned = device.is_aligned(args.x) && device.is_aligned(args.w) && device.is_aligned(y);
    if let Some((addend, sum)) = &addend_and_sum {
        expect_len(op, "addend", addend.len(), args.rows * args.dim);
        expect_len(op, "sum", sum.len(), args.rows * args.dim);
        aligned &= device.is_aligned(*addend) && device.is_aligned(&**sum);
    }
    let (rows, dim) = (count32(op, "rows", args.rows)?, count32(op, "dim", args.dim)?);
    if rows == 0 {
        return Ok(());
    }
    let rung = rung.max(Rung::fastest(args.dim, LONG_FORWARD, aligned));
    let entry = match rung {
        Rung::HeldShort => "rms_norm_forward_held_8",
        Rung::HeldLong => "rms_norm_forward_held_32",
        Rung::Any => "rms_norm_forward_any",
    };
    let launch = device.launch(&SOURCE, entry)?.read(args.x);
    let launch = match addend_and_sum {
        None => launch.nothing().read(args.w).nothing(),
        Some((addend, sum)) => launch.read(addend).read(args.w).write(sum),
    };
    let launch = launch.write(y).write(r).u32(rows).u32(dim);
    let launch = launch.f32(super::inverse_dim(args.dim)).f32(args.eps);
    // SAFETY: a warp touches its own row, below `rows`, and columns below `dim`; the views have that size.
    unsafe { launch.run(rows_grid(device, rung, rows, warps)) }
}

/// Elements of the workspace of [`backward`]: a sum per column for every 64 rows.
pub const fn workspace_len(rows: usize, dim: usize) -> usize {
    rows.div_ceil(GRADIENT_ROWS) * dim
}

/// Queues the backward pass: input gradient to `dx` (rows x dim), weight gradient *added* to `dw` (dim). `workspace`
/// holds at least [`workspace_len`] elements; what it holds before and after means nothing.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    device: &CudaDevice,
    args: &Backward<'_>,
    dx: &mut ViewMut<'_, f32>,
    dw: &mut ViewMut<'_, f32>,
    workspace: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    backward_on(device, Rung::HeldShort, WARPS_OF_BLOCK, args, &Base::Nothing, dx, dw, workspace)
}

/// As [`backward`], the input gradient being *added* to `base`, the gradient that goes around the norm on the residual
/// stream, as [`crate::residual::add`] would do.
///
/// # Errors
/// As [`forward`].
pub fn backward_onto(
    device: &CudaDevice,
    args: &Backward<'_>,
    base: &Base<'_>,
    dx: &mut ViewMut<'_, f32>,
    dw: &mut ViewMut<'_, f32>,
    workspace: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    backward_on(device, Rung::HeldShort, WARPS_OF_BLOCK, args, base, dx, dw, workspace)
}

/// As [`backward_onto`], on a chosen rung or a slower one if that cannot hold the rows, with a chosen number of rows (1
/// to 8) per block.
///
/// # Errors
/// As [`forward`].
#[allow(clippy::too_many_arguments)] // `backward_onto` and how it is launched
pub fn backward_on(
    device: &CudaDevice,
    rung: Rung,
    warps: u32,
    args: &Backward<'_>,
    base: &Base<'_>,
    dx: &mut ViewMut<'_, f32>,
    dw: &mut ViewMut<'_, f32>,
    workspace: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "rms_norm::cuda::backward";
    expect_workspace(op, workspace.len(), workspace_len(args.rows, args.dim));
    expect_len(op, "x", args.x.len(), args.rows * args.dim);
    expect_len(op, "w", args.w.len(), args.dim);
    expect_len(op, "r", args.r.len(), args.rows);
    expect_len(op, "dy", args.dy.len(), args.rows * args.dim);
    expect_len(op, "dx", dx.len(), args.rows * args.dim);
    expect_len(op, "dw", dw.len(), args.dim);
    let (rows, dim) = (count32(op, "rows", args.rows)?, count32(op, "dim", args.dim)?);
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let mut aligned =
        [args.x, args.w, args.dy].iter().all(|view| device.is_aligned(*view)) && device.is_aligned(dx);
    if let Base::View(base) = base {
        expect_len(op, "base", base.len(), args.rows * args.dim);
        aligned &= device.is_aligned(*base);
    }
    let rung = rung.max(Rung::fastest(args.dim, LONG_BACKWARD, aligned));
    let entry = match rung {
        Rung::HeldShort => "rms_norm_backward_held_8",
        Rung::HeldLong => "rms_norm_backward_held_16",
        Rung::Any => "rms_norm_backward_any",
    };
    let launch = device.launch(&SOURCE, entry)?.read(args.x).read(args.w).read(args.r).read(args.dy);
    let launch = launch.write_onto(base, dx).u32(rows).u32(dim).f32(super::inverse_dim(args.dim));
    // SAFETY: a warp touches its own row, below `rows`, and columns below `dim`; the views have that size.
    unsafe { launch.run(rows_grid(device, rung, rows, warps)) }?;

    let columns = dim.div_ceil(COLUMNS_OF_BLOCK);
    let blocks = count32(op, "blocks of rows", args.rows.div_ceil(GRADIENT_ROWS))?;
    let launch = device.launch(&SOURCE, "rms_norm_backward_dw_blocks")?;
    let launch = launch.read(args.x).read(args.r).read(args.dy).write(workspace).u32(rows).u32(dim);
    // SAFETY: a thread touches one column below `dim` of 64 rows below `rows`, and of one row of the workspace below
    // `blocks`, by a loop over the blocks that this grid may be too short for.
    unsafe { launch.run(Grid { x: columns, y: blocks.min(GRID_Y_MAX), threads: COLUMNS_OF_BLOCK }) }?;
    let sums = workspace.slice(..);
    let launch =
        device.launch(&SOURCE, "rms_norm_backward_dw_fold")?.read(&sums).write(dw).u32(blocks).u32(dim);
    // SAFETY: a thread touches one column below `dim` of the workspace's `blocks` rows, and of `dw`.
    unsafe { launch.run(Grid { x: columns, y: 1, threads: COLUMNS_OF_BLOCK }) }
}

const GRID_Y_MAX: u32 = 65_535;

/// Blocks that hold their rows which a multiprocessor runs at once: more would only read the weight again.
const HELD_BLOCKS_PER_MULTIPROCESSOR: u32 = 4;

/// One warp per row; kernels that hold their rows stride on to further ones.
fn rows_grid(device: &CudaDevice, rung: Rung, rows: u32, warps: u32) -> Grid {
    let most = match rung {
        Rung::HeldShort | Rung::HeldLong => device.multiprocessors().max(1) * HELD_BLOCKS_PER_MULTIPROCESSOR,
        Rung::Any => u32::MAX,
    };
    Grid { x: rows.div_ceil(warps).min(most), y: 1, threads: warps * THREADS_OF_WARP }
}
