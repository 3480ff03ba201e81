//! Launches the merge of replicas on a CUDA device. Faults show in a status word, as in [`crate::codec::cuda`].

use super::{BLOCK, Rule};
use crate::common::shape::expect_len;
use crate::device::{CudaDevice, DeviceError, Grid, Source, View, ViewMut, count32, shared};

/// The room's kernels.
pub const SOURCE: Source =
    Source { name: "merge", pieces: &[shared::VECTOR, shared::BLOCK, include_str!("merge.cu")] };

pub use crate::codec::cuda::NO_FAULT;

/// What a replica brings, on the device; as [`super::Contribution`].
#[derive(Debug)]
pub struct Contribution<'a> {
    /// Weights at the last merge.
    pub old: &'a View<'a, f32>,
    /// Weights now.
    pub local: &'a View<'a, f32>,
}

/// Inputs of the outer step, on the device; as [`super::Outer`].
#[derive(Debug)]
pub struct OuterStep<'a> {
    /// Sums of weighted codes, one per weight.
    pub sums: &'a View<'a, i64>,
    /// Shared exponents, one per block.
    pub exponents: &'a View<'a, i8>,
    /// Bits of a code, 2..=16.
    pub bits: u32,
    /// Sum of the replicas' weights.
    pub total_weight: u64,
    /// The rule.
    pub rule: Rule,
}

/// Elements that a thread takes at a time.
const ELEMENTS: usize = 4;

