//! Launches SwiGLU on a CUDA device.

use crate::common::shape::expect_len;
use crate::device::{CudaDevice, DeviceError, Grid, Source, View, ViewMut, shared};

/// The room's kernels.
pub const SOURCE: Source = Source {
    name: "swiglu",
    pieces: &[shared::VECTOR, shared::EXP, shared::GATE, include_str!("swiglu.cu")],
};

/// Inputs of the forward pass, on the device; as [`super::Forward`].
#[derive(Debug)]
pub struct Forward<'a> {
    /// Gate.
    pub g: &'a View<'a, f32>,
    /// Up projection.
    pub u: &'a View<'a, f32>,
}

/// Inputs of the backward pass, on the device; as [`super::Backward`].
#[derive(Debug)]
pub struct Backward<'a> {
    /// Gate.
    pub g: &'a View<'a, f32>,
    /// Up projection.
    pub u: &'a View<'a, f32>,
    /// Gradient of the output.
    pub dh: &'a View<'a, f32>,
}

/// Elements that a thread takes at a time.
const ELEMENTS: usize = 4;

/// Queues the forward pass, which writes `h`; all views are of one length.
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`].
pub fn forward(device: &CudaDevice, args: &Forward<'_>, h: &mut ViewMut<'_, f32>) -> Result<(), DeviceError> {
    forward_on(device, Grid::striding(device, args.g.len().div_ceil(ELEMENTS)), args, h)
}

/// As [`forward`], on a chosen grid.
///
/// # Errors
/// As [`forward`].
pub fn forward_on(
    device: &CudaDevice,
    grid: Grid,
    args: &Forward<'_>,
    h: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "swiglu::cuda::forward";
    expect_len(op, "u", args.u.len(), args.g.len());
    expect_len(op, "h", h.len(), args.g.len());
    if args.g.is_empty() {
        return Ok(());
    }
    let launch = device.launch(&SOURCE, "swiglu_forward")?.read(args.g).read(args.u).write(h);
    // SAFETY: the kernel strides over elements below the length that all three views have.
    unsafe { launch.u64(args.g.len() as u64).run(grid) }
}

/// Queues the backward pass, which writes the gradients of gate and up projection; all views are of one length.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    device: &CudaDevice,
    args: &Backward<'_>,
    dg: &mut ViewMut<'_, f32>,
    du: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    backward_on(device, Grid::striding(device, args.g.len().div_ceil(ELEMENTS)), args, dg, du)
}

/// As [`backward`], on a chosen grid.
///
/// # Errors
/// As [`forward`].
pub fn backward_on(
    device: &CudaDevice,
    grid: Grid,
    args: &Backward<'_>,
    dg: &mut ViewMut<'_, f32>,
    du: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "swiglu::cuda::backward";
    for (what, len) in [("u", args.u.len()), ("dh", args.dh.len()), ("dg", dg.len()), ("du", du.len())] {
        expect_len(op, what, len, args.g.len());
    }
    if args.g.is_empty() {
        return Ok(());
    }
    let launch = device.launch(&SOURCE, "swiglu_backward")?;
    let launch = launch.read(args.g).read(args.u).read(args.dh).write(dg).write(du);
    // SAFETY: the kernel strides over elements below the length that all five views have.
    unsafe { launch.u64(args.g.len() as u64).run(grid) }
}
