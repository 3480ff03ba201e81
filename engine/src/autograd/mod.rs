//! A tape: what was computed, in order, and how to go back.
//!
//! Every op appends one node that owns its output and what its backward needs. [`Tape::backward`] visits the nodes from
//! the last to the first. When it reaches a node, all of the node's consumers, which stand later, have handed it their
//! gradients.
//!
//! **Fold order.** A value used several times gets the sum of its consumers' gradients in the order in which backward
//! meets them: the first is taken as it is, each further one is added by `sum = sum + x`. So consumers count from the
//! last on the tape to the first, and, within one op, from its first operand to its last. Three consumers q, k, v, made
//! in that order, give `(dv + dk) + dq`. Gradients of parameters go straight into the caller's accumulating buffers, in
//! the same order of nodes; the kernels say how one op adds to them.

mod backward;

use crate::model::{Layout, Rotary};
use crate::tensor::{Tensor, View};
use kernels::attention::Shape;
use kernels::{attention, cross_entropy, embedding, matmul, residual, rms_norm, rope, swiglu};
use std::sync::Arc;

/// A value on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Var(usize);

/// A parameter: its place in the stage's [`Layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterId(pub usize);

/// The parameters that ops read: a stage's flat array and where each tensor stands in it.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a> {
    /// Names, shapes, places.
    pub layout: &'a Layout,
    /// Values, flat, in canonical order.
    pub values: &'a [f32],
}

/// The record of one forward pass.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    op: Op,
    value: Tensor,
}

#[derive(Debug)]
enum Op {
    Input,
    Embedding { table: ParameterId, tokens: Vec<u32> },
    RmsNorm { x: Var, weight: ParameterId, r: Vec<f32> },
    Linear { x: Var, weight: ParameterId },
    Rope { x: Var, rotary: Arc<Rotary>, seq: usize },
    Attention { q: Var, k: Var, v: Var, shape: Shape, m: Vec<f32>, l: Vec<f32> },
    SwiGlu { gate: Var, up: Var },
    Add { a: Var, b: Var },
    CrossEntropy { logits: Var, gradient: Tensor },
}

impl<'a> Parameters<'a> {
    /// One parameter, borrowed.
    pub fn view(&self, id: ParameterId) -> View<'a> {
        let entry = &self.layout.entries()[id.0];
        View { shape: &entry.shape, data: &self.values[entry.range.clone()] }
    }
}

impl Tape {
    /// The tensor a value stands for.
    pub fn value(&self, var: Var) -> &Tensor {
        &self.nodes[var.0].value
    }

    /// The value made last; `None` on an empty tape.
    pub fn last(&self) -> Option<&Tensor> {
        self.nodes.last().map(|node| &node.value)
    }

    /// The value made last, owned.
    pub fn into_last(mut self) -> Option<Tensor> {
        self.nodes.pop().map(|node| node.value)
    }

    /// The tensor that came from outside, if the tape began with one.
    pub fn into_input(self) -> Option<Tensor> {
        let first = self.nodes.into_iter().next()?;
        matches!(first.op, Op::Input).then_some(first.value)
    }

    /// Number of f32 values the tape holds on to.
    pub fn values(&self) -> usize {
        let kept = |node: &Node| match &node.op {
            Op::RmsNorm { r, .. } => r.len(),
            Op::Attention { m, l, .. } => m.len() + l.len(),
            Op::CrossEntropy { gradient, .. } => gradient.data().len(),
            _ => 0,
        };
        self.nodes.iter().map(|node| node.value.data().len() + kept(node)).sum()
    }

    /// A tensor from outside, whose gradient [`Tape::backward`] returns. At most one per tape.
    pub fn input(&mut self, value: Tensor) -> Var {
        self.push(Op::Input, value)
    }

    /// Rows of `table` by token: [tokens, dim].
    pub fn embedding(&mut self, parameters: Parameters<'_>, table: ParameterId, tokens: &[u32]) -> Var {
        let view = parameters.view(table);
        let (vocab, dim) = (view.shape[0], view.shape[1]);
        let mut y = Tensor::unwritten(&[tokens.len(), dim]);
        embedding::forward(&embedding::Forward { vocab, dim, tokens, table: view.data }, y.data_mut());
        self.push(Op::Embedding { table, tokens: tokens.to_vec() }, y)
    }

