//! The way back: one match arm per op.

use super::{Node, Nodes, Op, ParameterId, Parameters, Tape, Var, like, normed};
use crate::ops::{self, Attended};
use crate::tensor::{SliceMut, Tensor};
use kernels::device::DeviceError;

impl Tape {
    /// Walks back from the value made last, adds the parameters' gradients to `gradients` (flat, in canonical order) and
    /// returns the gradient of the tape's input, if it has one.
    ///
    /// `seed` is the gradient of the last value; after [`Tape::cross_entropy`] it is `None`, the mean of the losses being
    /// what is derived.
    ///
    /// # Errors
    /// The device has no memory left, or is lost.
    ///
    /// # Panics
    /// When a seed is missing or of another shape than the last value: a bug of the caller.
    pub fn backward<'a>(
        self,
        parameters: Parameters<'_>,
        seed: Option<Tensor>,
        gradients: impl Into<SliceMut<'a>>,
    ) -> Result<Option<Tensor>, DeviceError> {
        let mut walk = Walk { parameters, gradients: gradients.into(), nodes: self.nodes, of_input: None };
        if let Some(last) = walk.nodes.last_mut() {
            if let (Some(seed), Some(value)) = (&seed, &last.value) {
                assert_eq!(seed.shape(), value.shape(), "backward: shape of the seed");
            }
            last.gradient = seed;
        }
        while let Some(node) = walk.nodes.pop() {
            walk.visit(node)?;
        }
        Ok(walk.of_input)
    }
}

/// Backward under way: the nodes still to visit.
struct Walk<'a> {
    parameters: Parameters<'a>,
    gradients: SliceMut<'a>,
    nodes: Nodes,
    of_input: Option<Tensor>,
}

impl Walk<'_> {
    fn visit(&mut self, node: Node) -> Result<(), DeviceError> {
        if let Op::CrossEntropy { logits, gradient } = node.op {
            return self.give(logits, gradient);
        }
        // Every other op's value is consumed by a later one, or is the last and seeded.
        let dy = node.gradient.expect("backward: a value that leads nowhere, or no seed");
        match node.op {
            Op::Input => self.of_input = Some(dy),
            Op::CrossEntropy { .. } => unreachable!("visited above"),
            Op::Embedding { table, tokens } => {
                let vocab = self.parameters.view(table).shape[0];
                ops::embedding_backward(vocab, &tokens, &dy, self.gradient(table))?;
            }
            Op::RmsNorm { x, weight, r, .. } => {
                // The output, if it was made again, is not needed any more.
                drop(node.value);
                let sum = self.nodes[x.0].gradient.take();
                let range = self.parameters.layout.entries()[weight.0].range.clone();
                let (input, w) = (kept(&self.nodes, x), self.parameters.view(weight).data);
                let dx = ops::rms_norm_backward(input, w, &r, &dy, sum, self.gradients.range(range))?;
                self.nodes[x.0].gradient = Some(dx);
            }
            Op::Linear { x, weight, residual } => {
                self.remember(x)?;
                let sum = self.nodes[x.0].gradient.take();
                let range = self.parameters.layout.entries()[weight.0].range.clone();
                ops::product_tn(&dy, kept(&self.nodes, x), self.gradients.range(range))?;
                self.nodes[x.0].gradient = Some(ops::product_nn(&dy, self.parameters.view(weight), sum)?);
                if let Some(residual) = residual {
                    self.give(residual, dy)?;
                }
            }
            Op::Rope { x, rotary, seq } => {
                let mut dx = like(&dy)?;
                ops::rope_backward(&rotary, &dy, seq, &mut dx)?;
                self.give(x, dx)?;
            }
            Op::Attention { q, k, v, shape, m, l } => {
                let o = node.value.expect("backward: the output of an attention was forgotten");
                let value = |var: Var| kept(&self.nodes, var);
                let (mut dq, mut dk, mut dv) = (like(value(q))?, like(value(k))?, like(value(v))?);
                let args = Attended { q: value(q), k: value(k), v: value(v), o: &o, m: &m, l: &l, dout: &dy };
                ops::attention_backward(shape, &args, [&mut dq, &mut dk, &mut dv])?;
                self.give(q, dq)?;
                self.give(k, dk)?;
                self.give(v, dv)?;
            }
            Op::SwiGlu { gate, up } => {
                drop(node.value);
                let (mut dg, mut du) = (like(&dy)?, like(&dy)?);
                let (g, u) = (kept(&self.nodes, gate), kept(&self.nodes, up));
                ops::swiglu_backward(g, u, &dy, &mut dg, &mut du)?;
                self.give(gate, dg)?;
                self.give(up, du)?;
            }
        }
        Ok(())
    }

    /// Makes a forgotten value again.
    fn remember(&mut self, var: Var) -> Result<(), DeviceError> {
        let node = &self.nodes[var.0];
        if node.value.is_some() {
            return Ok(());
        }
        let value = match &node.op {
            Op::RmsNorm { x, weight, eps, .. } => {
                let (y, _) = normed(kept(&self.nodes, *x), self.parameters.view(*weight).data, *eps)?;
                Some(y)
            }
            Op::SwiGlu { gate, up } => {
                let (g, u) = (kept(&self.nodes, *gate), kept(&self.nodes, *up));
                let mut h = like(g)?;
                ops::swiglu(g, u, &mut h)?;
                Some(h)
            }
            _ => None,
        };
        self.nodes[var.0].value = value;
        Ok(())
    }

    /// Hands a consumer's gradient to the value it used.
    fn give(&mut self, var: Var, gradient: Tensor) -> Result<(), DeviceError> {
        match &mut self.nodes[var.0].gradient {
            Some(sum) => ops::accumulate(sum, &gradient),
            empty => {
                *empty = Some(gradient);
                Ok(())
            }
        }
    }

    /// The accumulating gradient of a parameter.
    fn gradient(&mut self, id: ParameterId) -> SliceMut<'_> {
        self.gradients.range(self.parameters.layout.entries()[id.0].range.clone())
    }
}

/// A value that the forward pass kept, or that was made again.
fn kept(nodes: &[Node], var: Var) -> &Tensor {
    nodes[var.0].value.as_ref().expect("backward: a value that was forgotten and cannot be made again")
}
