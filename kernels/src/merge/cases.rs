//! The lengths and inputs on which the room is judged.

use super::{Contribution, Outer, Rule, cpu, reference};
use crate::catalogue::{Buffer, Buffers, Case, Data, op};

/// Weight of the replica in `merge.accumulate`.
pub(super) const WEIGHT: u32 = 3;

fn cases() -> Vec<Case> {
    vec![
        Case::new("one", &[("count", 1), ("bits", 8)]),
        Case::new("partial block", &[("count", 200), ("bits", 4)]),
        Case::new("several tasks", &[("count", 70_001), ("bits", 8)]),
        Case::edge("edge", &[("count", 1030), ("bits", 16)]),
    ]
}

fn change<'a>(inputs: &'a Buffers) -> Contribution<'a> {
    Contribution { old: inputs.f32("old"), local: inputs.f32("local") }
}

fn blocks(case: &Case) -> usize {
    case.dim("count").div_ceil(super::BLOCK)
}

/// Shared exponents near those of the values: some blocks saturate, some are coarse.
fn exponents(case: &Case) -> Buffer {
    let n = blocks(case);
    let Data::U32(random) = case.below("exponents", &[n], 6).data else { unreachable!("below makes u32") };
    Buffer::new("exponents", &[n], Data::I8(random.iter().map(|e| *e as i8 - 1).collect()))
}

op! {
    /// `merge.exponents`: old, local, residual to exponents.
    ExponentsOp = "merge.exponents";
    cases = cases();
    bench = Case::new("4 M", &[("count", 1 << 22), ("bits", 8)]);
    inputs(case) = ["old", "local", "residual"].map(|name| case.values(name, &[case.dim("count")]));
    outputs(case) = [Buffer::new("exponents", &[blocks(case)], Data::I8(vec![0x5A; blocks(case)]))];
    cpu(path, _, inputs, outputs) = {
        let [e] = outputs.i8_mut(["exponents"]);
        assert_eq!(cpu::exponents(path, &change(inputs), inputs.f32("residual"), e), Ok(()));
    };
    reference(_, inputs, outputs) = {
        let [e] = outputs.i8_mut(["exponents"]);
        assert_eq!(reference::exponents(&change(inputs), inputs.f32("residual"), e), Ok(()));
    };
    cost(case) = super::contribute_cost(case.dim("count"));
    rows = &[];
}

op! {
    /// `merge.contribute`: old, local, exponents to residual (in place) and codes.
    ContributeOp = "merge.contribute";
    cases = cases();
    bench = Case::new("4 M", &[("count", 1 << 22), ("bits", 8)]);
    inputs(case) = {
        let [old, local] = ["old", "local"].map(|name| case.values(name, &[case.dim("count")]));
        [old, local, exponents(case)]
    };
    outputs(case) = {
        let shape = [case.dim("count")];
        [case.values("residual", &shape), Buffer::new("codes", &shape, Data::I16(vec![0x5A5A; shape[0]]))]
    };
    cpu(path, case, inputs, outputs) = {
        let [mut residual] = outputs.f32_mut(["residual"]).map(|r| r.to_vec());
        let [codes] = outputs.i16_mut(["codes"]);
        let (e, bits) = (inputs.i8("exponents"), case.dim("bits") as u32);
        assert_eq!(cpu::contribute(path, &change(inputs), e, bits, &mut residual, codes), Ok(()));
        outputs.f32_mut(["residual"])[0].copy_from_slice(&residual);
    };
    reference(case, inputs, outputs) = {
        let [mut residual] = outputs.f32_mut(["residual"]).map(|r| r.to_vec());
        let [codes] = outputs.i16_mut(["codes"]);
        let (e, bits) = (inputs.i8("exponents"), case.dim("bits") as u32);
        assert_eq!(reference::contribute(&change(inputs), e, bits, &mut residual, codes), Ok(()));
        outputs.f32_mut(["residual"])[0].copy_from_slice(&residual);
    };
    cost(case) = super::contribute_cost(case.dim("count"));
    rows = &[];
}