    /// Rows of `x` over their root mean square, times `weight`.
    pub fn rms_norm(&mut self, parameters: Parameters<'_>, x: Var, weight: ParameterId, eps: f32) -> Var {
        let (input, w) = (self.value(x), parameters.view(weight).data);
        let (rows, dim) = (input.rows(), input.cols());
        let (mut y, mut r) = (Tensor::unwritten(input.shape()), vec![0.0; rows]);
        rms_norm::forward(&rms_norm::Forward { rows, dim, eps, x: input.data(), w }, y.data_mut(), &mut r);
        self.push(Op::RmsNorm { x, weight, r }, y)
    }

    /// `x * weight^T`: [rows, out] from [rows, in] and [out, in].
    pub fn linear(&mut self, parameters: Parameters<'_>, x: Var, weight: ParameterId) -> Var {
        let (input, w) = (self.value(x), parameters.view(weight));
        let (m, n, k) = (input.rows(), w.shape[0], w.shape[1]);
        let mut y = Tensor::unwritten(&[m, n]);
        matmul::nt(&matmul::Matmul { m, n, k, a: input.data(), b: w.data }, y.data_mut());
        self.push(Op::Linear { x, weight }, y)
    }

    /// `x`, sequences of `seq` rows, with every head turned by the angle of its token's position.
    pub fn rope(&mut self, x: Var, rotary: &Arc<Rotary>, seq: usize) -> Var {
        let mut y = Tensor::unwritten(self.value(x).shape());
        rope::forward(&rotary.args(self.value(x), seq), y.data_mut());
        self.push(Op::Rope { x, rotary: Arc::clone(rotary), seq }, y)
    }

    /// Causal attention of `q` over `k` and `v`.
    pub fn attention(&mut self, q: Var, k: Var, v: Var, shape: Shape) -> Var {
        let mut o = Tensor::unwritten(self.value(q).shape());
        let rows = shape.batch * shape.heads * shape.seq;
        let (mut m, mut l) = (vec![0.0; rows], vec![0.0; rows]);
        let args = attention::Forward {
            shape,
            q: self.value(q).data(),
            k: self.value(k).data(),
            v: self.value(v).data(),
        };
        attention::forward(&args, o.data_mut(), &mut m, &mut l);
        self.push(Op::Attention { q, k, v, shape, m, l }, o)
    }

    /// `silu(gate) * up`.
    pub fn swiglu(&mut self, gate: Var, up: Var) -> Var {
        let mut h = Tensor::unwritten(self.value(gate).shape());
        let args = swiglu::Forward { g: self.value(gate).data(), u: self.value(up).data() };
        swiglu::forward(&args, h.data_mut());
        self.push(Op::SwiGlu { gate, up }, h)
    }

    /// `a + b`.
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        let mut y = Tensor::unwritten(self.value(a).shape());
        residual::add(self.value(a).data(), self.value(b).data(), y.data_mut());
        self.push(Op::Add { a, b }, y)
    }

    /// Loss of each row of `logits` against its target, in nats: [rows]. Backward starts from their mean.
    pub fn cross_entropy(&mut self, logits: Var, targets: &[u32]) -> Var {
        let z = self.value(logits);
        let (rows, vocab) = (z.rows(), z.cols());
        let (mut loss, mut gradient) = (Tensor::unwritten(&[rows]), Tensor::unwritten(z.shape()));
        let weight = (1.0 / rows as f64) as f32;
        let args = cross_entropy::Forward { rows, vocab, logits: z.data(), targets, weight };
        cross_entropy::forward(&args, loss.data_mut(), gradient.data_mut());
        self.push(Op::CrossEntropy { logits, gradient }, loss)
    }

    fn push(&mut self, op: Op, value: Tensor) -> Var {
        self.nodes.push(Node { op, value });
        Var(self.nodes.len() - 1)
    }
}

#[cfg(test)]
mod tests;
