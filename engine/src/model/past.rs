//! Keys and values of the tokens that a stage has seen: what further tokens attend to, so that a sequence that grows is not
//! computed anew. Rows are independent in every op, so what comes out has the bits of the whole sequence at once. On the host only.

use super::{Rotary, Stage};
use crate::tensor::Tensor;
use kernels::attention::{self, Next, Shape};
use kernels::rope;

/// The past of one sequence in one stage.
#[derive(Debug)]
pub struct Past {
    blocks: Vec<Block>,
    tokens: usize,
}

/// Turned keys, and values, of one block: tokens x (kv_heads*head_dim).
#[derive(Debug, Default)]
struct Block {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Past {
    /// Nothing seen yet.
    pub fn new(stage: &Stage) -> Self {
        Self { blocks: (0..stage.shape().blocks).map(|_| Block::default()).collect(), tokens: 0 }
    }

    /// Tokens seen by all blocks.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Turns queries and keys of the tokens after the past, remembers keys and values, and attends to all of them.
    pub(super) fn attend(
        &mut self,
        stage: &Stage,
        block: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Tensor {
        let model = stage.model();
        let (heads, kv_heads) = (model.heads as usize, model.kv_heads as usize);
        let shape = |seq| Shape { batch: 1, seq, heads, kv_heads, head_dim: model.head_dim() as usize };
        let (q, k) = (turned(stage.rotary(), q, self.tokens), turned(stage.rotary(), k, self.tokens));
        let block = &mut self.blocks[block];
        block.keys.extend_from_slice(k.data());
        block.values.extend_from_slice(v.data());
        let (width, mut o) = (v.cols(), Tensor::unwritten_on_host(q.shape()));
        let rows = q.data().chunks(q.cols()).zip(o.data_mut().chunks_mut(q.cols()));
        for (row, (q, o)) in rows.enumerate() {
            let seen = self.tokens + row + 1;
            let (k, v) = (&block.keys[..seen * width], &block.values[..seen * width]);
            attention::next(&Next { shape: shape(seen), q, k, v }, o);
        }
        o
    }

    /// All blocks have seen so many tokens more.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }
}

/// `x` with every head turned by the angle of its token's position, the first row standing at `position`.
fn turned(rotary: &Rotary, x: &Tensor, position: usize) -> Tensor {
    let mut y = Tensor::unwritten_on_host(x.shape());
    rope::forward(&rotary.args_from(x, x.rows(), position), y.data_mut());
    y
}
