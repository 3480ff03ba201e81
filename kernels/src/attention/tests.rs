//! What is peculiar to the room.

use super::{Backward, Forward, Next, Shape, backward, forward, next_on};
use crate::SimdPath;
use crate::common::gradient::{check, numbers, weigh};

fn run(shape: Shape, q: &[f32], k: &[f32], v: &[f32]) -> [Vec<f32>; 3] {
    let mut out = [vec![0.0; shape.query_len()], vec![0.0; shape.stat_len()], vec![0.0; shape.stat_len()]];
    let [o, m, l] = &mut out;
    forward(&Forward { shape, q, k, v }, o, m, l);
    out
}

fn formula(shape: &Shape, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let Shape { batch, seq, heads, kv_heads, head_dim: d } = *shape;
    let mut o = vec![0.0; shape.query_len()];
    for (b, h, i) in (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..seq).map(move |i| (b, h, i)))) {
        let query = ((b * seq + i) * heads + h) * d;
        let key = |j: usize| ((b * seq + j) * kv_heads + h / (heads / kv_heads)) * d;
        let dot = |j: usize| (0..d).map(|t| q[query + t] * k[key(j) + t]).sum::<f64>();
        let weights: Vec<f64> = (0..=i).map(|j| (dot(j) / (d as f64).sqrt()).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for t in 0..d {
            o[query + t] = (0..=i).map(|j| weights[j] / sum * v[key(j) + t]).sum();
        }
    }
    o
}

#[test]
fn backward_is_the_derivative() {
    let shape = Shape { batch: 1, seq: 67, heads: 4, kv_heads: 2, head_dim: 6 };
    let (q, k, v) = (numbers(1, shape.query_len()), numbers(2, shape.key_len()), numbers(3, shape.key_len()));
    let dout = numbers(4, shape.query_len());
    let [o, m, l] = run(shape, &q, &k, &v);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; k.len()]);
    let args = Backward { shape, q: &q, k: &k, v: &v, o: &o, m: &m, l: &l, dout: &dout };
    backward(&args, &mut dq, &mut dk, &mut dv);
    let objective = |at: &[Vec<f64>]| weigh(&formula(&shape, &at[0], &at[1], &at[2]), &dout);
    check(objective, &[&q, &k, &v], &[("dq", &dq), ("dk", &dk), ("dv", &dv)], 2e-5);
}

#[test]
fn a_later_token_changes_no_bit_of_an_earlier_row() {
    let shape = Shape { batch: 1, seq: 140, heads: 2, kv_heads: 1, head_dim: 16 };
    let (q, k, v) = (numbers(1, shape.query_len()), numbers(2, shape.key_len()), numbers(3, shape.key_len()));
    let [before, ..] = run(shape, &q, &k, &v);
    for token in [1, 63, 64, 100, 139] {
        let change = |x: &[f32], width: usize| {
            let mut x = x.to_vec();
            // Infinity where a masked product must never be made.
            x[token * width..].fill(f32::INFINITY);
            x
        };
        let [after, ..] = run(shape, &change(&q, 32), &change(&k, 16), &change(&v, 16));
        assert_eq!(before[..token * 32], after[..token * 32], "token {token}");
        assert!(after[token * 32..].iter().all(|x| x.is_nan()), "token {token} went unnoticed");
    }
}

#[test]
fn sequences_and_heads_stand_alone() {
    let shape = Shape { batch: 2, seq: 70, heads: 2, kv_heads: 2, head_dim: 8 };
    let one = Shape { batch: 1, heads: 1, kv_heads: 1, ..shape };
    let (q, k, v) = (numbers(1, shape.query_len()), numbers(2, shape.key_len()), numbers(3, shape.key_len()));
    let [all, ..] = run(shape, &q, &k, &v);
    for (batch, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let part = |x: &[f32]| -> Vec<f32> {
            (0..70).flat_map(|i| x[((batch * 70 + i) * 2 + head) * 8..][..8].to_vec()).collect()
        };
        let [alone, ..] = run(one, &part(&q), &part(&k), &part(&v));
        assert_eq!(part(&all), alone, "sequence {batch}, head {head}");
    }
}

#[test]
fn the_next_token_has_the_bits_of_the_last_row() {
    for (heads, kv_heads, head_dim) in [(2, 1, 6), (4, 2, 16), (3, 3, 33), (2, 2, 64)] {
        let shape = Shape { batch: 1, seq: 135, heads, kv_heads, head_dim };
        let (q, k, v) =
            (numbers(1, shape.query_len()), numbers(2, shape.key_len()), numbers(3, shape.key_len()));
        let [whole, ..] = run(shape, &q, &k, &v);
        let (row, width) = (heads * head_dim, kv_heads * head_dim);
        for seq in [1, 2, 63, 64, 65, 128, 129, 135] {
            let (q, k, v) = (&q[(seq - 1) * row..seq * row], &k[..seq * width], &v[..seq * width]);
            for path in SimdPath::available() {
                let mut o = vec![f32::NAN; row];
                next_on(path, &Next { shape: Shape { seq, ..shape }, q, k, v }, &mut o);
                assert_eq!(o, whole[(seq - 1) * row..seq * row], "{seq} tokens, {path:?}");
            }
        }
    }
}
