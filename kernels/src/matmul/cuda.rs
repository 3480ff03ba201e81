//! Launches the matrix products on a CUDA device.

use super::GRADIENT_TOKENS;
use crate::common::shape::expect_len;
use crate::device::{Base, CudaDevice, DeviceError, Grid, Source, View, ViewMut, count32, shared};

/// The room's kernels.
pub const SOURCE: Source = Source {
    name: "matmul",
    pieces: &[shared::VECTOR, shared::EXP, shared::GATE, include_str!("matmul.cu")],
};

/// Inputs of a product, on the device; as [`super::Matmul`].
#[derive(Debug)]
pub struct Matmul<'a> {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Length of the sum.
    pub k: usize,
    /// A: m x k for `nn` and `nt`, k x m for `tn`.
    pub a: &'a View<'a, f32>,
    /// B: k x n for `nn` and `tn`, n x k for `nt`.
    pub b: &'a View<'a, f32>,
}

/// What a block computes. The bits are the same on every rung that can take the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// 128 x 128 outputs, operands read in float4.
    Tile128,
    /// 64 x 64 outputs, operands read in float4.
    Tile64,
    /// 64 x 64 outputs, any shape, any alignment.
    Any,
}

/// Which sides of the operands the sum runs along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `C = A * B`.
    Nn,
    /// `C = A * B^T`.
    Nt,
    /// `C += A^T * B`.
    Tn,
}

