//! Launches the embedding on a CUDA device.

use crate::common::shape::{expect_len, expect_workspace};
use crate::device::{CudaDevice, DeviceError, Grid, Source, View, ViewMut, count32, shared};

/// The room's kernels.
pub const SOURCE: Source =
    Source { name: "embedding", pieces: &[shared::VECTOR, include_str!("embedding.cu")] };

/// Inputs of the forward pass, on the device; as [`super::Forward`]. The caller has checked the tokens: one outside of
/// the vocabulary reads as a row of NaN.
#[derive(Debug)]
pub struct Forward<'a> {
    /// Rows of the table.
    pub vocab: usize,
    /// Elements of a row.
    pub dim: usize,
    /// Tokens, each below `vocab`.
    pub tokens: &'a View<'a, u32>,
    /// Table, vocab x dim.
    pub table: &'a View<'a, f32>,
}

/// Inputs of the backward pass, on the device; as [`super::Backward`]. The caller has checked the tokens: one outside of
/// the vocabulary has no gradient.
#[derive(Debug)]
pub struct Backward<'a> {
    /// Rows of the table.
    pub vocab: usize,
    /// Elements of a row.
    pub dim: usize,
    /// Tokens, each below `vocab`.
    pub tokens: &'a View<'a, u32>,
    /// Gradient of the output, tokens x dim.
    pub dy: &'a View<'a, f32>,
}

/// Most blocks of a forward launch; they walk over the tokens.
const FORWARD_BLOCKS: u32 = 65_535;
const FORWARD_THREADS: u32 = 256;
const ORDER_THREADS: u32 = 256;
const BACKWARD_THREADS: u32 = 128;
const WARP: u32 = 32;
/// Vectors of a row that a warp of the backward pass takes, four a lane.
const STRIP: usize = 128;

/// Queues the forward pass: the rows of the tokens to `y` (tokens x dim).
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`]; [`DeviceError::TooLarge`].
pub fn forward(device: &CudaDevice, args: &Forward<'_>, y: &mut ViewMut<'_, f32>) -> Result<(), DeviceError> {
    forward_on(device, FORWARD_BLOCKS, args, y)
}

/// As [`forward`], on a chosen number of blocks, or one per token if that is less.
///
/// # Errors
/// As [`forward`].
pub fn forward_on(
    device: &CudaDevice,
    blocks: u32,
    args: &Forward<'_>,
    y: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "embedding::cuda::forward";
    expect_len(op, "table", args.table.len(), args.vocab * args.dim);
    expect_len(op, "y", y.len(), args.tokens.len() * args.dim);
    if y.is_empty() {
        return Ok(());
    }
    let count = count32(op, "tokens", args.tokens.len())?;
    let vectors = args.dim.is_multiple_of(4) && device.is_aligned(args.table) && device.is_aligned(y);
    let (entry, width) = if vectors {
        ("embedding_forward_vectors", args.dim / 4)
    } else {
        ("embedding_forward_any", args.dim)
    };
    let width = count32(op, "dim", width)?;
    let launch = device.launch(&SOURCE, entry)?.read(args.tokens).read(args.table).write(y);
    let launch = launch.u32(count).u32(count32(op, "vocab", args.vocab)?).u32(width);
    let threads = width.next_multiple_of(32).min(FORWARD_THREADS);
    // SAFETY: blocks walk over tokens below `count`; only rows below `vocab` are read; the views have these sizes, and
    // begin on 16 bytes where the kernel reads float4.
    unsafe { launch.run(Grid { x: count.min(blocks), y: 1, threads }) }
}

/// Elements of the workspace of [`backward`]: the order of the positions, and the runs of equal tokens in it.
pub const fn workspace_len(tokens: usize) -> usize {
    2 * tokens
}

/// Queues the backward pass: the table's gradient is *added* to `dtable` (vocab x dim). `workspace` holds at least
/// [`workspace_len`] elements; what it holds before and after means nothing.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    device: &CudaDevice,
    args: &Backward<'_>,
    dtable: &mut ViewMut<'_, f32>,
    workspace: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    backward_on(device, BACKWARD_THREADS, args, dtable, workspace)
}

/// As [`backward`], with a chosen number of threads in a block (a multiple of 32, at most 128).
///
/// # Errors
/// As [`forward`].
pub fn backward_on(
    device: &CudaDevice,
    threads: u32,
    args: &Backward<'_>,
    dtable: &mut ViewMut<'_, f32>,
    workspace: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    let op = "embedding::cuda::backward";
    let tokens = args.tokens.len();
    expect_len(op, "dy", args.dy.len(), tokens * args.dim);
    expect_len(op, "dtable", dtable.len(), args.vocab * args.dim);
    expect_workspace(op, workspace.len(), workspace_len(tokens));
    if args.dy.is_empty() {
        return Ok(());
    }
    let count = count32(op, "tokens", tokens)?;
    let (mut order, mut runs) = workspace.split_at_mut(tokens);
    let launch = device.launch(&SOURCE, "embedding_order")?;
    let launch = launch.read(args.tokens).write(&mut order).write(&mut runs).u32(count);
    // SAFETY: every position below `count` has one place below `count`; both views have at least that size.
    unsafe { launch.run(Grid { x: count.div_ceil(ORDER_THREADS), y: 1, threads: ORDER_THREADS }) }?;

    let vectors = args.dim.is_multiple_of(4) && device.is_aligned(args.dy) && device.is_aligned(dtable);
    let (entry, width) = if vectors {
        ("embedding_backward_vectors", args.dim / 4)
    } else {
        ("embedding_backward_any", args.dim)
    };
    let width = count32(op, "dim", width)?;
    let warps = count32(op, "strips of rows", tokens * (width as usize).div_ceil(STRIP))?;
    let (order, runs) = (order.slice(..), runs.slice(..));
    let launch = device.launch(&SOURCE, entry)?.read(args.tokens).read(&order).read(&runs).read(args.dy);
    let launch = launch.write(dtable).u32(count).u32(count32(op, "vocab", args.vocab)?).u32(width);
    // SAFETY: a warp stands at one of `count` places or does nothing; places and positions are below `count`, columns below `width`, and
    // tokens that are not below `vocab` are left out; the views have these sizes, and begin on 16 bytes where the kernel
    // reads float4.
    unsafe { launch.run(Grid { x: warps.div_ceil(threads / WARP), y: 1, threads }) }
}
