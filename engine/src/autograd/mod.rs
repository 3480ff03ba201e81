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
//!
//! **Memory.** A value that backward does not need, or can cheaply make again, is [forgotten](Tape::forget) as soon as
//! forward has read it: outputs of norms and of SwiGLU are recomputed from their inputs when the first op asks for them.

mod backward;

use crate::model::{Layout, Rotary};
use crate::tensor::{Tensor, Tokens, View};
use kernels::attention::Shape;
use kernels::{attention, cross_entropy, embedding, matmul, rms_norm, rope, swiglu};
use std::cell::RefCell;
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
#[derive(Debug)]
pub struct Tape {
    nodes: Nodes,
}

#[derive(Debug)]
struct Node {
    op: Op,
    /// Absent once forgotten.
    value: Option<Tensor>,
    /// The sum of the gradients that consumers have handed over.
    gradient: Option<Tensor>,
}

#[derive(Debug)]
enum Op {
    Input,
    Embedding { table: ParameterId, tokens: Tokens },
    RmsNorm { x: Var, weight: ParameterId, eps: f32, r: Tensor },
    Linear { x: Var, weight: ParameterId, residual: Option<Var> },
    Rope { x: Var, rotary: Arc<Rotary>, seq: usize },
    Attention { q: Var, k: Var, v: Var, shape: Shape, m: Tensor, l: Tensor },
    SwiGlu { gate: Var, up: Var },
    CrossEntropy { logits: Var, gradient: Tensor },
}

/// The nodes of a tape, whose room a thread keeps for its next tape.
#[derive(Debug)]
struct Nodes(Vec<Node>);

thread_local! {
    static KEPT: RefCell<Vec<Vec<Node>>> = const { RefCell::new(Vec::new()) };
}

impl Default for Tape {
    fn default() -> Self {
        Self { nodes: Nodes(KEPT.with_borrow_mut(Vec::pop).unwrap_or_default()) }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let mut nodes = std::mem::take(&mut self.0);
        nodes.clear();
        // Dropped while its thread ends, it finds no place any more and is simply freed.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().push(nodes));
    }
}

impl std::ops::Deref for Nodes {
    type Target = Vec<Node>;
    fn deref(&self) -> &Vec<Node> {
        &self.0
    }
}

