//! One Llama block: `h = x + o_proj(attention(norm(x)))`, `y = h + down(silu(gate(norm(h))) * up(norm(h)))`.

use super::{Past, Stage};
use crate::autograd::{ParameterId, Parameters, Tape, Var};
use kernels::attention::Shape;
use kernels::device::DeviceError;

/// Appends the block whose first parameter is number `first` of the stage; `x` holds sequences of `seq` rows. With a past,
/// and the block's place in it, `x` holds the tokens that follow it, and there is no way back through the tape.
///
/// # Errors
/// The device has no memory left, or is lost.
pub fn forward(
    stage: &Stage,
    parameters: Parameters<'_>,
    tape: &mut Tape,
    first: usize,
    x: Var,
    seq: usize,
    past: Option<(&mut Past, usize)>,
) -> Result<Var, DeviceError> {
    // In the order of `layout::BLOCK_ROLES`.
    let [attention_norm, query, key, value, attention_out, feed_forward_norm, gate, up, down] =
        std::array::from_fn(|place| ParameterId(first + place));
    let model = stage.model();
    let shape = Shape {
        batch: tape.value(x).rows() / seq,
        seq,
        heads: model.heads as usize,
        kv_heads: model.kv_heads as usize,
        head_dim: model.head_dim() as usize,
    };

    let n = tape.rms_norm(parameters, x, attention_norm, model.norm_eps)?;
    let q = tape.linear(parameters, n, query)?;
    let k = tape.linear(parameters, n, key)?;
    let v = tape.linear(parameters, n, value)?;
    tape.forget(n);
    let o = match past {
        None => {
            let mut turned = |straight| {
                let turned = tape.rope(straight, stage.rotary(), seq)?;
                tape.forget(straight);
                Ok(turned)
            };
            let (q, k) = (turned(q)?, turned(k)?);
            tape.attention(q, k, v, shape)?
        }
        Some((past, block)) => {
            let o = past.attend(stage, block, tape.value(q), tape.value(k), tape.value(v));
            tape.input(o)
        }
    };
    let h = tape.linear_add(parameters, o, attention_out, x)?;

    let n = tape.rms_norm(parameters, h, feed_forward_norm, model.norm_eps)?;
    let s = tape.gated(parameters, n, [gate, up])?;
    tape.forget(n);
    let y = tape.linear_add(parameters, s, down, h)?;
    tape.forget(s);
    Ok(y)
}
