//! Launches softmax cross-entropy on a CUDA device.

use super::VOCAB_CHUNK;
use crate::common::shape::expect_len;
use crate::device::{Base, CudaDevice, DeviceError, Grid, Source, View, ViewMut, count32, shared};

/// The room's kernels.
pub const SOURCE: Source = Source {
    name: "cross_entropy",
    pieces: &[shared::VECTOR, shared::REDUCE, shared::EXP, include_str!("cross_entropy.cu")],
};

/// Inputs, on the device; as [`super::Forward`]. The caller has checked the targets: one outside of the vocabulary makes
/// the row's loss NaN.
#[derive(Debug)]
pub struct Forward<'a> {
    /// Rows (tokens).
    pub rows: usize,
    /// Logits of a row.
    pub vocab: usize,
    /// Logits, rows x vocab.
    pub logits: &'a View<'a, f32>,
    /// Target tokens, rows, each below `vocab`.
    pub targets: &'a View<'a, u32>,
    /// Factor of the gradient.
    pub weight: f32,
}

/// Where a row waits between maximum, sum and gradient. The bits are the same on every rung that can hold the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// In the registers of a warp: vocab <= 1024, a multiple of 4.
    Warp,
    /// In the registers of a block: vocab <= 32768, a multiple of 4.
    Block,
    /// In memory, read again, in float4: vocab a multiple of 4.
    Vectors,
    /// In memory, read again: any vocab, any alignment.
    Any,
}

impl Rung {
    fn fastest(vocab: usize, aligned: bool) -> Self {
        if !aligned || !vocab.is_multiple_of(4) {
            Self::Any
        } else if vocab <= WARP_VOCAB {
            Self::Warp
        } else if vocab <= BLOCK_VOCAB {
            Self::Block
        } else {
            Self::Vectors
        }
    }
}

/// Longest row of [`Rung::Warp`].
const WARP_VOCAB: usize = 1024;
/// Longest row of [`Rung::Block`]: a warp holds a chunk.
const BLOCK_VOCAB: usize = 8 * VOCAB_CHUNK;
const THREADS_OF_WARP: u32 = 32;
const WARPS_OF_BLOCK: u32 = 8;
const MEAN_THREADS: u32 = 1024;
/// Losses that are too many for the division of the mean.
const MEAN_ROWS: usize = 1 << 30;

