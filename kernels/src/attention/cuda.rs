//! Launches attention on a CUDA device.

use super::Shape;
use crate::common::shape::{expect_len, expect_workspace};
use crate::device::{CudaDevice, DeviceError, Grid, Source, View, ViewMut, count32, shared};

/// The room's kernels.
pub const SOURCE: Source = Source {
    name: "attention",
    pieces: &[
        shared::VECTOR,
        shared::REDUCE,
        shared::EXP,
        include_str!("tiles.cuh"),
        include_str!("pair.cuh"),
        include_str!("backward.cuh"),
        include_str!("attention.cu"),
    ],
};

/// Longest head that the kernels take.
pub const HEAD_DIM_MAX: usize = 128;

/// Inputs of the forward pass, on the device; as [`super::Forward`].
#[derive(Debug)]
pub struct Forward<'a> {
    /// Sizes; heads of at most [`HEAD_DIM_MAX`] elements.
    pub shape: Shape,
    /// Queries, (batch*seq) x (heads*head_dim).
    pub q: &'a View<'a, f32>,
    /// Keys, (batch*seq) x (kv_heads*head_dim).
    pub k: &'a View<'a, f32>,
    /// Values, (batch*seq) x (kv_heads*head_dim).
    pub v: &'a View<'a, f32>,
}

/// Inputs of the backward pass, on the device; as [`super::Backward`].
#[derive(Debug)]
pub struct Backward<'a> {
    /// Sizes; heads of at most [`HEAD_DIM_MAX`] elements.
    pub shape: Shape,
    /// Queries, (batch*seq) x (heads*head_dim).
    pub q: &'a View<'a, f32>,
    /// Keys, (batch*seq) x (kv_heads*head_dim).
    pub k: &'a View<'a, f32>,
    /// Values, (batch*seq) x (kv_heads*head_dim).
    pub v: &'a View<'a, f32>,
    /// Output of the forward pass, (batch*seq) x (heads*head_dim).
    pub o: &'a View<'a, f32>,
    /// Row maxima (base 2) of the forward pass, batch x heads x seq.
    pub m: &'a View<'a, f32>,
    /// Row sums of the forward pass, batch x heads x seq.
    pub l: &'a View<'a, f32>,
    /// Gradient of the output, (batch*seq) x (heads*head_dim).
    pub dout: &'a View<'a, f32>,
}

/// How long a head a kernel can take. The bits are the same on every rung that can hold the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Up to 64 elements.
    Head64,
    /// Up to 128 elements.
    Head128,
}

/// Rows of a block: queries, or keys in the gradient of keys and values.
const ROWS: usize = 64;
/// Rows of a block of the preparation, one for each warp.
const PREPARE_ROWS: usize = 8;
const THREADS_OF_WARP: u32 = 32;

