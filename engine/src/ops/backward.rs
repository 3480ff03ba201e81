//! The way back.

use crate::model::Rotary;
use crate::tensor::{Ids, Slice, SliceMut, Tensor, View};
use crate::trace::{Kind, record};
use kernels::attention::{self, Shape};
use kernels::device::{Base, DeviceError};
use kernels::{embedding as table_rows, matmul, residual, rms_norm as norm, rope as turn, swiglu as gate};

/// What attention remembers of its forward pass, and the gradient of its output.
pub struct Attended<'a> {
    /// Queries.
    pub q: &'a Tensor,
    /// Keys.
    pub k: &'a Tensor,
    /// Values.
    pub v: &'a Tensor,
    /// Output.
    pub o: &'a Tensor,
    /// Maxima of the rows.
    pub m: &'a Tensor,
    /// Sums of the rows.
    pub l: &'a Tensor,
    /// Gradient of the output.
    pub dout: &'a Tensor,
}

/// The gradient of a table [vocab, dim], added to `dtable`.
///
/// # Errors
/// The device has no memory left, or is lost; likewise below.
pub fn embedding_backward(
    vocab: usize,
    tokens: &Ids,
    dy: &Tensor,
    mut dtable: SliceMut<'_>,
) -> Result<(), DeviceError> {
    let dim = dy.cols();
    let reads = record::reads(&[dy.values(), dtable.as_slice()]);
    let done = match dy.values() {
        Slice::Host(dy) => {
            let args = table_rows::Backward { vocab, dim, tokens: tokens.host(), dy };
            table_rows::backward(&args, dtable.host());
            Ok(())
        }
        Slice::Cuda(device, dy) => {
            let tokens = tokens.cuda();
            let mut workspace = device.scratch(table_rows::cuda::workspace_len(tokens.len()))?;
            let args = table_rows::cuda::Backward { vocab, dim, tokens: &tokens, dy: &dy };
            table_rows::cuda::backward(device, &args, &mut dtable.cuda(), &mut workspace.view_mut())
        }
    };
    record::wrote(reads, done, Kind::EmbeddingBack { vocab, dim }, &[dtable.as_slice()])
}

/// The gradient of a norm's input, added to `sum` if there is one, and that of its weight, added to `dw`.
///
/// # Errors
/// As [`embedding_backward`].
pub fn rms_norm_backward(
    x: &Tensor,
    w: Slice<'_>,
    r: &Tensor,
    dy: &Tensor,
    sum: Option<Tensor>,
    mut dw: SliceMut<'_>,
) -> Result<Tensor, DeviceError> {
    let (rows, dim) = (x.rows(), x.cols());
    let adds = sum.is_some();
    let mut dx = sum.map_or_else(|| Tensor::unwritten(&w.device(), dy.shape()), Ok)?;
    let before = if adds { dx.values() } else { Slice::Host(&[]) };
    let reads = record::reads(&[x.values(), w, r.values(), dy.values(), dw.as_slice(), before]);
    match w {
        Slice::Host(w) => {
            let args = norm::Backward { rows, dim, x: x.data(), w, r: r.data(), dy: dy.data() };
            let backward = if adds { norm::backward_add } else { norm::backward };
            backward(&args, dx.data_mut(), dw.host());
        }
        Slice::Cuda(device, w) => {
            let (x, r, dy) = (x.cuda(), r.cuda(), dy.cuda());
            let mut workspace = device.scratch(norm::cuda::workspace_len(rows, dim))?;
            let args = norm::cuda::Backward { rows, dim, x: &x, w: &w, r: &r, dy: &dy };
            let base = if adds { Base::Output } else { Base::Nothing };
            let (mut dx, mut workspace) = (dx.cuda_mut(), workspace.view_mut());
            norm::cuda::backward_onto(device, &args, &base, &mut dx, &mut dw.cuda(), &mut workspace)?;
        }
    }
    record::wrote(reads, Ok(()), Kind::NormBack { dim, adds }, &[dx.values(), dw.as_slice()])?;
    Ok(dx)
}

/// `dw += dy^T * x`: [out, in] from [rows, out] and [rows, in].
///
/// # Errors
/// As [`embedding_backward`].
pub fn product_tn(dy: &Tensor, x: &Tensor, mut dw: SliceMut<'_>) -> Result<(), DeviceError> {
    let (m, n, k) = (dy.cols(), x.cols(), dy.rows());
    let reads = record::reads(&[dy.values(), x.values(), dw.as_slice()]);
    let done = match dy.values() {
        Slice::Host(a) => {
            matmul::tn(&matmul::Matmul { m, n, k, a, b: x.data() }, dw.host());
            Ok(())
        }
        Slice::Cuda(device, a) => {
            let args = matmul::cuda::Matmul { m, n, k, a: &a, b: &x.cuda() };
            matmul::cuda::tn(device, &args, &mut dw.cuda())
        }
    };
    record::wrote(reads, done, Kind::ProductTn { m, n, k }, &[dw.as_slice()])
}

