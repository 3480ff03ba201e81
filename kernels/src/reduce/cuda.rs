//! Launches the gradient norm, the mean over members and the look at magnitudes on a CUDA device.

use super::BLOCK;
use crate::common::shape::{expect_len, expect_workspace};
use crate::device::{CudaDevice, DeviceError, Grid, Source, View, ViewMut, count32, shared};

/// The room's kernels.
pub const SOURCE: Source =
    Source { name: "reduce", pieces: &[shared::VECTOR, shared::REDUCE, include_str!("reduce.cu")] };

const THREADS_OF_WARP: u32 = 32;
const WARPS_OF_BLOCK: u32 = 8;

/// Elements of the workspace of [`sum_squares`]: a sum for every 4096 elements.
pub const fn workspace_len(count: usize) -> usize {
    count.div_ceil(BLOCK)
}

/// Queues the sum of squares of one tensor, as [`super::sum_squares`], to `sum`, one element. `workspace` holds at least
/// [`workspace_len`] elements; what it holds before and after means nothing.
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`]; [`DeviceError::TooLarge`].
pub fn sum_squares(
    device: &CudaDevice,
    g: &View<'_, f32>,
    sum: &mut ViewMut<'_, f64>,
    workspace: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    sum_squares_on(device, WARPS_OF_BLOCK, g, sum, workspace)
}

/// As [`sum_squares`], with a chosen number of warps (1 to 8) per block of threads.
///
/// # Errors
/// As [`sum_squares`].
pub fn sum_squares_on(
    device: &CudaDevice,
    warps: u32,
    g: &View<'_, f32>,
    sum: &mut ViewMut<'_, f64>,
    workspace: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "reduce::cuda::sum_squares";
    expect_len(op, "sum", sum.len(), 1);
    expect_workspace(op, workspace.len(), workspace_len(g.len()));
    let blocks = count32(op, "blocks of 4096", workspace_len(g.len()))?;
    if blocks > 0 {
        let launch = device.launch(&SOURCE, "reduce_squares")?.read(g).write(workspace);
        let grid = Grid { x: blocks.div_ceil(warps), y: 1, threads: warps * THREADS_OF_WARP };
        // SAFETY: a warp takes one of `blocks` blocks and elements below `g`'s length.
        unsafe { launch.u64(g.len() as u64).run(grid) }?;
    }
    let sums = workspace.slice(..);
    let launch = device.launch(&SOURCE, "reduce_fold")?.read(&sums).write(sum).u32(blocks);
    // SAFETY: one warp reads sums below `blocks` and writes one element.
    unsafe { launch.run(Grid { x: 1, y: 1, threads: THREADS_OF_WARP }) }
}

/// Queues the norm over tensors, whose sums of squares stand in `sums` in canonical order, to `norm`, and the factor of
/// every gradient to `scale`, one element each: as [`super::global_norm`] and [`super::clip_scale`]. Where the norm is
/// not finite, the scale is NaN, and whoever reads the norm strikes the step.
///
/// # Errors
/// As [`sum_squares`].
pub fn clip_scale(
    device: &CudaDevice,
    sums: &View<'_, f64>,
    clip: f64,
    norm: &mut ViewMut<'_, f64>,
    scale: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "reduce::cuda::clip_scale";
    expect_len(op, "norm", norm.len(), 1);
    expect_len(op, "scale", scale.len(), 1);
    let tensors = count32(op, "tensors", sums.len())?;
    let launch = device.launch(&SOURCE, "reduce_clip")?.read(sums).write(norm).write(scale).u32(tensors);
    // SAFETY: one thread reads sums below `tensors` and writes one element each.
    unsafe { launch.f64(clip).run(Grid { x: 1, y: 1, threads: THREADS_OF_WARP }) }
}

/// Elements that a thread takes at a time.
const ELEMENTS: usize = 4;

/// Queues `g = g * factor`, as [`super::scale`].
///
/// # Errors
/// As [`sum_squares`].
pub fn scale(device: &CudaDevice, g: &mut ViewMut<'_, f32>, factor: f32) -> Result<(), DeviceError> {
    scale_on(device, Grid::striding(device, g.len().div_ceil(ELEMENTS)), g, factor)
}

/// As [`scale`], on a chosen grid.
///
/// # Errors
/// As [`sum_squares`].
pub fn scale_on(
    device: &CudaDevice,
    grid: Grid,
    g: &mut ViewMut<'_, f32>,
    factor: f32,
) -> Result<(), DeviceError> {
    let count = g.len() as u64;
    if count == 0 {
        return Ok(());
    }
    let launch = device.launch(&SOURCE, "reduce_scale")?.write(g).u64(count).f32(factor);
    // SAFETY: the kernel strides over elements below `g`'s length.
    unsafe { launch.run(grid) }
}

/// Queues the look for the first element whose magnitude is not below `bound`, as [`super::first_beyond`]: `place`, one
/// element, is lowered to it. What it holds as long as there is none is its owner's: [`crate::codec::cuda::NO_FAULT`].
///
/// # Errors
/// As [`sum_squares`].
pub fn first_beyond(
    device: &CudaDevice,
    x: &View<'_, f32>,
    bound: f32,
    place: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    first_beyond_on(device, Grid::striding(device, x.len().div_ceil(ELEMENTS)), x, bound, place)
}

/// As [`first_beyond`], on a chosen grid.
///
/// # Errors
/// As [`sum_squares`].
pub fn first_beyond_on(
    device: &CudaDevice,
    grid: Grid,
    x: &View<'_, f32>,
    bound: f32,
    place: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    let op = "reduce::cuda::first_beyond";
    expect_len(op, "place", place.len(), 1);
    let count = count32(op, "elements", x.len())?;
    if count == 0 {
        return Ok(());
    }
    let launch = device.launch(&SOURCE, "reduce_first_beyond")?.read(x).write(place).u32(count);
    // SAFETY: the kernel strides over elements below `x`'s length, and lowers one word.
    unsafe { launch.u32(bound.to_bits()).run(grid) }
}
