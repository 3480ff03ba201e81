//! Launches AdamW on a CUDA device.

use super::Constants;
use crate::common::shape::expect_len;
use crate::device::{CudaDevice, DeviceError, Grid, Source, View, ViewMut, shared};

/// The room's kernels.
pub const SOURCE: Source = Source { name: "adamw", pieces: &[shared::VECTOR, include_str!("adamw.cu")] };

/// Inputs of a step, on the device; as [`super::Step`].
#[derive(Debug)]
pub struct Step<'a> {
    /// What all elements share.
    pub constants: Constants,
    /// Gradient.
    pub g: &'a View<'a, f32>,
    /// The factor of the gradient where the device has computed it ([`crate::reduce::cuda::clip_scale`]), one element;
    /// else that of `constants` counts.
    pub clip: Option<&'a View<'a, f32>>,
}

/// Elements that a thread takes at a time.
const ELEMENTS: usize = 4;

/// Queues one step: moves the weights `p` and the moments `m`, `v`; all four views are of one length.
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`].
pub fn step(
    device: &CudaDevice,
    args: &Step<'_>,
    p: &mut ViewMut<'_, f32>,
    m: &mut ViewMut<'_, f32>,
    v: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let grid = Grid::striding(device, args.g.len().div_ceil(ELEMENTS));
    step_on(device, grid, args, p, m, v)
}

/// As [`step`], on a chosen grid.
///
/// # Errors
/// As [`step`].
pub fn step_on(
    device: &CudaDevice,
    grid: Grid,
    args: &Step<'_>,
    p: &mut ViewMut<'_, f32>,
    m: &mut ViewMut<'_, f32>,
    v: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "adamw::cuda::step";
    expect_len(op, "p", p.len(), args.g.len());
    expect_len(op, "m", m.len(), args.g.len());
    expect_len(op, "v", v.len(), args.g.len());
    if let Some(clip) = args.clip {
        expect_len(op, "clip", clip.len(), 1);
    }
    if args.g.is_empty() {
        return Ok(());
    }
    let k = &args.constants;
    let launch =
        device.launch(&SOURCE, "adamw")?.write(p).write(m).write(v).read(args.g).u64(args.g.len() as u64);
    let launch = launch.f32(k.beta1).f32(k.one_minus_beta1).f32(k.beta2).f32(k.one_minus_beta2);
    let launch = launch.f32(k.c1).f32(k.c2).f32(k.eps).f32(k.minus_lr).f32(k.decay).f32(k.grad_scale);
    let launch = match args.clip {
        Some(clip) => launch.read(clip),
        None => launch.nothing(),
    };
    // SAFETY: the kernel strides over elements below the length that all four views have, and reads one clip scale.
    unsafe { launch.run(grid) }
}