/// Queues the forward pass: the output to `o`, row maxima to `m`, row sums to `l`.
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`]; [`DeviceError::TooLarge`], also for heads of more than
/// [`HEAD_DIM_MAX`] elements.
pub fn forward(
    device: &CudaDevice,
    args: &Forward<'_>,
    o: &mut ViewMut<'_, f32>,
    m: &mut ViewMut<'_, f32>,
    l: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    forward_on(device, Rung::Head64, args, o, m, l)
}

/// As [`forward`], on a chosen rung or a longer one if that cannot hold the heads.
///
/// # Errors
/// As [`forward`].
pub fn forward_on(
    device: &CudaDevice,
    rung: Rung,
    args: &Forward<'_>,
    o: &mut ViewMut<'_, f32>,
    m: &mut ViewMut<'_, f32>,
    l: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let (op, shape) = ("attention::cuda::forward", &args.shape);
    for (what, len) in [("q", args.q.len()), ("o", o.len())] {
        expect_len(op, what, len, shape.query_len());
    }
    for (what, len) in [("k", args.k.len()), ("v", args.v.len())] {
        expect_len(op, what, len, shape.key_len());
    }
    for (what, len) in [("m", m.len()), ("l", l.len())] {
        expect_len(op, what, len, shape.stat_len());
    }
    let sizes = Sizes::of(op, rung, shape)?;
    if shape.query_len() == 0 {
        return Ok(());
    }
    let in_fours = sizes.in_fours(device, &[args.q, args.k, args.v]) && device.is_aligned(o);
    let entry = sizes.choose("attention_forward_64", "attention_forward_128");
    let launch = device.launch(&SOURCE, entry)?.read(args.q).read(args.k).read(args.v);
    let launch = launch.write(o).write(m).write(l).u32(sizes.seq).u32(sizes.heads).u32(sizes.kv_heads);
    let launch = launch.u32(sizes.head_dim).f32(shape.scales().1).u32(u32::from(in_fours));
    // SAFETY: a block takes a tile of one head of one sequence; rows and columns are kept below `seq`, elements below
    // `head_dim`; the views have that size, and begin on 16 bytes where the kernel reads float4.
    unsafe { launch.run(tiles(op, shape, shape.heads)?) }
}

/// Elements of the workspace of [`backward`]: two numbers per query and head.
pub fn workspace_len(shape: &Shape) -> usize {
    2 * shape.stat_len()
}

/// Queues the backward pass: the gradients of queries, keys and values. `workspace` holds at least [`workspace_len`]
/// elements; what it holds before and after means nothing.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    device: &CudaDevice,
    args: &Backward<'_>,
    dq: &mut ViewMut<'_, f32>,
    dk: &mut ViewMut<'_, f32>,
    dv: &mut ViewMut<'_, f32>,
    workspace: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    backward_on(device, Rung::Head64, args, dq, dk, dv, workspace)
}

/// As [`backward`], on a chosen rung or a longer one if that cannot hold the heads.
///
/// # Errors
/// As [`forward`].
pub fn backward_on(
    device: &CudaDevice,
    rung: Rung,
    args: &Backward<'_>,
    dq: &mut ViewMut<'_, f32>,
    dk: &mut ViewMut<'_, f32>,
    dv: &mut ViewMut<'_, f32>,
    workspace: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let (op, shape) = ("attention::cuda::backward", &args.shape);
    for (what, len) in [("q", args.q.len()), ("o", args.o.len()), ("dout", args.dout.len()), ("dq", dq.len())]
    {
        expect_len(op, what, len, shape.query_len());
    }
    for (what, len) in [("k", args.k.len()), ("v", args.v.len()), ("dk", dk.len()), ("dv", dv.len())] {
        expect_len(op, what, len, shape.key_len());
    }
    expect_len(op, "m", args.m.len(), shape.stat_len());
    expect_len(op, "l", args.l.len(), shape.stat_len());
    expect_workspace(op, workspace.len(), workspace_len(shape));
    let sizes = Sizes::of(op, rung, shape)?;
    if shape.query_len() == 0 {
        return Ok(());
    }
    let in_fours = sizes.in_fours(device, &[args.q, args.k, args.v, args.o, args.dout])
        && [&*dq, &*dk, &*dv].into_iter().all(|view| device.is_aligned(view));
    let in_fours = u32::from(in_fours);
    let (scale, c2) = shape.scales();

    let (mut big_d, mut inverse) = workspace.split_at_mut(shape.stat_len());
    let launch = device.launch(&SOURCE, "attention_prepare")?.read(args.o).read(args.dout).read(args.l);
    let launch = launch.write(&mut big_d).write(&mut inverse).u32(sizes.seq).u32(sizes.heads);
    let blocks = shape.seq.div_ceil(PREPARE_ROWS) * shape.heads * shape.batch;
    let blocks = count32(op, "groups of rows", blocks)?;
    let grid = Grid { x: blocks, y: 1, threads: PREPARE_ROWS as u32 * THREADS_OF_WARP };
    // SAFETY: a block takes rows of one head below `seq` and elements below `head_dim`; the views have that size, and
    // begin on 16 bytes where the kernel reads float4.
    unsafe { launch.u32(sizes.head_dim).u32(in_fours).run(grid) }?;

    let (big_d, inverse) = (big_d.slice(..), inverse.slice(..));
    let entry = sizes.choose("attention_backward_queries_64", "attention_backward_queries_128");
    let launch = device.launch(&SOURCE, entry)?.read(args.q).read(args.k).read(args.v).read(args.dout);
    let launch = launch.read(args.m).read(&big_d).read(&inverse).write(dq);
    let launch = launch.u32(sizes.seq).u32(sizes.heads).u32(sizes.kv_heads).u32(sizes.head_dim);
    // SAFETY: as in the forward pass.
    unsafe { launch.f32(scale).f32(c2).u32(in_fours).run(tiles(op, shape, shape.heads)?) }?;

    let entry = sizes.choose("attention_backward_keys_64", "attention_backward_keys_128");
    let launch = device.launch(&SOURCE, entry)?.read(args.q).read(args.k).read(args.v).read(args.dout);
    let launch = launch.read(args.m).read(&big_d).read(&inverse).write(dk).write(dv);
    let launch = launch.u32(sizes.seq).u32(sizes.heads).u32(sizes.kv_heads).u32(sizes.head_dim);
    // SAFETY: as in the forward pass, a head being one of the keys' and all query heads that read it.
    unsafe { launch.f32(scale).f32(c2).u32(in_fours).run(tiles(op, shape, shape.kv_heads)?) }
}

/// A shape as kernels count it.
struct Sizes {
    rung: Rung,
    seq: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
}

impl Sizes {
    fn of(op: &'static str, rung: Rung, shape: &Shape) -> Result<Self, DeviceError> {
        shape.check();
        if shape.head_dim > HEAD_DIM_MAX {
            return Err(DeviceError::TooLarge {
                op,
                what: "head_dim",
                found: shape.head_dim,
                most: HEAD_DIM_MAX,
            });
        }
        // Offsets within a sequence are counted in 64 bits, distances between its rows in 32.
        count32(op, "elements of a row", shape.heads * shape.head_dim)?;
        Ok(Self {
            rung: rung.max(if shape.head_dim > 64 { Rung::Head128 } else { Rung::Head64 }),
            seq: count32(op, "seq", shape.seq)?,
            heads: count32(op, "heads", shape.heads)?,
            kv_heads: count32(op, "kv_heads", shape.kv_heads)?,
            head_dim: count32(op, "head_dim", shape.head_dim)?,
        })
    }

    fn in_fours(&self, device: &CudaDevice, views: &[&View<'_, f32>]) -> bool {
        self.head_dim.is_multiple_of(4) && views.iter().all(|view| device.is_aligned(*view))
    }

    fn choose(&self, up_to_64: &'static str, up_to_128: &'static str) -> &'static str {
        match self.rung {
            Rung::Head64 => up_to_64,
            Rung::Head128 => up_to_128,
        }
    }
}

/// A block for each tile of rows of each head of each sequence.
fn tiles(op: &'static str, shape: &Shape, heads: usize) -> Result<Grid, DeviceError> {
    let blocks = shape.seq.div_ceil(ROWS) * heads * shape.batch;
    Ok(Grid { x: count32(op, "tiles", blocks)?, y: 1, threads: Grid::DECLARED })
}