impl std::ops::DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut Vec<Node> {
        &mut self.0
    }
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
    ///
    /// # Panics
    /// When it was forgotten: a bug of the caller.
    pub fn value(&self, var: Var) -> &Tensor {
        self.nodes[var.0].value.as_ref().expect("tape: a value read after it was forgotten")
    }

    /// The value made last; `None` on an empty tape.
    pub fn last(&self) -> Option<&Tensor> {
        self.nodes.last()?.value.as_ref()
    }

    /// The value made last, owned.
    pub fn into_last(mut self) -> Option<Tensor> {
        self.nodes.pop()?.value
    }

    /// The tensor that came from outside, if the tape began with one.
    pub fn into_input(mut self) -> Option<Tensor> {
        let first = self.nodes.drain(..).next()?;
        if matches!(first.op, Op::Input) { first.value } else { None }
    }

    /// Lets go of a value that no further op of the forward pass reads. Backward must be able to do without it or to make
    /// it again: it does not read the inputs of [`Tape::rope`], and makes outputs of [`Tape::rms_norm`] and
    /// [`Tape::swiglu`].
    pub fn forget(&mut self, var: Var) {
        self.nodes[var.0].value = None;
    }

    /// Number of f32 values the tape holds on to.
    pub fn values(&self) -> usize {
        let len = |tensor: &Tensor| tensor.data().len();
        let kept = |node: &Node| match &node.op {
            Op::RmsNorm { r, .. } => len(r),
            Op::Attention { m, l, .. } => len(m) + len(l),
            Op::CrossEntropy { gradient, .. } => len(gradient),
            _ => 0,
        };
        self.nodes.iter().map(|node| node.value.as_ref().map_or(0, len) + kept(node)).sum()
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
        self.push(Op::Embedding { table, tokens: Tokens::copy_of(tokens) }, y)
    }

    /// Rows of `x` over their root mean square, times `weight`.
    pub fn rms_norm(&mut self, parameters: Parameters<'_>, x: Var, weight: ParameterId, eps: f32) -> Var {
        let (input, w) = (self.value(x), parameters.view(weight).data);
        let (rows, dim) = (input.rows(), input.cols());
        let (mut y, mut r) = (Tensor::unwritten(input.shape()), Tensor::unwritten(&[rows]));
        let args = rms_norm::Forward { rows, dim, eps, x: input.data(), w };
        rms_norm::forward(&args, y.data_mut(), r.data_mut());
        self.push(Op::RmsNorm { x, weight, eps, r }, y)
    }

    /// `x * weight^T`: [rows, out] from [rows, in] and [out, in].
    pub fn linear(&mut self, parameters: Parameters<'_>, x: Var, weight: ParameterId) -> Var {
        self.product(parameters, x, weight, None)
    }

    /// `residual + x * weight^T`.
    pub fn linear_add(
        &mut self,
        parameters: Parameters<'_>,
        x: Var,
        weight: ParameterId,
        residual: Var,
    ) -> Var {
        self.product(parameters, x, weight, Some(residual))
    }

    fn product(
        &mut self,
        parameters: Parameters<'_>,
        x: Var,
        weight: ParameterId,
        residual: Option<Var>,
    ) -> Var {
        let (input, w) = (self.value(x), parameters.view(weight));
        let (m, n, k) = (input.rows(), w.shape[0], w.shape[1]);
        let mut y = Tensor::unwritten(&[m, n]);
        let args = matmul::Matmul { m, n, k, a: input.data(), b: w.data };
        match residual {
            Some(residual) => matmul::nt_add(&args, self.value(residual).data(), y.data_mut()),
            None => matmul::nt(&args, y.data_mut()),
        }
        self.push(Op::Linear { x, weight, residual }, y)
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
        let (mut m, mut l) = (Tensor::unwritten(&[rows]), Tensor::unwritten(&[rows]));
        let args = attention::Forward {
            shape,
            q: self.value(q).data(),
            k: self.value(k).data(),
            v: self.value(v).data(),
        };
        attention::forward(&args, o.data_mut(), m.data_mut(), l.data_mut());
        self.push(Op::Attention { q, k, v, shape, m, l }, o)
    }

    /// `silu(gate) * up`.
    pub fn swiglu(&mut self, gate: Var, up: Var) -> Var {
        let mut h = Tensor::unwritten(self.value(gate).shape());
        let args = swiglu::Forward { g: self.value(gate).data(), u: self.value(up).data() };
        swiglu::forward(&args, h.data_mut());
        self.push(Op::SwiGlu { gate, up }, h)
    }

    /// Loss of each row of `logits` against its target, in nats: [rows]. Backward starts from their mean. The logits are
    /// forgotten.
    pub fn cross_entropy(&mut self, logits: Var, targets: &[u32]) -> Var {
        // The gradient stands where the logits stood.
        let mut gradient =
            self.nodes[logits.0].value.take().expect("tape: logits read after they were forgotten");
        let (rows, vocab) = (gradient.rows(), gradient.cols());
        let mut loss = Tensor::unwritten(&[rows]);
        let weight = (1.0 / rows as f64) as f32;
        cross_entropy::forward_in_place(vocab, targets, weight, loss.data_mut(), gradient.data_mut());
        self.push(Op::CrossEntropy { logits, gradient }, loss)
    }

    fn push(&mut self, op: Op, value: Tensor) -> Var {
        self.nodes.push(Node { op, value: Some(value), gradient: None });
        Var(self.nodes.len() - 1)
    }
}

#[cfg(test)]
mod tests;
