//! Launches the rotary position embedding on a CUDA device.

use crate::common::shape::expect_len;
use crate::device::{CudaDevice, DeviceError, Grid, Source, View, ViewMut, count32};

/// The room's kernels.
pub const SOURCE: Source = Source { name: "rope", pieces: &[include_str!("rope.cu")] };

/// Inputs of either direction, on the device; as [`super::Rope`].
#[derive(Debug)]
pub struct Rope<'a> {
    /// Rows: batch * seq, a multiple of `seq`.
    pub rows: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Heads of a row.
    pub heads: usize,
    /// Elements of a head, even.
    pub head_dim: usize,
    /// Cosines, at least seq x (head_dim/2).
    pub cos: &'a View<'a, f32>,
    /// Sines, at least seq x (head_dim/2).
    pub sin: &'a View<'a, f32>,
    /// Forward: the input. Backward: the gradient of the output. rows x (heads*head_dim).
    pub x: &'a View<'a, f32>,
}

/// Most blocks of a launch; they walk over the rows.
const BLOCKS: u32 = 65_535;
const THREADS: u32 = 256;

/// Queues the rotation of `x` into `y`.
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`]; [`DeviceError::TooLarge`].
pub fn forward(device: &CudaDevice, args: &Rope<'_>, y: &mut ViewMut<'_, f32>) -> Result<(), DeviceError> {
    rotate_on(device, BLOCKS, args, false, y)
}

/// Queues the rotation of the gradient `x` back into `dx`.
///
/// # Errors
/// As [`forward`].
pub fn backward(device: &CudaDevice, args: &Rope<'_>, dx: &mut ViewMut<'_, f32>) -> Result<(), DeviceError> {
    rotate_on(device, BLOCKS, args, true, dx)
}

/// Either direction, on a chosen number of blocks at most; they walk over the rows.
///
/// # Errors
/// As [`forward`].
pub fn rotate_on(
    device: &CudaDevice,
    blocks: u32,
    args: &Rope<'_>,
    backward: bool,
    y: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "rope::cuda";
    let half = args.head_dim / 2;
    assert!(args.head_dim.is_multiple_of(2), "{op}: head_dim {} is odd", args.head_dim);
    assert!(
        args.seq > 0 && args.rows.is_multiple_of(args.seq),
        "{op}: {} rows are no whole number of sequences of {}",
        args.rows,
        args.seq
    );
    for (what, table) in [("cos", args.cos), ("sin", args.sin)] {
        assert!(
            table.len() >= args.seq * half,
            "{op}: table `{what}` holds {} elements, {} positions of {half} pairs need {}",
            table.len(),
            args.seq,
            args.seq * half
        );
    }
    expect_len(op, "x", args.x.len(), args.rows * args.heads * args.head_dim);
    expect_len(op, "y", y.len(), args.x.len());
    if args.x.is_empty() {
        return Ok(());
    }
    let rows = count32(op, "rows", args.rows)?;
    let pairs = count32(op, "pairs of a row", args.heads * half)?;
    let fours = u32::try_from(half / 4).unwrap_or(u32::MAX);
    let vectors = half.is_multiple_of(4)
        && fours <= THREADS
        && [args.x, args.cos, args.sin].iter().all(|view| device.is_aligned(*view))
        && device.is_aligned(y);
    let (entry, threads, rows_of_block) = if vectors {
        let rows_of_block = THREADS / fours;
        ("rope_vectors", rows_of_block * fours, rows_of_block)
    } else {
        ("rope_any", pairs.next_multiple_of(32).min(THREADS), 1)
    };
    let launch = device.launch(&SOURCE, entry)?.read(args.x).read(args.cos).read(args.sin).write(y);
    let launch = launch.u32(rows).u32(count32(op, "seq", args.seq)?).u32(count32(op, "heads", args.heads)?);
    let launch = launch.u32(count32(op, "pairs of a head", half)?).u32(u32::from(backward));
    // SAFETY: blocks walk over rows below `rows`, threads over the pairs or heads of a row; the views have that size, the tables
    // at least `seq` positions, and all begin on 16 bytes where the kernel reads float4.
    unsafe { launch.run(Grid { x: rows.div_ceil(rows_of_block).min(blocks), y: 1, threads }) }
}
