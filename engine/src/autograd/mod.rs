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
//!
//! **Place.** Values live where the parameters live. An op that finds its device lost, or without memory, says so; the tape
//! is then of no use.

mod backward;

use crate::model::{Layout, Rotary};
use crate::ops;
use crate::tensor::{Ids, Slice, Tensor, View};
use kernels::attention::Shape;
use kernels::device::{Device, DeviceError};
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
    pub values: Slice<'a>,
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
    Embedding { table: ParameterId, tokens: Ids },
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
        View { shape: &entry.shape, data: self.values.range(entry.range.clone()) }
    }

    /// Where they live.
    pub fn device(&self) -> Device {
        self.values.device()
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

    /// The tensor that came from outside, if the tape began with one, and the value made last.
    pub fn into_ends(mut self) -> (Option<Tensor>, Option<Tensor>) {
        let last = self.nodes.pop().and_then(|node| node.value);
        (self.into_input(), last)
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
        let len = Tensor::len;
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
    ///
    /// # Errors
    /// The device has no memory left, or is lost; likewise below.
    pub fn embedding(
        &mut self,
        parameters: Parameters<'_>,
        table: ParameterId,
        tokens: &[u32],
    ) -> Result<Var, DeviceError> {
        let (view, device) = (parameters.view(table), parameters.device());
        let mut y = Tensor::unwritten(&device, &[tokens.len(), view.shape[1]])?;
        let tokens = Ids::copy_of(&device, tokens)?;
        ops::embedding(view, &tokens, &mut y)?;
        Ok(self.push(Op::Embedding { table, tokens }, y))
    }

    /// Rows of `x` over their root mean square, times `weight`.
    ///
    /// # Errors
    /// As [`Tape::embedding`].
    pub fn rms_norm(
        &mut self,
        parameters: Parameters<'_>,
        x: Var,
        weight: ParameterId,
        eps: f32,
    ) -> Result<Var, DeviceError> {
        let (input, w) = (self.value(x), parameters.view(weight).data);
        let (y, r) = normed(input, w, eps)?;
        Ok(self.push(Op::RmsNorm { x, weight, eps, r }, y))
    }

    /// `x * weight^T`: [rows, out] from [rows, in] and [out, in].
    ///
    /// # Errors
    /// As [`Tape::embedding`].
    pub fn linear(
        &mut self,
        parameters: Parameters<'_>,
        x: Var,
        weight: ParameterId,
    ) -> Result<Var, DeviceError> {
        self.product(parameters, x, weight, None)
    }

    /// `residual + x * weight^T`.
    ///
    /// # Errors
    /// As [`Tape::embedding`].
    pub fn linear_add(
        &mut self,
        parameters: Parameters<'_>,
        x: Var,
        weight: ParameterId,
        residual: Var,
    ) -> Result<Var, DeviceError> {
        self.product(parameters, x, weight, Some(residual))
    }

    fn product(
        &mut self,
        parameters: Parameters<'_>,
        x: Var,
        weight: ParameterId,
        residual: Option<Var>,
    ) -> Result<Var, DeviceError> {
        let (input, w) = (self.value(x), parameters.view(weight));
        let mut y = Tensor::unwritten(&parameters.device(), &[input.rows(), w.shape[0]])?;
        ops::product_nt(input, w, residual.map(|residual| self.value(residual)), &mut y)?;
        Ok(self.push(Op::Linear { x, weight, residual }, y))
    }

    /// `silu(x * gate^T) * (x * up^T)`. Three values on the tape, as if made by [`Tape::linear`] twice and
    /// [`Tape::swiglu`].
    ///
    /// # Errors
    /// As [`Tape::embedding`].
    pub fn gated(
        &mut self,
        parameters: Parameters<'_>,
        x: Var,
        [gate, up]: [ParameterId; 2],
    ) -> Result<Var, DeviceError> {
        let (input, weights) = (self.value(x), [gate, up].map(|weight| parameters.view(weight)));
        let shape = [input.rows(), weights[0].shape[0]];
        let unwritten = || Tensor::unwritten(&parameters.device(), &shape);
        let (mut g, mut u, mut h) = (unwritten()?, unwritten()?, unwritten()?);
        ops::gated(input, weights, &mut g, &mut u, &mut h)?;
        let gate = self.push(Op::Linear { x, weight: gate, residual: None }, g);
        let up = self.push(Op::Linear { x, weight: up, residual: None }, u);
        Ok(self.push(Op::SwiGlu { gate, up }, h))
    }

    /// `x`, sequences of `seq` rows, with every head turned by the angle of its token's position.
    ///
    /// # Errors
    /// As [`Tape::embedding`].
    pub fn rope(&mut self, x: Var, rotary: &Arc<Rotary>, seq: usize) -> Result<Var, DeviceError> {
        let input = self.value(x);
        let mut y = like(input)?;
        ops::rope(rotary, input, seq, &mut y)?;
        Ok(self.push(Op::Rope { x, rotary: Arc::clone(rotary), seq }, y))
    }

    /// Causal attention of `q` over `k` and `v`.
    ///
    /// # Errors
    /// As [`Tape::embedding`].
    pub fn attention(&mut self, q: Var, k: Var, v: Var, shape: Shape) -> Result<Var, DeviceError> {
        let of = [q, k, v].map(|var| self.value(var));
        let device = of[0].values().device();
        let rows = shape.batch * shape.heads * shape.seq;
        let mut o = like(of[0])?;
        let (mut m, mut l) = (Tensor::unwritten(&device, &[rows])?, Tensor::unwritten(&device, &[rows])?);
        ops::attention(shape, of, &mut o, &mut m, &mut l)?;
        Ok(self.push(Op::Attention { q, k, v, shape, m, l }, o))
    }

    /// `silu(gate) * up`.
    ///
    /// # Errors
    /// As [`Tape::embedding`].
    pub fn swiglu(&mut self, gate: Var, up: Var) -> Result<Var, DeviceError> {
        let (g, u) = (self.value(gate), self.value(up));
        let mut h = like(g)?;
        ops::swiglu(g, u, &mut h)?;
        Ok(self.push(Op::SwiGlu { gate, up }, h))
    }

    /// Loss of each row of `logits` against its target, in nats: [rows]. Backward starts from their mean. The logits are
    /// forgotten.
    ///
    /// # Errors
    /// As [`Tape::embedding`].
    pub fn cross_entropy(&mut self, logits: Var, targets: &[u32]) -> Result<Var, DeviceError> {
        let values = self.nodes[logits.0].value.take().expect("tape: logits read after they were forgotten");
        let mut loss = Tensor::unwritten(&values.values().device(), &[values.rows()])?;
        let gradient = ops::cross_entropy(values, targets, &mut loss)?;
        Ok(self.push(Op::CrossEntropy { logits, gradient }, loss))
    }

    fn push(&mut self, op: Op, value: Tensor) -> Var {
        self.nodes.push(Node { op, value: Some(value), gradient: None });
        Var(self.nodes.len() - 1)
    }
}

/// A tensor of the shape and at the place of another, unwritten.
fn like(of: &Tensor) -> Result<Tensor, DeviceError> {
    Tensor::unwritten(&of.values().device(), of.shape())
}

/// The norm of `x`, and the reciprocal roots of its rows.
fn normed(x: &Tensor, w: Slice<'_>, eps: f32) -> Result<(Tensor, Tensor), DeviceError> {
    let (mut y, mut r) = (like(x)?, Tensor::unwritten(&w.device(), &[x.rows()])?);
    ops::rms_norm(x, w, eps, &mut y, &mut r)?;
    Ok((y, r))
}

#[cfg(test)]
mod tests;
