//! The way to the loss.

use crate::model::Rotary;
use crate::tensor::{Ids, Slice, Tensor, View};
use crate::trace::{Kind, record};
use kernels::attention::{self, Shape};
use kernels::device::{Base, DeviceError};
use kernels::{embedding as table_rows, matmul, rms_norm as norm, rope as turn, swiglu as gate};

/// Rows of `table` [vocab, dim] by token, to `y`.
///
/// # Errors
/// The device has no memory left, or is lost; likewise below.
pub fn embedding(table: View<'_>, tokens: &Ids, y: &mut Tensor) -> Result<(), DeviceError> {
    let (vocab, dim) = (table.shape[0], table.shape[1]);
    let reads = record::reads(&[table.data]);
    let done = match table.data {
        Slice::Host(table) => {
            let args = table_rows::Forward { vocab, dim, tokens: tokens.host(), table };
            table_rows::forward(&args, y.data_mut());
            Ok(())
        }
        Slice::Cuda(device, table) => {
            let args = table_rows::cuda::Forward { vocab, dim, tokens: &tokens.cuda(), table: &table };
            table_rows::cuda::forward(device, &args, &mut y.cuda_mut())
        }
    };
    record::wrote(reads, done, Kind::Embedding { vocab, dim }, &[y.values()])
}

/// Rows of `x` over their root mean square times `w`, to `y`; the reciprocal roots to `r`.
///
/// # Errors
/// As [`embedding`].
pub fn rms_norm(
    x: &Tensor,
    w: Slice<'_>,
    eps: f32,
    y: &mut Tensor,
    r: &mut Tensor,
) -> Result<(), DeviceError> {
    let (rows, dim) = (x.rows(), x.cols());
    let reads = record::reads(&[x.values(), w]);
    let done = match w {
        Slice::Host(w) => {
            let args = norm::Forward { rows, dim, eps, x: x.data(), w };
            norm::forward(&args, y.data_mut(), r.data_mut());
            Ok(())
        }
        Slice::Cuda(device, w) => {
            let args = norm::cuda::Forward { rows, dim, eps, x: &x.cuda(), w: &w };
            norm::cuda::forward(device, &args, &mut y.cuda_mut(), &mut r.cuda_mut())
        }
    };
    record::wrote(reads, done, Kind::Norm { dim, eps }, &[y.values(), r.values()])
}

/// `x * w^T`, to which `base` is added if there is one, to `y`: [rows, out] from [rows, in] and [out, in].
///
/// # Errors
/// As [`embedding`].
pub fn product_nt(x: &Tensor, w: View<'_>, base: Option<&Tensor>, y: &mut Tensor) -> Result<(), DeviceError> {
    let (m, n, k) = (x.rows(), w.shape[0], w.shape[1]);
    let adds = base.is_some();
    let reads = record::reads(&[x.values(), w.data, base.map_or(Slice::Host(&[]), Tensor::values)]);
    let done = match w.data {
        Slice::Host(b) => {
            let args = matmul::Matmul { m, n, k, a: x.data(), b };
            match base {
                Some(base) => matmul::nt_add(&args, base.data(), y.data_mut()),
                None => matmul::nt(&args, y.data_mut()),
            }
            Ok(())
        }
        Slice::Cuda(device, b) => {
            let args = matmul::cuda::Matmul { m, n, k, a: &x.cuda(), b: &b };
            let base = base.map(Tensor::cuda);
            let base = base.as_ref().map_or(Base::Nothing, Base::View);
            matmul::cuda::nt_onto(device, &args, &base, &mut y.cuda_mut())
        }
    };
    record::wrote(reads, done, Kind::ProductNt { n, k, adds }, &[y.values()])
}

