//! Launches the residual stream on a CUDA device.

use crate::common::shape::expect_len;
use crate::device::{CudaDevice, DeviceError, Grid, Source, View, ViewMut, shared};

/// The room's kernels.
pub const SOURCE: Source =
    Source { name: "residual", pieces: &[shared::VECTOR, include_str!("residual.cu")] };

/// Elements that a thread takes at a time.
const ELEMENTS: usize = 4;

/// Queues `y = a + b`; all views are of one length.
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`].
pub fn add(
    device: &CudaDevice,
    a: &View<'_, f32>,
    b: &View<'_, f32>,
    y: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    add_on(device, Grid::striding(device, a.len().div_ceil(ELEMENTS)), a, b, y)
}

/// As [`add`], on a chosen grid.
///
/// # Errors
/// As [`add`].
pub fn add_on(
    device: &CudaDevice,
    grid: Grid,
    a: &View<'_, f32>,
    b: &View<'_, f32>,
    y: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "residual::cuda::add";
    expect_len(op, "b", b.len(), a.len());
    expect_len(op, "y", y.len(), a.len());
    if a.is_empty() {
        return Ok(());
    }
    let launch = device.launch(&SOURCE, "residual_add")?.read(a).read(b).write(y).u64(a.len() as u64);
    // SAFETY: the kernel strides over elements below the length that all three views have.
    unsafe { launch.run(grid) }
}

/// Queues `sum = sum + x`, both of one length.
///
/// # Errors
/// As [`add`].
pub fn accumulate(
    device: &CudaDevice,
    sum: &mut ViewMut<'_, f32>,
    x: &View<'_, f32>,
) -> Result<(), DeviceError> {
    accumulate_on(device, Grid::striding(device, x.len().div_ceil(ELEMENTS)), sum, x)
}

/// As [`accumulate`], on a chosen grid.
///
/// # Errors
/// As [`add`].
pub fn accumulate_on(
    device: &CudaDevice,
    grid: Grid,
    sum: &mut ViewMut<'_, f32>,
    x: &View<'_, f32>,
) -> Result<(), DeviceError> {
    expect_len("residual::cuda::accumulate", "sum", sum.len(), x.len());
    if x.is_empty() {
        return Ok(());
    }
    let launch = device.launch(&SOURCE, "residual_accumulate")?.write(sum).read(x).u64(x.len() as u64);
    // SAFETY: the kernel strides over elements below the length that both views have.
    unsafe { launch.run(grid) }
}
