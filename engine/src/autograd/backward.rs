//! The way back: one match arm per op.

use super::{Node, Op, ParameterId, Parameters, Tape, Var};
use crate::tensor::Tensor;
use kernels::{attention, embedding, matmul, residual, rms_norm, rope, swiglu};

impl Tape {
    /// Walks back from the value made last, adds the parameters' gradients to `gradients` (flat, in canonical order) and
    /// returns the gradient of the tape's input, if it has one.
    ///
    /// `seed` is the gradient of the last value; after [`Tape::cross_entropy`] it is `None`, the mean of the losses being
    /// what is derived.
    ///
    /// # Panics
    /// When a seed is missing or of another shape than the last value: a bug of the caller.
    pub fn backward(
        self,
        parameters: Parameters<'_>,
        seed: Option<Tensor>,
        gradients: &mut [f32],
    ) -> Option<Tensor> {
        let mut walk = Walk {
            parameters,
            gradients,
            pending: self.nodes.iter().map(|_| None).collect(),
            nodes: self.nodes,
            of_input: None,
        };
        if let (Some(seed), Some(last)) = (seed, walk.nodes.len().checked_sub(1)) {
            assert_eq!(seed.shape(), walk.nodes[last].value.shape(), "backward: shape of the seed");
            walk.pending[last] = Some(seed);
        }
        while let Some(node) = walk.nodes.pop() {
            let dy = walk.pending.pop().flatten();
            walk.visit(node, dy);
        }
        walk.of_input
    }
}

/// Backward under way: the nodes still to visit, and for each the sum of the gradients met so far.
struct Walk<'a> {
    parameters: Parameters<'a>,
    gradients: &'a mut [f32],
    nodes: Vec<Node>,
    pending: Vec<Option<Tensor>>,
    of_input: Option<Tensor>,
}

impl Walk<'_> {
    fn visit(&mut self, node: Node, dy: Option<Tensor>) {
        let y = node.value;
        if let Op::CrossEntropy { logits, gradient } = node.op {
            return self.give(logits, gradient);
        }
        // Every other op's value is consumed by a later one, or is the last and seeded.
        let dy = dy.expect("backward: a value that leads nowhere, or no seed");
        match node.op {
            Op::Input => self.of_input = Some(dy),
            Op::CrossEntropy { .. } => unreachable!("visited above"),
            Op::Embedding { table, tokens } => {
                let (vocab, dim) = (self.parameters.view(table).shape[0], dy.cols());
                let args = embedding::Backward { vocab, dim, tokens: &tokens, dy: dy.data() };
                embedding::backward(&args, self.gradient(table));
            }
            Op::RmsNorm { x, weight, r } => {
                let mut dx = Tensor::unwritten(dy.shape());
                let w = self.parameters.view(weight).data;
                let input = &self.nodes[x.0].value;
                let (rows, dim) = (input.rows(), input.cols());
                let args = rms_norm::Backward { rows, dim, x: input.data(), w, r: &r, dy: dy.data() };
                let range = self.parameters.layout.entries()[weight.0].range.clone();
                rms_norm::backward(&args, dx.data_mut(), &mut self.gradients[range]);
                self.give(x, dx);
            }
            Op::Linear { x, weight } => {
                let w = self.parameters.view(weight);
                let (tokens, out, into) = (dy.rows(), w.shape[0], w.shape[1]);
                let input = &self.nodes[x.0].value;
                let dw = matmul::Matmul { m: out, n: into, k: tokens, a: dy.data(), b: input.data() };
                let range = self.parameters.layout.entries()[weight.0].range.clone();
                matmul::tn(&dw, &mut self.gradients[range]);
                let mut dx = Tensor::unwritten(&[tokens, into]);
                let args = matmul::Matmul { m: tokens, n: into, k: out, a: dy.data(), b: w.data };
                matmul::nn(&args, dx.data_mut());
                self.give(x, dx);
            }
            Op::Rope { x, rotary, seq } => {
                let mut dx = Tensor::unwritten(dy.shape());
                rope::backward(&rotary.args(&dy, seq), dx.data_mut());
                self.give(x, dx);
            }
            Op::Attention { q, k, v, shape, m, l } => {
                let value = |var: Var| &self.nodes[var.0].value;
                let like = |var: Var| Tensor::unwritten(value(var).shape());
                let (mut dq, mut dk, mut dv) = (like(q), like(k), like(v));
                let args = attention::Backward {
                    shape,
                    q: value(q).data(),
                    k: value(k).data(),
                    v: value(v).data(),
                    o: y.data(),
                    m: &m,
                    l: &l,
                    dout: dy.data(),
                };
                attention::backward(&args, dq.data_mut(), dk.data_mut(), dv.data_mut());
                self.give(q, dq);
                self.give(k, dk);
                self.give(v, dv);
            }
            Op::SwiGlu { gate, up } => {
                let (mut dg, mut du) = (Tensor::unwritten(dy.shape()), Tensor::unwritten(dy.shape()));
                let (g, u) = (self.nodes[gate.0].value.data(), self.nodes[up.0].value.data());
                let args = swiglu::Backward { g, u, dh: dy.data() };
                swiglu::backward(&args, dg.data_mut(), du.data_mut());
                self.give(gate, dg);
                self.give(up, du);
            }
            Op::Add { a, b } => {
                // Both operands have the gradient of the sum; the second needs values of its own.
                let copy = Tensor::copy_of(dy.view());
                self.give(a, dy);
                self.give(b, copy);
            }
        }
    }

    /// Hands a consumer's gradient to the value it used.
    fn give(&mut self, var: Var, gradient: Tensor) {
        match &mut self.pending[var.0] {
            Some(sum) => residual::accumulate(sum.data_mut(), gradient.data()),
            empty => *empty = Some(gradient),
        }
    }

    /// The accumulating gradient of a parameter.
    fn gradient(&mut self, id: ParameterId) -> &mut [f32] {
        &mut self.gradients[self.parameters.layout.entries()[id.0].range.clone()]
    }
}
