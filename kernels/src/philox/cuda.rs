//! Launches the random numbers on a CUDA device.

use super::Stream;
use crate::device::{CudaDevice, DeviceError, Grid, Launch, Source, ViewMut, shared};

/// The room's kernels.
pub const SOURCE: Source = Source { name: "philox", pieces: &[shared::VECTOR, include_str!("philox.cu")] };

/// Uniforms that a thread makes at a time.
const ELEMENTS: usize = 4;

/// Queues elements `first..` of the stream's uniforms to `out`, as [`super::uniform`].
///
/// # Errors
/// As [`CudaDevice::launch`] and [`Launch::run`].
pub fn uniform(
    device: &CudaDevice,
    stream: &Stream,
    first: u64,
    out: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    uniform_on(device, Grid::striding(device, out.len().div_ceil(ELEMENTS) + 1), stream, first, out)
}

/// As [`uniform`], on a chosen grid.
///
/// # Errors
/// As [`uniform`].
pub fn uniform_on(
    device: &CudaDevice,
    grid: Grid,
    stream: &Stream,
    first: u64,
    out: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    if out.is_empty() {
        return Ok(());
    }
    let count = out.len() as u64;
    let launch = device.launch(&SOURCE, "philox_uniform")?.write(out).u64(count).u64(first);
    // SAFETY: the kernel strides over elements below `out`'s length.
    unsafe { named(launch, stream).run(grid) }
}

/// Queues elements `first..` of the stream's normals to `out`, as [`super::normal`].
///
/// # Errors
/// As [`uniform`].
pub fn normal(
    device: &CudaDevice,
    stream: &Stream,
    first: u64,
    std: f32,
    out: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    normal_on(device, Grid::striding(device, out.len()), stream, first, std, out)
}

/// As [`normal`], on a chosen grid.
///
/// # Errors
/// As [`uniform`].
pub fn normal_on(
    device: &CudaDevice,
    grid: Grid,
    stream: &Stream,
    first: u64,
    std: f32,
    out: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    if out.is_empty() {
        return Ok(());
    }
    let count = out.len() as u64;
    let launch = device.launch(&SOURCE, "philox_normal")?.write(out).u64(count).u64(first);
    // SAFETY: the kernel strides over elements below `out`'s length.
    unsafe { named(launch, stream).f32(std).run(grid) }
}

fn named<'a>(launch: Launch<'a>, stream: &Stream) -> Launch<'a> {
    launch.u32(stream.seed).u32(stream.tensor).u32(stream.step).u32(stream.purpose)
}
