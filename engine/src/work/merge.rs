//! What replicas of a stage do at the end of an epoch.

use super::{Done, WorkError, step_in_flight};
use crate::contribution::{Contribution, Sum};
use crate::state::StageState;
use crate::tensor::all_finite;
use kernels::merge::{self, BLOCK, Outer, Rule};
use spec::Outcome;

pub fn encode(state: &mut StageState) -> Result<Done, WorkError> {
    let (bits, _) = settings(state, "encode")?;
    check_rest(state, "encode")?;
    let count = state.weights.len();
    let (Some(outer), Some(old)) = (&mut state.outer, &state.anchor.weights) else {
        return Err(WorkError::NoAnchor { operation: "encode", anchor: state.anchor.digest });
    };
    let change = merge::Contribution { old, local: &state.weights };
    let mut contribution = Contribution {
        bits,
        weight: state.folded_in_epoch,
        exponents: vec![0; count.div_ceil(BLOCK)],
        codes: vec![0; count],
    };
    let (exponents, codes) = (&mut contribution.exponents, &mut contribution.codes);
    let encoded = merge::exponents(&change, &outer.residual, exponents)
        .and_then(|()| merge::contribute(&change, exponents, u32::from(bits), &mut outer.residual, codes));
    Ok(match encoded {
        Ok(()) => Done::with_output(contribution.to_bytes()),
        Err(_) => Done::new(Outcome::NonFinite),
    })
}

pub fn reduce(state: &StageState, shard: u32, inputs: &[&[u8]]) -> Result<Done, WorkError> {
    let (bits, _) = settings(state, "reduce")?;
    if shard != 0 {
        return Err(WorkError::Shard { found: shard });
    }
    let count = state.weights.len();
    let contributions = inputs
        .iter()
        .map(|bytes| Contribution::from_bytes(bits, count, bytes))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Done::with_output(Sum::of(bits, count, &contributions)?.to_bytes()))
}

pub fn apply(state: &mut StageState, input: Option<&[u8]>) -> Result<Done, WorkError> {
    check_rest(state, "apply")?;
    let Some(bytes) = input else {
        // Without an outer optimizer the local weights stand.
        state.set_anchor();
        return Ok(Done::new(Outcome::Ok));
    };
    let (bits, rule) = settings(state, "apply")?;
    let sum = Sum::from_bytes(bits, state.weights.len(), bytes)?;
    let (Some(outer), Some(old)) = (&mut state.outer, &state.anchor.weights) else {
        return Err(WorkError::NoAnchor { operation: "apply", anchor: state.anchor.digest });
    };
    let (mut weights, mut momentum) = (old.clone(), outer.momentum.clone());
    let args = Outer {
        sums: &sum.sums,
        exponents: &sum.exponents,
        bits: u32::from(bits),
        total_weight: sum.weight,
        rule,
    };
    merge::outer_step(&args, &mut weights, &mut momentum);
    if !all_finite(&weights) || !all_finite(&momentum) {
        return Ok(Done::new(Outcome::NonFinite));
    }
    (state.weights, outer.momentum) = (weights, momentum);
    state.set_anchor();
    Ok(Done::new(Outcome::Ok))
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