/// Queues `C = A * B`: A is m x k, B is k x n, `c` is m x n.
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`]; [`DeviceError::TooLarge`].
pub fn nn(device: &CudaDevice, args: &Matmul<'_>, c: &mut ViewMut<'_, f32>) -> Result<(), DeviceError> {
    nn_onto(device, args, &Base::Nothing, c)
}

/// Queues `C = base + A * B`, as [`nn`] and [`crate::residual::add`] would do.
///
/// # Errors
/// As [`nn`].
pub fn nn_onto(
    device: &CudaDevice,
    args: &Matmul<'_>,
    base: &Base<'_>,
    c: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    product_on(device, fitting(device, args.m, args.n), Layout::Nn, args, base, c)
}

/// Queues `C = A * B^T`: A is m x k, B is n x k, `c` is m x n.
///
/// # Errors
/// As [`nn`].
pub fn nt(device: &CudaDevice, args: &Matmul<'_>, c: &mut ViewMut<'_, f32>) -> Result<(), DeviceError> {
    nt_onto(device, args, &Base::Nothing, c)
}

/// Queues `C = base + A * B^T`, as [`nt`] and [`crate::residual::add`] would do.
///
/// # Errors
/// As [`nn`].
pub fn nt_onto(
    device: &CudaDevice,
    args: &Matmul<'_>,
    base: &Base<'_>,
    c: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    product_on(device, fitting(device, args.m, args.n), Layout::Nt, args, base, c)
}

/// Queues `C += A^T * B`: A is k x m, B is k x n, `c` is m x n and accumulates, one add per chunk of 2048 k.
///
/// # Errors
/// As [`nn`].
pub fn tn(device: &CudaDevice, args: &Matmul<'_>, c: &mut ViewMut<'_, f32>) -> Result<(), DeviceError> {
    product_on(device, fitting(device, args.m, args.n), Layout::Tn, args, &Base::Output, c)
}

/// Large tiles read less, but only if there is one for every multiprocessor.
fn fitting(device: &CudaDevice, m: usize, n: usize) -> Rung {
    let tiles = m.div_ceil(128) * n.div_ceil(128);
    if tiles >= device.multiprocessors() as usize { Rung::Tile128 } else { Rung::Tile64 }
}

/// A product on a chosen rung (`tn` adds to `c` whatever `base` says), or on [`Rung::Any`] if the shape or the alignment asks for it.
///
/// # Errors
/// As [`nn`].
pub fn product_on(
    device: &CudaDevice,
    rung: Rung,
    layout: Layout,
    args: &Matmul<'_>,
    base: &Base<'_>,
    c: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "matmul::cuda";
    expect_len(op, "a", args.a.len(), args.m * args.k);
    expect_len(op, "b", args.b.len(), args.k * args.n);
    expect_len(op, "c", c.len(), args.m * args.n);
    if let Base::View(base) = base {
        expect_len(op, "base", base.len(), args.m * args.n);
    }
    if args.m == 0 || args.n == 0 {
        return Ok(());
    }
    if layout != Layout::Tn {
        return chain(device, rung, layout, args, base, c);
    }
    for first in (0..args.k).step_by(GRADIENT_TOKENS) {
        let k = GRADIENT_TOKENS.min(args.k - first);
        let (a, b) = (
            args.a.slice(first * args.m..(first + k) * args.m),
            args.b.slice(first * args.n..(first + k) * args.n),
        );
        chain(device, rung, layout, &Matmul { k, a: &a, b: &b, ..*args }, &Base::Output, c)?;
    }
    Ok(())
}

/// One chain of products per output.
fn chain(
    device: &CudaDevice,
    rung: Rung,
    layout: Layout,
    args: &Matmul<'_>,
    base: &Base<'_>,
    c: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "matmul::cuda";
    let (m, n, k) = (count32(op, "m", args.m)?, count32(op, "n", args.n)?, count32(op, "k", args.k)?);
    let vectors = [m, n, k].iter().all(|side| side.is_multiple_of(4))
        && device.is_aligned(args.a)
        && device.is_aligned(args.b)
        && device.is_aligned(c)
        && !matches!(base, Base::View(base) if !device.is_aligned(*base));
    let rung = if vectors { rung } else { Rung::Any };
    let (tile, threads) = if rung == Rung::Tile128 { (128, 256) } else { (64, 64) };
    let tiles = args.m.div_ceil(tile) * args.n.div_ceil(tile);
    let launch = device.launch(&SOURCE, entry(layout, rung))?.read(args.a).read(args.b);
    let launch = launch.write_onto(base, c).u32(m).u32(n).u32(k);
    // SAFETY: a block takes one of `tiles` tiles and touches rows and columns below m, n and k; the views have these
    // sizes, and begin on 16 bytes where the kernel reads float4.
    unsafe { launch.run(Grid { x: count32(op, "tiles", tiles)?, y: 1, threads }) }
}

/// Inputs of the gated product, on the device.
#[derive(Debug)]
pub struct Gated<'a> {
    /// Rows of x and of the outputs.
    pub m: usize,
    /// Columns of the outputs.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Input, m x k.
    pub x: &'a View<'a, f32>,
    /// Weights of the gate, n x k.
    pub gate: &'a View<'a, f32>,
    /// Weights of the up projection, n x k.
    pub up: &'a View<'a, f32>,
}

/// Queues `g = x * gate^T`, `u = x * up^T` and `h = swiglu(g, u)`, as two [`nt`] and [`crate::swiglu::cuda::forward`]
/// would do, all m x n. Nothing is read again; without `products` g and u are not even written.
///
/// # Errors
/// As [`nn`].
pub fn gated(
    device: &CudaDevice,
    args: &Gated<'_>,
    products: Option<(&mut ViewMut<'_, f32>, &mut ViewMut<'_, f32>)>,
    h: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    // A tile takes two products for half as many columns.
    gated_on(device, fitting(device, args.m, 2 * args.n), args, products, h)
}

/// As [`gated`], on a chosen rung, or on [`Rung::Any`] if the shape or the alignment asks for it.
///
/// # Errors
/// As [`nn`].
pub fn gated_on(
    device: &CudaDevice,
    rung: Rung,
    args: &Gated<'_>,
    products: Option<(&mut ViewMut<'_, f32>, &mut ViewMut<'_, f32>)>,
    h: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let op = "matmul::cuda::gated";
    expect_len(op, "x", args.x.len(), args.m * args.k);
    expect_len(op, "gate", args.gate.len(), args.n * args.k);
    expect_len(op, "up", args.up.len(), args.n * args.k);
    expect_len(op, "h", h.len(), args.m * args.n);
    let (m, n, k) = (count32(op, "m", args.m)?, count32(op, "n", args.n)?, count32(op, "k", args.k)?);
    let mut vectors = [m, n, k].iter().all(|side| side.is_multiple_of(4))
        && [args.x, args.gate, args.up].iter().all(|view| device.is_aligned(*view))
        && device.is_aligned(h);
    if let Some((g, u)) = &products {
        expect_len(op, "g", g.len(), args.m * args.n);
        expect_len(op, "u", u.len(), args.m * args.n);
        vectors &= device.is_aligned(&**g) && device.is_aligned(&**u);
    }
    if args.m == 0 || args.n == 0 {
        return Ok(());
    }
    let (entry, tile, threads) = match if vectors { rung } else { Rung::Any } {
        Rung::Tile128 => ("matmul_gated_128", 128, 256),
        Rung::Tile64 => ("matmul_gated_64", 64, 64),
        Rung::Any => ("matmul_gated_any", 64, 64),
    };
    let tiles = args.m.div_ceil(tile) * args.n.div_ceil(tile / 2);
    let launch = device.launch(&SOURCE, entry)?.read(args.x).read(args.gate).read(args.up);
    let launch = match products {
        None => launch.nothing().nothing(),
        Some((g, u)) => launch.write(g).write(u),
    };
    let launch = launch.write(h).u32(m).u32(n).u32(k);
    // SAFETY: a block takes one of `tiles` tiles and touches rows and columns below m, n and k; the views have these
    // sizes, and begin on 16 bytes where the kernel reads float4.
    unsafe { launch.run(Grid { x: count32(op, "tiles", tiles)?, y: 1, threads }) }
}

fn entry(layout: Layout, rung: Rung) -> &'static str {
    match (layout, rung) {
        (Layout::Nn, Rung::Tile128) => "matmul_nn_128",
        (Layout::Nn, Rung::Tile64) => "matmul_nn_64",
        (Layout::Nn, Rung::Any) => "matmul_nn_any",
        (Layout::Nt, Rung::Tile128) => "matmul_nt_128",
        (Layout::Nt, Rung::Tile64) => "matmul_nt_64",
        (Layout::Nt, Rung::Any) => "matmul_nt_any",
        (Layout::Tn, Rung::Tile128) => "matmul_tn_128",
        (Layout::Tn, Rung::Tile64) => "matmul_tn_64",
        (Layout::Tn, Rung::Any) => "matmul_tn_any",
    }
}