/// `g = x * gate^T`, `u = x * up^T`, and `h = silu(g) * u`.
///
/// # Errors
/// As [`embedding`].
pub fn gated(
    x: &Tensor,
    weights: [View<'_>; 2],
    g: &mut Tensor,
    u: &mut Tensor,
    h: &mut Tensor,
) -> Result<(), DeviceError> {
    let [gate, up] = weights;
    match gate.data {
        Slice::Host(_) => {
            product_nt(x, gate, None, g)?;
            product_nt(x, up, None, u)?;
            swiglu(g, u, h)
        }
        Slice::Cuda(device, gate_values) => {
            let (m, n, k) = (x.rows(), gate.shape[0], gate.shape[1]);
            let nothing = Slice::Host(&[]);
            let reads = [gate.data, up.data].map(|weight| record::reads(&[x.values(), weight, nothing]));
            let (x, up) = (x.cuda(), up.data.cuda());
            let args = matmul::cuda::Gated { m, n, k, x: &x, gate: &gate_values, up: &up };
            let products = Some((&mut g.cuda_mut(), &mut u.cuda_mut()));
            let done = matmul::cuda::gated(device, &args, products, &mut h.cuda_mut());
            // One kernel here, three ops all the same.
            let [of_gate, of_up] = reads;
            record::wrote(of_gate, done, Kind::ProductNt { n, k, adds: false }, &[g.values()])?;
            record::wrote(of_up, Ok(()), Kind::ProductNt { n, k, adds: false }, &[u.values()])?;
            let reads = record::reads(&[g.values(), u.values()]);
            record::wrote(reads, Ok(()), Kind::SwiGlu, &[h.values()])
        }
    }
}

/// `silu(g) * u`, to `h`.
///
/// # Errors
/// As [`embedding`].
pub fn swiglu(g: &Tensor, u: &Tensor, h: &mut Tensor) -> Result<(), DeviceError> {
    let reads = record::reads(&[g.values(), u.values()]);
    let done = match g.values() {
        Slice::Host(g) => {
            gate::forward(&gate::Forward { g, u: u.data() }, h.data_mut());
            Ok(())
        }
        Slice::Cuda(device, g) => {
            gate::cuda::forward(device, &gate::cuda::Forward { g: &g, u: &u.cuda() }, &mut h.cuda_mut())
        }
    };
    record::wrote(reads, done, Kind::SwiGlu, &[h.values()])
}

/// `x`, sequences of `seq` rows, with every head turned by the angle of its token's position, to `y`.
///
/// # Errors
/// As [`embedding`].
pub fn rope(rotary: &Rotary, x: &Tensor, seq: usize, y: &mut Tensor) -> Result<(), DeviceError> {
    let reads = record::reads(&[x.values()]);
    let done = match x.values() {
        Slice::Host(_) => {
            turn::forward(&rotary.args(x, seq), y.data_mut());
            Ok(())
        }
        Slice::Cuda(device, values) => {
            rotary.on_cuda(x, seq, &values, |args| turn::cuda::forward(device, args, &mut y.cuda_mut()))
        }
    };
    record::wrote(reads, done, rotary.kind(x, seq, false), &[y.values()])
}

/// Causal attention of `q` over `k` and `v`, to `o`; maxima and sums of the rows to `m` and `l`.
///
/// # Errors
/// As [`embedding`].
pub fn attention(
    shape: Shape,
    [q, k, v]: [&Tensor; 3],
    o: &mut Tensor,
    m: &mut Tensor,
    l: &mut Tensor,
) -> Result<(), DeviceError> {
    let reads = record::reads(&[q.values(), k.values(), v.values()]);
    let done = match q.values() {
        Slice::Host(q) => {
            let args = attention::Forward { shape, q, k: k.data(), v: v.data() };
            attention::forward(&args, o.data_mut(), m.data_mut(), l.data_mut());
            Ok(())
        }
        Slice::Cuda(device, q) => {
            let args = attention::cuda::Forward { shape, q: &q, k: &k.cuda(), v: &v.cuda() };
            let (mut o, mut m, mut l) = (o.cuda_mut(), m.cuda_mut(), l.cuda_mut());
            attention::cuda::forward(device, &args, &mut o, &mut m, &mut l)
        }
    };
    record::wrote(reads, done, Kind::Attention(shape), &[o.values(), m.values(), l.values()])
}