/// `dy * w`, added to `sum` if there is one: [rows, in] from [rows, out] and [out, in].
///
/// # Errors
/// As [`embedding_backward`].
pub fn product_nn(dy: &Tensor, w: View<'_>, sum: Option<Tensor>) -> Result<Tensor, DeviceError> {
    let (m, n, k) = (dy.rows(), w.shape[1], w.shape[0]);
    let adds = sum.is_some();
    let mut dx = sum.map_or_else(|| Tensor::unwritten(&w.data.device(), &[m, n]), Ok)?;
    let before = if adds { dx.values() } else { Slice::Host(&[]) };
    let reads = record::reads(&[dy.values(), w.data, before]);
    match w.data {
        Slice::Host(b) => {
            let args = matmul::Matmul { m, n, k, a: dy.data(), b };
            let product = if adds { matmul::nn_add } else { matmul::nn };
            product(&args, dx.data_mut());
        }
        Slice::Cuda(device, b) => {
            let args = matmul::cuda::Matmul { m, n, k, a: &dy.cuda(), b: &b };
            let base = if adds { Base::Output } else { Base::Nothing };
            matmul::cuda::nn_onto(device, &args, &base, &mut dx.cuda_mut())?;
        }
    }
    record::wrote(reads, Ok(()), Kind::ProductNn { n, k, adds }, &[dx.values()])?;
    Ok(dx)
}

/// Turns the gradient `dy` back, to `dx`.
///
/// # Errors
/// As [`embedding_backward`].
pub fn rope_backward(rotary: &Rotary, dy: &Tensor, seq: usize, dx: &mut Tensor) -> Result<(), DeviceError> {
    let reads = record::reads(&[dy.values()]);
    let done = match dy.values() {
        Slice::Host(_) => {
            turn::backward(&rotary.args(dy, seq), dx.data_mut());
            Ok(())
        }
        Slice::Cuda(device, values) => {
            rotary.on_cuda(dy, seq, &values, |args| turn::cuda::backward(device, args, &mut dx.cuda_mut()))
        }
    };
    record::wrote(reads, done, rotary.kind(dy, seq, true), &[dx.values()])
}

/// The gradients of queries, keys and values, to `gradients`.
///
/// # Errors
/// As [`embedding_backward`].
pub fn attention_backward(
    shape: Shape,
    args: &Attended<'_>,
    gradients: [&mut Tensor; 3],
) -> Result<(), DeviceError> {
    let Attended { q, k, v, o, m, l, dout } = args;
    let [dq, dk, dv] = gradients;
    let reads = record::reads(&[
        q.values(),
        k.values(),
        v.values(),
        o.values(),
        m.values(),
        l.values(),
        dout.values(),
    ]);
    let done = match q.values() {
        Slice::Host(q) => {
            let (k, v, o, m, l) = (k.data(), v.data(), o.data(), m.data(), l.data());
            let args = attention::Backward { shape, q, k, v, o, m, l, dout: dout.data() };
            attention::backward(&args, dq.data_mut(), dk.data_mut(), dv.data_mut());
            Ok(())
        }
        Slice::Cuda(device, q) => {
            let (k, v, o, m, l, dout) = (k.cuda(), v.cuda(), o.cuda(), m.cuda(), l.cuda(), dout.cuda());
            let args =
                attention::cuda::Backward { shape, q: &q, k: &k, v: &v, o: &o, m: &m, l: &l, dout: &dout };
            let mut workspace = device.scratch(attention::cuda::workspace_len(&shape))?;
            let (mut dq, mut dk, mut dv) = (dq.cuda_mut(), dk.cuda_mut(), dv.cuda_mut());
            let mut workspace = workspace.view_mut();
            attention::cuda::backward(device, &args, &mut dq, &mut dk, &mut dv, &mut workspace)
        }
    };
    record::wrote(reads, done, Kind::AttentionBack(shape), &[dq.values(), dk.values(), dv.values()])
}

/// The gradients of gate and up projection, to `dg` and `du`.
///
/// # Errors
/// As [`embedding_backward`].
pub fn swiglu_backward(
    g: &Tensor,
    u: &Tensor,
    dh: &Tensor,
    dg: &mut Tensor,
    du: &mut Tensor,
) -> Result<(), DeviceError> {
    let reads = record::reads(&[g.values(), u.values(), dh.values()]);
    let done = match g.values() {
        Slice::Host(g) => {
            let args = gate::Backward { g, u: u.data(), dh: dh.data() };
            gate::backward(&args, dg.data_mut(), du.data_mut());
            Ok(())
        }
        Slice::Cuda(device, g) => {
            let args = gate::cuda::Backward { g: &g, u: &u.cuda(), dh: &dh.cuda() };
            gate::cuda::backward(device, &args, &mut dg.cuda_mut(), &mut du.cuda_mut())
        }
    };
    record::wrote(reads, done, Kind::SwiGluBack, &[dg.values(), du.values()])
}

/// `sum = sum + x`.
///
/// # Errors
/// As [`embedding_backward`].
pub fn accumulate(sum: &mut Tensor, x: &Tensor) -> Result<(), DeviceError> {
    let reads = record::reads(&[sum.values(), x.values()]);
    let done = match x.values() {
        Slice::Host(x) => {
            residual::accumulate(sum.data_mut(), x);
            Ok(())
        }
        Slice::Cuda(device, x) => residual::cuda::accumulate(device, &mut sum.cuda_mut(), &x),
    };
    record::wrote(reads, done, Kind::Accumulate, &[sum.values()])
}
