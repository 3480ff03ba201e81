//! What replicas of a stage do at the end of an epoch.
//!
//! Weights of the last merge, residual and momentum are in host memory wherever the stage computes, and so is this: weights
//! come from a device once an operation, and go back to it once a merge.

use super::{Done, WorkError, step_in_flight};
use crate::contribution::{Contribution, LEAF, Piece, Scales, Sum};
use crate::state::StageState;
use kernels::merge::{self, BLOCK, Outer, Rule};
use kernels::reduce;
use spec::{NodeId, Outcome};

/// The scales that this replica's change needs.
pub fn scale(state: &StageState) -> Result<Done, WorkError> {
    let (bits, _) = settings(state, "scale")?;
    check_rest(state, "scale")?;
    let count = state.weights.len();
    let (Some(outer), Some(old)) = (&state.outer, &state.anchor.weights) else {
        return Err(no_anchor(state, "scale"));
    };
    let local = state.weights.to_host()?;
    let change = merge::Contribution { old, local: &local };
    let mut exponents = vec![0; count.div_ceil(BLOCK)];
    Ok(match merge::exponents(&change, outer.residual(), &mut exponents) {
        Ok(()) => {
            Done::with_output(Scales { bits, weight: state.folded_in_epoch, exponents }.to_bytes(count))
        }
        Err(_) => Done::new(Outcome::NonFinite),
    })
}

/// The codes on the largest of the given scales; on this replica's own where none is given.
pub fn encode(state: &mut StageState, inputs: &[&[u8]]) -> Result<Done, WorkError> {
    let (bits, _) = settings(state, "encode")?;
    check_rest(state, "encode")?;
    let count = state.weights.len();
    let scales =
        inputs.iter().map(|bytes| Scales::from_bytes(bits, count, bytes)).collect::<Result<Vec<_>, _>>()?;
    let anchor = state.anchor.digest;
    let (Some(outer), Some(old)) = (&mut state.outer, &state.anchor.weights) else {
        return Err(WorkError::NoAnchor { operation: "encode", anchor });
    };
    let local = state.weights.to_host()?;
    let change = merge::Contribution { old, local: &local };
    let mut exponents = match scales.first() {
        Some(first) => first.exponents.clone(),
        None => vec![0; count.div_ceil(BLOCK)],
    };
    if scales.is_empty() && merge::exponents(&change, outer.residual(), &mut exponents).is_err() {
        return Ok(Done::new(Outcome::NonFinite));
    }
    for others in scales.iter().skip(1) {
        merge::share_exponents(&mut exponents, &others.exponents);
    }
    let mut codes = vec![0; count];
    let encoded = merge::contribute(&change, &exponents, u32::from(bits), outer.residual_mut(), &mut codes);
    Ok(match encoded {
        Ok(()) => {
            let weight = state.folded_in_epoch;
            Done::with_output(Contribution { bits, weight, exponents, codes }.to_bytes())
        }
        Err(_) => Done::new(Outcome::NonFinite),
    })
}

/// The sum of the contributors' pieces, one of each and in their order.
pub fn reduce(state: &StageState, contributors: &[NodeId], inputs: &[&[u8]]) -> Result<Done, WorkError> {
    let (bits, _) = settings(state, "reduce")?;
    let count = state.weights.len();
    let pieces =
        inputs.iter().map(|bytes| Piece::from_bytes(bits, count, bytes)).collect::<Result<Vec<_>, _>>()?;
    let mut pairs = pieces.iter().zip(contributors);
    if let Some((piece, &expected)) = pairs.find(|(piece, expected)| piece.who != **expected) {
        return Err(WorkError::Contributor { expected, found: piece.who });
    }
    Ok(Done::with_output(Sum::of(bits, count, &pieces)?.to_bytes()))
}

/// The outer step on sums that cover the stage, in ascending order.
pub fn apply(state: &mut StageState, inputs: &[&[u8]]) -> Result<Done, WorkError> {
    check_rest(state, "apply")?;
    if state.run.outer == spec::Outer::None {
        // Without an outer optimizer the local weights stand.
        state.set_anchor()?;
        return Ok(Done::new(Outcome::Ok));
    }
    let (bits, rule) = settings(state, "apply")?;
    let (mut sums, mut exponents) = (Vec::new(), Vec::new());
    let (mut next, mut weight) = (0, None);
    for bytes in inputs {
        let sum = Sum::from_bytes(bits, state.weights.len(), bytes)?;
        if sum.leaves.start != next || *weight.get_or_insert(sum.weight) != sum.weight {
            return Err(WorkError::Sums { expected: next, found: sum.leaves.start });
        }
        next = sum.leaves.end;
        sums.extend(sum.sums);
        exponents.extend(sum.exponents);
    }
    let expected = state.weights.len().div_ceil(LEAF) as u64;
    if next != expected {
        return Err(WorkError::Sums { expected, found: next });
    }
    let anchor = state.anchor.digest;
    let (Some(outer), Some(old)) = (&mut state.outer, &state.anchor.weights) else {
        return Err(WorkError::NoAnchor { operation: "apply", anchor });
    };
    let (mut weights, mut momentum) = (old.clone(), outer.momentum().to_vec());
    let args = Outer {
        sums: &sums,
        exponents: &exponents,
        bits: u32::from(bits),
        total_weight: weight.unwrap_or_default(),
        rule,
    };
    merge::outer_step(&args, &mut weights, &mut momentum);
    if [&weights, &momentum].iter().any(|values| reduce::first_beyond(values, f32::INFINITY).is_some()) {
        return Ok(Done::new(Outcome::NonFinite));
    }
    outer.set_momentum(momentum);
    state.weights.overwrite(weights)?;
    state.set_anchor()?;
    Ok(Done::new(Outcome::Ok))
}

fn no_anchor(state: &StageState, operation: &'static str) -> WorkError {
    WorkError::NoAnchor { operation, anchor: state.anchor.digest }
}

/// Bits and rule of the run's outer optimizer.
fn settings(state: &StageState, operation: &'static str) -> Result<(u8, Rule), WorkError> {
    match state.run.outer {
        spec::Outer::None => Err(WorkError::NoMerge { operation }),
        spec::Outer::Nesterov { lr, momentum, bits } => Ok((bits, Rule::Nesterov { lr, momentum })),
    }
}

fn check_rest(state: &StageState, operation: &'static str) -> Result<(), WorkError> {
    match step_in_flight(state) {
        Some(step) => Err(WorkError::MidStep { operation, step }),
        None => Ok(()),
    }
}
