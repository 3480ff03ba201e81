//! The way back: one match arm per op.

use super::{Node, Nodes, Op, ParameterId, Parameters, Tape, Var};
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
        let mut walk = Walk { parameters, gradients, nodes: self.nodes, of_input: None };
        if let Some(last) = walk.nodes.last_mut() {
            if let (Some(seed), Some(value)) = (&seed, &last.value) {
                assert_eq!(seed.shape(), value.shape(), "backward: shape of the seed");
            }
            last.gradient = seed;
        }
        while let Some(node) = walk.nodes.pop() {
            walk.visit(node);
        }
        walk.of_input
    }
}

/// Backward under way: the nodes still to visit.
struct Walk<'a> {
    parameters: Parameters<'a>,
    gradients: &'a mut [f32],
    nodes: Nodes,
    of_input: Option<Tensor>,
}

impl Walk<'_> {
    fn visit(&mut self, node: Node) {
        if let Op::CrossEntropy { logits, gradient } = node.op {
            return self.give(logits, gradient);
        }
        // Every other op's value is consumed by a later one, or is the last and seeded.
        let dy = node.gradient.expect("backward: a value that leads nowhere, or no seed");
        match node.op {
            Op::Input => self.of_input = Some(dy),
            Op::CrossEntropy { .. } => unreachable!("visited above"),
            Op::Embedding { table, tokens } => {
                let (vocab, dim) = (self.parameters.view(table).shape[0], dy.cols());
                let args = embedding::Backward { vocab, dim, tokens: &tokens, dy: dy.data() };
                embedding::backward(&args, self.gradient(table));
            }
            Op::RmsNorm { x, weight, r, .. } => {
                // The output, if it was made again, is not needed any more.
                drop(node.value);
                let w = self.parameters.view(weight).data;
                let range = self.parameters.layout.entries()[weight.0].range.clone();
                let pending = self.nodes[x.0].gradient.take();
                let input = kept(&self.nodes, x);
                let (rows, dim) = (input.rows(), input.cols());
                let args = rms_norm::Backward { rows, dim, x: input.data(), w, r: r.data(), dy: dy.data() };
                match pending {
                    Some(mut sum) => {
                        rms_norm::backward_add(&args, sum.data_mut(), &mut self.gradients[range]);
                        self.nodes[x.0].gradient = Some(sum);
                    }
                    None => {
                        let mut dx = Tensor::unwritten(dy.shape());
                        rms_norm::backward(&args, dx.data_mut(), &mut self.gradients[range]);
                        self.nodes[x.0].gradient = Some(dx);
                    }
                }
            }
            Op::Linear { x, weight, residual } => {
                self.remember(x);
                let w = self.parameters.view(weight);
                let (tokens, out, into) = (dy.rows(), w.shape[0], w.shape[1]);
                let range = self.parameters.layout.entries()[weight.0].range.clone();
                let pending = self.nodes[x.0].gradient.take();
                let input = kept(&self.nodes, x);
                let dw = matmul::Matmul { m: out, n: into, k: tokens, a: dy.data(), b: input.data() };
                matmul::tn(&dw, &mut self.gradients[range]);
                let args = matmul::Matmul { m: tokens, n: into, k: out, a: dy.data(), b: w.data };
                let dx = match pending {
                    Some(mut sum) => {
                        matmul::nn_add(&args, sum.data_mut());
                        sum
                    }
                    None => {
                        let mut dx = Tensor::unwritten(&[tokens, into]);
                        matmul::nn(&args, dx.data_mut());
                        dx
                    }
                };
                self.nodes[x.0].gradient = Some(dx);
                if let Some(residual) = residual {
                    self.give(residual, dy);
                }
            }
            Op::Rope { x, rotary, seq } => {
                let mut dx = Tensor::unwritten(dy.shape());
                rope::backward(&rotary.args(&dy, seq), dx.data_mut());
                self.give(x, dx);
            }
            Op::Attention { q, k, v, shape, m, l } => {
                let o = node.value.expect("backward: the output of an attention was forgotten");
                let value = |var: Var| kept(&self.nodes, var);
                let like = |var: Var| Tensor::unwritten(value(var).shape());
                let (mut dq, mut dk, mut dv) = (like(q), like(k), like(v));
                let args = attention::Backward {
                    shape,
                    q: value(q).data(),
                    k: value(k).data(),
                    v: value(v).data(),
                    o: o.data(),
                    m: m.data(),
                    l: l.data(),
                    dout: dy.data(),
                };
                attention::backward(&args, dq.data_mut(), dk.data_mut(), dv.data_mut());
                self.give(q, dq);
                self.give(k, dk);
                self.give(v, dv);
            }
            Op::SwiGlu { gate, up } => {
                drop(node.value);
                let (mut dg, mut du) = (Tensor::unwritten(dy.shape()), Tensor::unwritten(dy.shape()));
                let (g, u) = (kept(&self.nodes, gate).data(), kept(&self.nodes, up).data());
                let args = swiglu::Backward { g, u, dh: dy.data() };
                swiglu::backward(&args, dg.data_mut(), du.data_mut());
                self.give(gate, dg);
                self.give(up, du);
            }
        }
    }

    /// Makes a forgotten value again.
    fn remember(&mut self, var: Var) {
        let node = &self.nodes[var.0];
        if node.value.is_some() {
            return;
        }
        let value = match &node.op {
            Op::RmsNorm { x, weight, eps, r } => {
                let (input, w) = (kept(&self.nodes, *x), self.parameters.view(*weight).data);
                let mut y = Tensor::unwritten(input.shape());
                let mut again = Tensor::unwritten(r.shape());
                let (rows, dim) = (input.rows(), input.cols());
                let args = rms_norm::Forward { rows, dim, eps: *eps, x: input.data(), w };
                rms_norm::forward(&args, y.data_mut(), again.data_mut());
                Some(y)
            }
            Op::SwiGlu { gate, up } => {
                let (g, u) = (kept(&self.nodes, *gate), kept(&self.nodes, *up));
                let mut h = Tensor::unwritten(g.shape());
                swiglu::forward(&swiglu::Forward { g: g.data(), u: u.data() }, h.data_mut());
                Some(h)
            }
            _ => None,
        };
        self.nodes[var.0].value = value;
    }

    /// Hands a consumer's gradient to the value it used.
    fn give(&mut self, var: Var, gradient: Tensor) {
        match &mut self.nodes[var.0].gradient {
            Some(sum) => residual::accumulate(sum.data_mut(), gradient.data()),
            empty => *empty = Some(gradient),
        }
    }

    /// The accumulating gradient of a parameter.
    fn gradient(&mut self, id: ParameterId) -> &mut [f32] {
        &mut self.gradients[self.parameters.layout.entries()[id.0].range.clone()]
    }
}

/// A value that the forward pass kept, or that was made again.
fn kept(nodes: &[Node], var: Var) -> &Tensor {
    nodes[var.0].value.as_ref().expect("backward: a value that was forgotten and cannot be made again")
}