op! {
    /// `merge.accumulate`: codes to sums, which accumulate; the weight is 3.
    AccumulateOp = "merge.accumulate";
    cases = cases();
    bench = Case::new("4 M", &[("count", 1 << 22), ("bits", 8)]);
    inputs(case) = {
        let Data::U32(random) = case.below("codes", &[case.dim("count")], 255).data else {
            unreachable!("below makes u32")
        };
        [Buffer::new("codes", &[random.len()], Data::I16(random.iter().map(|q| *q as i16 - 127).collect()))]
    };
    outputs(case) = [sums(case)];
    cpu(_, _, inputs, outputs) = {
        let [sums] = outputs.i64_mut(["sums"]);
        cpu::accumulate(sums, inputs.i16("codes"), WEIGHT);
    };
    reference(_, inputs, outputs) = {
        let [sums] = outputs.i64_mut(["sums"]);
        reference::accumulate(sums, inputs.i16("codes"), WEIGHT);
    };
    cost(case) = super::outer_step_cost(case.dim("count"));
    rows = &[];
}

/// Sums beyond the 24 bits of an f32, so that their conversion rounds.
fn sums(case: &Case) -> Buffer {
    let shape = [case.dim("count")];
    let Data::U32(random) = case.below("sums", &shape, u32::MAX).data else {
        unreachable!("below makes u32")
    };
    let wide = |x: &u32| (i64::from(*x) - (1 << 31)) * 0x1_0001;
    Buffer::new("sums", &shape, Data::I64(random.iter().map(wide).collect()))
}

/// Sum of the replicas' weights in the outer steps.
pub(super) const TOTAL_WEIGHT: u64 = 37;

fn outer<'a>(case: &Case, inputs: &'a Buffers, rule: Rule) -> Outer<'a> {
    Outer {
        sums: inputs.i64("sums"),
        exponents: inputs.i8("exponents"),
        bits: case.dim("bits") as u32,
        total_weight: TOTAL_WEIGHT,
        rule,
    }
}

/// The outer rule of `merge.nesterov`.
pub(super) const NESTEROV: Rule = Rule::Nesterov { lr: 0.7, momentum: 0.9 };

op! {
    /// `merge.nesterov`: sums, exponents to p, buf, in place; total weight 37, lr 0.7, momentum 0.9.
    NesterovOp = "merge.nesterov";
    cases = cases();
    bench = Case::new("4 M", &[("count", 1 << 22), ("bits", 8)]);
    inputs(case) = [sums(case), exponents(case)];
    outputs(case) = ["p", "buf"].map(|name| case.values(name, &[case.dim("count")]));
    cpu(path, case, inputs, outputs) = {
        let [p, buf] = outputs.f32_mut(["p", "buf"]);
        cpu::outer_step(path, &outer(case, inputs, NESTEROV), p, buf);
    };
    reference(case, inputs, outputs) = {
        let [p, buf] = outputs.f32_mut(["p", "buf"]);
        reference::outer_step(&outer(case, inputs, NESTEROV), p, buf);
    };
    cost(case) = super::outer_step_cost(case.dim("count"));
    rows = &[];
}

op! {
    /// `merge.none`: sums, exponents to p, in place; total weight 37.
    PlainOp = "merge.none";
    cases = cases();
    bench = Case::new("4 M", &[("count", 1 << 22), ("bits", 8)]);
    inputs(case) = [sums(case), exponents(case)];
    outputs(case) = [case.values("p", &[case.dim("count")])];
    cpu(path, case, inputs, outputs) = {
        let [p] = outputs.f32_mut(["p"]);
        cpu::outer_step(path, &outer(case, inputs, Rule::None), p, &mut []);
    };
    reference(case, inputs, outputs) = {
        let [p] = outputs.f32_mut(["p"]);
        reference::outer_step(&outer(case, inputs, Rule::None), p, &mut []);
    };
    cost(case) = super::outer_step_cost(case.dim("count"));
    rows = &[];
}
