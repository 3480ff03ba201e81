//! What is peculiar to the room.

use super::{
    BLOCK, Contribution, NonFinite, Outer, Rule, accumulate, contribute, exponents, outer_step,
    share_exponents,
};
use crate::common::gradient::numbers;

const N: usize = 300;
const BITS: u32 = 8;

struct Replica {
    local: Vec<f32>,
    residual: Vec<f32>,
    weight: u32,
}

fn replicas() -> (Vec<f32>, Vec<Replica>) {
    let old = numbers(1, N);
    let replica = |seed: u32, weight| {
        let local = old.iter().zip(numbers(seed, N)).map(|(old, change)| old - 0.01 * change).collect();
        Replica { local, residual: vec![0.0; N], weight }
    };
    let replicas = vec![replica(2, 3), replica(3, 5), replica(4, 1)];
    (old, replicas)
}

/// The merged weights, contributions arriving in the order given.
fn merge(old: &[f32], replicas: &mut [Replica], order: &[usize], rule: Rule) -> (Vec<f32>, Vec<f32>) {
    let mut shared = vec![i8::MIN; N.div_ceil(BLOCK)];
    for r in &*replicas {
        let mut own = vec![0; shared.len()];
        exponents(&Contribution { old, local: &r.local }, &r.residual, &mut own).unwrap();
        share_exponents(&mut shared, &own);
    }
    let (mut sums, mut codes) = (vec![0i64; N], vec![0i16; N]);
    for &i in order {
        let r = &mut replicas[i];
        contribute(&Contribution { old, local: &r.local }, &shared, BITS, &mut r.residual, &mut codes)
            .unwrap();
        accumulate(&mut sums, &codes, r.weight);
    }
    let total_weight = replicas.iter().map(|r| u64::from(r.weight)).sum();
    let (mut p, mut buf) = (old.to_vec(), vec![0.25; N]);
    let args = Outer { sums: &sums, exponents: &shared, bits: BITS, total_weight, rule };
    outer_step(&args, &mut p, &mut buf);
    (p, buf)
}

#[test]
fn the_order_of_replicas_is_free() {
    for rule in [Rule::None, Rule::Nesterov { lr: 0.7, momentum: 0.9 }] {
        let (old, mut first) = replicas();
        let (_, mut second) = replicas();
        assert_eq!(merge(&old, &mut first, &[0, 1, 2], rule), merge(&old, &mut second, &[2, 0, 1], rule));
    }
}

#[test]
fn without_momentum_the_weighted_mean_comes_out() {
    let (old, mut replicas) = replicas();
    let (p, buf) = merge(&old, &mut replicas, &[0, 1, 2], Rule::None);
    assert_eq!(buf, vec![0.25; N], "a rule without momentum leaves the momentum alone");
    for i in 0..N {
        let mean = replicas.iter().map(|r| f64::from(r.local[i]) * f64::from(r.weight)).sum::<f64>() / 9.0;
        // A code is off by half a step, and a step is amax / 64 at most.
        assert!((f64::from(p[i]) - mean).abs() < 0.05 / 64.0, "weight {i}: {} against {mean}", p[i]);
    }
}

#[test]
fn what_saturates_stays_in_the_residual() {
    let (old, local) = ([1.0], [0.0]);
    let (mut residual, mut codes) = ([0.5], [0]);
    // The shared scale ends at 2^0 = 1, the change is 1.5.
    contribute(&Contribution { old: &old, local: &local }, &[0], BITS, &mut residual, &mut codes).unwrap();
    assert_eq!((codes[0], residual[0]), (127, 1.5 - 127.0 / 128.0));
}

#[test]
fn nobody_folded_nothing_moves() {
    let (mut p, mut buf) = (numbers(1, N), numbers(2, N));
    let before = (p.clone(), buf.clone());
    let rule = Rule::Nesterov { lr: 0.7, momentum: 0.9 };
    let args = Outer { sums: &[5; N], exponents: &[0; 3], bits: BITS, total_weight: 0, rule };
    outer_step(&args, &mut p, &mut buf);
    assert_eq!(before, (p, buf));
}

#[test]
fn a_replica_that_diverged_is_told_where_and_keeps_its_residual() {
    let old = numbers(1, N);
    let mut local = old.clone();
    local[201] = f32::NAN;
    let change = Contribution { old: &old, local: &local };
    let (mut residual, mut codes) = (vec![0.5; N], vec![7; N]);
    let struck = contribute(&change, &[0; 3], BITS, &mut residual, &mut codes);
    assert_eq!(struck, Err(NonFinite { index: 201 }));
    assert!(residual.iter().all(|r| *r == 0.5) && codes.iter().all(|q| *q == 7));
    assert_eq!(exponents(&change, &residual, &mut [0; 3]), Err(NonFinite { index: 201 }));
}
