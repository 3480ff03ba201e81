use super::*;
use crate::model::{Goal, Input, Stage};
use crate::testing::run;
use kernels::matmul;
use kernels::philox::{Stream, normal};

fn noise(len: usize, tensor: u32, std: f32) -> Vec<f32> {
    let mut values = vec![0.0; len];
    normal(&Stream { seed: 5, tensor, step: 0, purpose: 99 }, 0, std, &mut values);
    values
}

/// A scalar of a stage's output: the mean loss of a stage that has one, else a fixed random projection; in f64.
fn scalar(stage: &Stage, weights: &[f32], input: &Tensor, tokens: &[u32], projection: &[f32]) -> f64 {
    let tape = run_stage(stage, weights, input, tokens);
    let y = tape.last().unwrap().data();
    if stage.shape().kind.judges() {
        return y.iter().map(|&loss| f64::from(loss)).sum::<f64>() / y.len() as f64;
    }
    y.iter().zip(projection).map(|(&y, &p)| f64::from(y) * f64::from(p)).sum()
}

fn run_stage(stage: &Stage, weights: &[f32], input: &Tensor, tokens: &[u32]) -> Tape {
    let input = if stage.shape().kind.embeds() {
        Input::Tokens(tokens)
    } else {
        Input::Activation(Tensor::new(input.shape(), input.data().to_vec()))
    };
    let targets: Vec<u32> = tokens.iter().map(|token| (token * 7 + 3) % 256).collect();
    stage.forward(weights, input, Goal::Loss(&targets), 6).unwrap()
}

/// Along a random direction in each tensor (and in the stage's input) the derivative must be the central difference.
///
/// A direction sums over a whole tensor, which is what makes f32 good enough. With h = 2^-8 the difference is off by a
/// truncation of order h^2 and by the rounding of the losses, 5e-7 each at about 5 nats, averaged over 12 rows and divided
/// by 2h: about 2e-5. Measured: at most 0.15 % of the slope, where that is not the larger; allowed: 1 % and 1e-4.
#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let model = run(&[1, 1, 1]).model;
    let whole = run(&[2]).model;
    for (model, index) in [(&model, 0), (&model, 1), (&model, 2), (&whole, 0)] {
        let stage = Stage::new(model, index).unwrap();
        let mut weights = stage.initial_weights(3);
        // Away from the special values of the start: norm weights of 1.
        weights.iter_mut().zip(noise(stage.layout().values(), 1, 0.1)).for_each(|(w, n)| *w += n);
        let tokens: Vec<u32> = (0..12).map(|i| i * 31 % 256).collect();
        let input = Tensor::new(&[12, 24], noise(12 * 24, 2, 1.0));
        let projection = noise(12 * 24, 3, 0.1);

        let tape = run_stage(&stage, &weights, &input, &tokens);
        let seed = (!stage.shape().kind.judges()).then(|| Tensor::new(&[12, 24], projection.clone()));
        let mut gradients = vec![0.0; weights.len()];
        let of_input = tape.backward(stage.parameters(&weights), seed, &mut gradients).unwrap();
        assert_eq!(of_input.is_some(), !stage.shape().kind.embeds());

        let h = 1.0 / 256.0;
        let mut checks: Vec<(String, f64, f64)> = Vec::new();
        for (number, entry) in stage.layout().entries().iter().enumerate() {
            let range = entry.range.clone();
            let direction = noise(range.len(), 100 + number as u32, 0.3);
            let slope = dot(&gradients[range.clone()], &direction);
            let at = |h: f32| {
                let mut moved = weights.clone();
                moved[range.clone()].iter_mut().zip(&direction).for_each(|(w, d)| *w += h * d);
                scalar(&stage, &moved, &input, &tokens, &projection)
            };
            checks.push((entry.name.clone(), slope, (at(h) - at(-h)) / (2.0 * f64::from(h))));
        }
        if let Some(of_input) = of_input {
            let direction = noise(12 * 24, 200, 0.3);
            let at = |h: f32| {
                let moved = input.data().iter().zip(&direction).map(|(x, d)| x + h * d).collect();
                scalar(&stage, &weights, &Tensor::new(&[12, 24], moved), &tokens, &projection)
            };
            let difference = (at(h) - at(-h)) / (2.0 * f64::from(h));
            checks.push(("input".into(), dot(of_input.data(), &direction), difference));
        }
        for (name, slope, difference) in checks {
            let off = (slope - difference).abs();
            assert!(
                off < 0.01 * slope.abs() + 1e-4,
                "stage {index}, {name}: backward says {slope}, differences say {difference}"
            );
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// q, k and v read one tensor: its gradient is `(dv + dk) + dq`, to the bit.
#[test]
fn a_value_used_three_times_gets_its_gradients_last_consumer_first() {
    let model = run(&[1, 1, 1]).model;
    let stage = Stage::new(&spec::Model { kv_heads: 4, ..model }, 1).unwrap();
    let weights = stage.initial_weights(1);
    let parameters = stage.parameters(&weights);
    let (q, k, v) = (ParameterId(1), ParameterId(2), ParameterId(3));
    let mut tape = Tape::default();
    let x = tape.input(Tensor::new(&[5, 24], noise(120, 1, 1.0)));
    let of_q = tape.linear(parameters, x, q).unwrap();
    let with_k = tape.linear_add(parameters, x, k, of_q).unwrap();
    tape.linear_add(parameters, x, v, with_k).unwrap();
    let dy = noise(120, 2, 1.0);
    let mut gradients = vec![0.0; weights.len()];
    let dx =
        tape.backward(parameters, Some(Tensor::new(&[5, 24], dy.clone())), &mut gradients).unwrap().unwrap();

    let of = |id| {
        let mut dx = vec![0.0; 120];
        let b = parameters.view(id).data.host();
        matmul::nn(&matmul::Matmul { m: 5, n: 24, k: 24, a: &dy, b }, &mut dx);
        dx
    };
    let (dq, dk, dv) = (of(q), of(k), of(v));
    let by_hand = |i: usize| ((dv[i] + dk[i]) + dq[i]).to_bits();
    assert!((0..120).all(|i| dx.data()[i].to_bits() == by_hand(i)));
    assert!(
        (0..120).any(|i| ((dq[i] + dk[i]) + dv[i]).to_bits() != by_hand(i)),
        "the order must matter here"
    );
}

#[test]
fn a_second_backward_adds_to_the_gradients() {
    let stage = Stage::new(&run(&[1]).model, 0).unwrap();
    let weights = stage.initial_weights(1);
    let tokens: Vec<u32> = (0..12).collect();
    let none = Tensor::new(&[0], Vec::new());
    let fold = |times: usize| {
        let mut gradients = vec![0.0; weights.len()];
        for _ in 0..times {
            let tape = run_stage(&stage, &weights, &none, &tokens);
            tape.backward(stage.parameters(&weights), None, &mut gradients).unwrap();
        }
        gradients
    };
    // Twelve tokens are one chunk in every kernel, so a microbatch adds one number, and x + x is exact.
    let (once, twice) = (fold(1), fold(2));
    assert!(once.iter().zip(&twice).all(|(a, b)| a + a == *b));
    assert!(once.iter().any(|&g| g != 0.0));
}