/// Queues the exponent of each block of `(old - local) + residual` to `exponents`. `status` is lowered to the first
/// element that is NaN or infinite.
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`]; [`DeviceError::TooLarge`].
pub fn exponents(
    device: &CudaDevice,
    change: &Contribution<'_>,
    residual: &View<'_, f32>,
    exponents: &mut ViewMut<'_, i8>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    exponents_on(device, blocks_grid(device, residual.len()), change, residual, exponents, status)
}

/// As [`exponents`], on a chosen grid.
///
/// # Errors
/// As [`exponents`].
pub fn exponents_on(
    device: &CudaDevice,
    grid: Grid,
    change: &Contribution<'_>,
    residual: &View<'_, f32>,
    exponents: &mut ViewMut<'_, i8>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    let count = change.check("merge::cuda::exponents", residual.len(), exponents.len(), status.len())?;
    if count == 0 {
        return Ok(());
    }
    let launch = device.launch(&SOURCE, "merge_exponents")?.read(change.old).read(change.local);
    let launch = launch.read(residual).write(exponents).write(status).u32(count);
    // SAFETY: warps stride over blocks of elements below `count`; the views have that size.
    unsafe { launch.run(grid) }
}

/// Queues `shared = max(shared, other)`, block by block.
///
/// # Errors
/// As [`exponents`].
pub fn share_exponents(
    device: &CudaDevice,
    shared: &mut ViewMut<'_, i8>,
    other: &View<'_, i8>,
) -> Result<(), DeviceError> {
    expect_len("merge::cuda::share_exponents", "other", other.len(), shared.len());
    if other.is_empty() {
        return Ok(());
    }
    let launch = device.launch(&SOURCE, "merge_share_exponents")?.write(shared).read(other);
    // SAFETY: threads stride over elements below the length that both views have.
    unsafe { launch.u64(other.len() as u64).run(Grid::striding(device, other.len())) }
}

/// Queues the codes of `(old - local) + residual` on the shared exponents to `codes`, and to `residual` what they leave
/// behind. `status` is lowered to the first element that is NaN or infinite; if it is lowered before or by this, all
/// else is as before.
///
/// # Errors
/// As [`exponents`].
pub fn contribute(
    device: &CudaDevice,
    change: &Contribution<'_>,
    exponents: &View<'_, i8>,
    bits: u32,
    residual: &mut ViewMut<'_, f32>,
    codes: &mut ViewMut<'_, i16>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    let grid = blocks_grid(device, residual.len());
    contribute_on(device, grid, change, exponents, bits, residual, codes, status)
}

/// As [`contribute`], on a chosen grid.
///
/// # Errors
/// As [`exponents`].
#[allow(clippy::too_many_arguments)] // `contribute` and where it runs
pub fn contribute_on(
    device: &CudaDevice,
    grid: Grid,
    change: &Contribution<'_>,
    exponents: &View<'_, i8>,
    bits: u32,
    residual: &mut ViewMut<'_, f32>,
    codes: &mut ViewMut<'_, i16>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    let op = "merge::cuda::contribute";
    super::check_bits(bits);
    expect_len(op, "codes", codes.len(), residual.len());
    let count = change.check(op, residual.len(), exponents.len(), status.len())?;
    if count == 0 {
        return Ok(());
    }
    let before = residual.slice(..);
    let launch = device.launch(&SOURCE, "merge_check")?.read(change.old).read(change.local);
    let launch = launch.read(&before).write(status).u32(count);
    // SAFETY: threads stride over elements below `count`; the views have that size.
    unsafe { launch.run(grid) }?;
    let status = status.slice(..);
    let launch = device.launch(&SOURCE, "merge_contribute")?.read(change.old).read(change.local);
    let launch = launch.read(exponents).write(residual).write(codes).read(&status).u32(count).u32(bits);
    // SAFETY: warps stride over blocks of elements below `count`; the views have that size.
    unsafe { launch.run(grid) }
}

/// Queues `sums += weight * codes`, exact.
///
/// # Errors
/// As [`exponents`].
pub fn accumulate(
    device: &CudaDevice,
    sums: &mut ViewMut<'_, i64>,
    codes: &View<'_, i16>,
    weight: u32,
) -> Result<(), DeviceError> {
    accumulate_on(device, elements_grid(device, codes.len()), sums, codes, weight)
}

/// As [`accumulate`], on a chosen grid.
///
/// # Errors
/// As [`exponents`].
pub fn accumulate_on(
    device: &CudaDevice,
    grid: Grid,
    sums: &mut ViewMut<'_, i64>,
    codes: &View<'_, i16>,
    weight: u32,
) -> Result<(), DeviceError> {
    expect_len("merge::cuda::accumulate", "codes", codes.len(), sums.len());
    if codes.is_empty() {
        return Ok(());
    }
    let launch = device.launch(&SOURCE, "merge_accumulate")?.write(sums).read(codes);
    // SAFETY: threads stride over elements below the length that both views have.
    unsafe { launch.u64(codes.len() as u64).u32(weight).run(grid) }
}

/// Queues the outer step: moves the weights `p` and the momentum `buf`. With [`Rule::None`] `buf` is left alone and may
/// be empty.
///
/// # Errors
/// As [`exponents`].
pub fn outer_step(
    device: &CudaDevice,
    args: &OuterStep<'_>,
    p: &mut ViewMut<'_, f32>,
    buf: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    outer_step_on(device, elements_grid(device, p.len()), args, p, buf)
}

/// As [`outer_step`], on a chosen grid.
///
/// # Errors
/// As [`exponents`].
pub fn outer_step_on(
    device: &CudaDevice,
    grid: Grid,
    args: &OuterStep<'_>,
    p: &mut ViewMut<'_, f32>,
    buf: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "merge::cuda::outer_step";
    super::check_bits(args.bits);
    expect_len(op, "sums", args.sums.len(), p.len());
    expect_len(op, "exponents", args.exponents.len(), p.len().div_ceil(BLOCK));
    let count = p.len() as u64;
    if count == 0 || args.total_weight == 0 {
        return Ok(());
    }
    let weight = args.total_weight as f32;
    match args.rule {
        Rule::None => {
            let launch = device.launch(&SOURCE, "merge_plain")?.read(args.sums).read(args.exponents);
            let launch = launch.write(p).u64(count).u32(args.bits).f32(weight);
            // SAFETY: threads stride over elements below the length of `sums` and `p`.
            unsafe { launch.run(grid) }
        }
        Rule::Nesterov { lr, momentum } => {
            expect_len(op, "buf", buf.len(), p.len());
            let launch = device.launch(&SOURCE, "merge_nesterov")?.read(args.sums).read(args.exponents);
            let launch = launch.write(p).write(buf).u64(count).u32(args.bits).f32(weight);
            // SAFETY: threads stride over elements below the length of `sums`, `p` and `buf`.
            unsafe { launch.f32(momentum).f32(-lr).run(grid) }
        }
    }
}

/// A warp for each block of 128.
fn blocks_grid(device: &CudaDevice, count: usize) -> Grid {
    elements_grid(device, count.next_multiple_of(BLOCK))
}

fn elements_grid(device: &CudaDevice, count: usize) -> Grid {
    Grid::striding(device, count.div_ceil(ELEMENTS))
}

impl Contribution<'_> {
    /// The number of elements, after a look at the sizes.
    fn check(
        &self,
        op: &'static str,
        residual: usize,
        exponents: usize,
        status: usize,
    ) -> Result<u32, DeviceError> {
        expect_len(op, "local", self.local.len(), self.old.len());
        expect_len(op, "residual", residual, self.old.len());
        expect_len(op, "exponents", exponents, residual.div_ceil(BLOCK));
        expect_len(op, "status", status, 1);
        count32(op, "elements", residual)
    }
}