/// Queues the pass: each row's loss to `loss` (rows), the gradient of the logits to `dlogits` (rows x vocab).
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`]; [`DeviceError::TooLarge`].
pub fn forward(
    device: &CudaDevice,
    args: &Forward<'_>,
    loss: &mut ViewMut<'_, f32>,
    dlogits: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    forward_on(device, Rung::Warp, args, loss, dlogits)
}

/// As [`forward`], on a chosen rung or a slower one if that cannot hold the rows.
///
/// # Errors
/// As [`forward`].
pub fn forward_on(
    device: &CudaDevice,
    rung: Rung,
    args: &Forward<'_>,
    loss: &mut ViewMut<'_, f32>,
    dlogits: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let Forward { rows, vocab, logits, targets, weight } = *args;
    judge(device, rung, &Rows { rows, vocab, targets, weight }, &Base::View(logits), loss, dlogits)
}

/// Rows of logits that are judged where they stand.
#[derive(Debug)]
pub struct Rows<'a> {
    /// Rows (tokens).
    pub rows: usize,
    /// Logits of a row.
    pub vocab: usize,
    /// Target tokens, rows, each below `vocab`.
    pub targets: &'a View<'a, u32>,
    /// Factor of the gradient.
    pub weight: f32,
}

/// As [`forward`], of the logits that `dlogits` holds.
///
/// # Errors
/// As [`forward`].
pub fn forward_in_place(
    device: &CudaDevice,
    args: &Rows<'_>,
    loss: &mut ViewMut<'_, f32>,
    dlogits: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    forward_in_place_on(device, Rung::Warp, args, loss, dlogits)
}

/// As [`forward_in_place`], on a chosen rung or a slower one if that cannot hold the rows.
///
/// # Errors
/// As [`forward`].
pub fn forward_in_place_on(
    device: &CudaDevice,
    rung: Rung,
    args: &Rows<'_>,
    loss: &mut ViewMut<'_, f32>,
    dlogits: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    judge(device, rung, args, &Base::Output, loss, dlogits)
}

fn judge(
    device: &CudaDevice,
    rung: Rung,
    args: &Rows<'_>,
    logits: &Base<'_>,
    loss: &mut ViewMut<'_, f32>,
    dlogits: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "cross_entropy::cuda::forward";
    expect_len(op, "targets", args.targets.len(), args.rows);
    expect_len(op, "loss", loss.len(), args.rows);
    expect_len(op, "dlogits", dlogits.len(), args.rows * args.vocab);
    let mut aligned = device.is_aligned(dlogits);
    if let Base::View(logits) = logits {
        expect_len(op, "logits", logits.len(), args.rows * args.vocab);
        aligned &= device.is_aligned(*logits);
    }
    if dlogits.is_empty() {
        return Ok(());
    }
    let (rows, vocab) = (count32(op, "rows", args.rows)?, count32(op, "vocab", args.vocab)?);
    let (entry, blocks, warps) = match rung.max(Rung::fastest(args.vocab, aligned)) {
        Rung::Warp => ("cross_entropy_forward_warp", rows.div_ceil(WARPS_OF_BLOCK), WARPS_OF_BLOCK),
        Rung::Block => {
            ("cross_entropy_forward_block", rows, vocab.div_ceil(count32(op, "chunk", VOCAB_CHUNK)?))
        }
        Rung::Vectors => ("cross_entropy_forward_any_vectors", rows, WARPS_OF_BLOCK),
        Rung::Any => ("cross_entropy_forward_any", rows, WARPS_OF_BLOCK),
    };
    let launch = device.launch(&SOURCE, entry)?.write_onto(logits, dlogits).read(args.targets).write(loss);
    let launch = launch.u32(rows).u32(vocab).f32(args.weight);
    // SAFETY: a warp or block takes a row below `rows` and entries below `vocab`, also for the target; the views have
    // these sizes, and begin on 16 bytes where the kernel reads float4.
    unsafe { launch.run(Grid { x: blocks, y: 1, threads: warps * THREADS_OF_WARP }) }
}

/// Queues the mean of the losses, as [`super::mean_q32`], to `mean`, one element; `i64::MIN` where there is none.
///
/// # Errors
/// As [`forward`]; 2^30 losses or more are too many.
pub fn mean_q32(
    device: &CudaDevice,
    loss: &View<'_, f32>,
    mean: &mut ViewMut<'_, i64>,
) -> Result<(), DeviceError> {
    mean_q32_on(device, MEAN_THREADS, loss, mean)
}

/// As [`mean_q32`], with a chosen number of threads, a multiple of 32 up to 1024.
///
/// # Errors
/// As [`forward`].
pub fn mean_q32_on(
    device: &CudaDevice,
    threads: u32,
    loss: &View<'_, f32>,
    mean: &mut ViewMut<'_, i64>,
) -> Result<(), DeviceError> {
    let op = "cross_entropy::cuda::mean_q32";
    expect_len(op, "mean", mean.len(), 1);
    if loss.len() >= MEAN_ROWS {
        return Err(DeviceError::TooLarge { op, what: "rows", found: loss.len(), most: MEAN_ROWS - 1 });
    }
    let rows = count32(op, "rows", loss.len())?;
    let launch = device.launch(&SOURCE, "cross_entropy_mean")?.read(loss).write(mean).u32(rows);
    // SAFETY: the block strides over losses below `rows` and writes one element.
    unsafe { launch.run(Grid { x: 1, y: 1, threads }) }
}
