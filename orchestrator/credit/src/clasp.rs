//! CLASP: whose presence on a route makes losses worse.
//!
//! After the paper on the ancestor of this project (IOTA, 2025, section on contribution by loss and sampled paths): each
//! microbatch's loss and route are on record. A miner's marginal effect is what losses are higher by on the routes through it
//! than on those through its stage's other miners. Losses fall while a model learns, so they are compared within an inner
//! step: the effect is the slope of a regression with a mean of its own for each step, on whether the route leads through the
//! miner. The slope over its standard error follows Student's distribution where honest losses are normal, with as many
//! degrees of freedom as there are samples less steps less one; no part of that is an approximation. A miner stands out where
//! an honest one would with a probability below `false_positives` over the number of miners looked at (Bonferroni). Who
//! stands out deserves a closer look and is convicted by nothing but a replay.
//!
//! Samples must be independent: where routes stay for an epoch, the weights of a route's miners drift on their own in it, and
//! an epoch's mean is one sample, not each microbatch (taken one by one, honest lanes of a real run stood out at z = 4.8).

use serde::{Deserialize, Serialize};
use spec::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Routes below which nothing is said of a miner: the mean of fewer is not nearly normal.
pub const ROUTES_MIN: usize = 30;

/// One microbatch that went through every stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Inner steps count over the run, so that losses are compared within one.
    pub step: u64,
    /// Mean loss in nats per token.
    pub loss: f64,
    /// Who computed it, head first.
    pub route: Vec<NodeId>,
}

/// What the record says of one miner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// Who.
    pub miner: NodeId,
    /// Its stage.
    pub stage: usize,
    /// Routes through it.
    pub routes: usize,
    /// Mean loss through it over that through its peers, in nats per token.
    pub nats: f64,
    /// The effect over its standard error; positive where it makes losses worse.
    pub z: f64,
    /// Whether it stands out.
    pub stands_out: bool,
}

/// The losses of one inner step.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    count: f64,
    sum: f64,
}

/// The routes through one miner.
#[derive(Debug, Clone, Default)]
struct Own {
    routes: usize,
    /// Sum of their losses against the means of their steps.
    against: f64,
    /// By step.
    counts: BTreeMap<u64, f64>,
}

/// The effect of every miner with at least [`ROUTES_MIN`] routes whose peers have as many, in order of stage and key.
///
/// `false_positives` is the probability, in (0, 1), that any honest miner stands out. Where lanes never mix, the miners of
/// one lane cannot be told apart and stand out together.
pub fn effects(samples: &[Sample], false_positives: f64) -> Vec<Effect> {
    let mut steps: BTreeMap<u64, Step> = BTreeMap::new();
    for sample in samples {
        let step = steps.entry(sample.step).or_default();
        (step.count, step.sum) = (step.count + 1.0, step.sum + sample.loss);
    }
    let (mut miners, mut stages): (BTreeMap<(usize, NodeId), Own>, BTreeMap<usize, usize>) =
        Default::default();
    let mut squares = 0.0;
    for sample in samples {
        let step = steps[&sample.step];
        let against = sample.loss - step.sum / step.count;
        squares += against * against;
        for (stage, &miner) in sample.route.iter().enumerate() {
            let own = miners.entry((stage, miner)).or_default();
            (own.routes, own.against) = (own.routes + 1, own.against + against);
            *own.counts.entry(sample.step).or_default() += 1.0;
            *stages.entry(stage).or_default() += 1;
        }
    }
    let freedom = samples.len() as f64 - steps.len() as f64 - 1.0;
    let mut effects = Vec::new();
    for (&(stage, miner), own) in &miners {
        if freedom < 1.0 || own.routes < ROUTES_MIN || stages[&stage] - own.routes < ROUTES_MIN {
            continue;
        }
        // How much being on the route varies within steps: nothing is learnt where all routes lead through the miner.
        let spread: f64 = own.counts.iter().map(|(step, &of)| of * (1.0 - of / steps[step].count)).sum();
        if spread <= 0.0 {
            continue;
        }
        let nats = own.against / spread;
        let error = ((squares - nats * own.against).max(0.0) / freedom / spread).sqrt();
        let z = if error > 0.0 { nats / error } else { 0.0 };
        effects.push(Effect { miner, stage, routes: own.routes, nats, z, stands_out: false });
    }
    let rare = false_positives / effects.len().max(1) as f64;
    for effect in &mut effects {
        effect.stands_out = effect.z > 0.0 && beyond(effect.z, freedom) < rare;
    }
    effects
}

/// Miners that stand out.
pub fn outliers(samples: &[Sample], false_positives: f64) -> BTreeSet<NodeId> {
    effects(samples, false_positives)
        .into_iter()
        .filter(|effect| effect.stands_out)
        .map(|effect| effect.miner)
        .collect()
}

/// The probability that Student's t with so many degrees of freedom is beyond `t`, which is not negative.
fn beyond(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The regularised incomplete beta function, by its continued fraction (Abramowitz and Stegun 26.5.8, evaluated from the front).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast on one side of the mean alone.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front =
        (libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    let small = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / small(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for i in 1..300 {
        let m = f64::from(i);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for term in [even, odd] {
            d = 1.0 / small(1.0 + term * d);
            c = small(1.0 + term / c);
            fraction *= c * d;
        }
        if (fraction - before).abs() <= 1e-15 * fraction.abs() {
            break;
        }
    }
    front * fraction / a
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    /// Uniform in (0, 1).
    fn uniform(rng: &mut ChaCha8Rng) -> f64 {
        (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0
    }

    /// Standard normal, by Box and Muller.
    fn normal(rng: &mut ChaCha8Rng) -> f64 {
        let (radius, angle) = ((-2.0 * uniform(rng).ln()).sqrt(), std::f64::consts::TAU * uniform(rng));
        radius * angle.cos()
    }

    fn name(stage: usize, index: usize) -> NodeId {
        NodeId([(16 * stage + index) as u8; 32])
    }

    /// The toy of the paper: five stages of five miners, routes at random, losses N(4.5, 0.2); through the bad miner they
    /// are 10 % higher.
    fn toy(seed: u64, samples: u64, bad: Option<NodeId>) -> Vec<Sample> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sample = |i| {
            let route: Vec<NodeId> = (0..5).map(|stage| name(stage, (rng.next_u32() % 5) as usize)).collect();
            let loss = 4.5 + 0.2 * normal(&mut rng);
            let worse = bad.is_some_and(|bad| route.contains(&bad));
            Sample { step: i / 20, loss: if worse { loss * 1.1 } else { loss }, route }
        };
        (0..samples).map(sample).collect()
    }

    #[test]
    fn the_toys_bad_miner_stands_out_alone() {
        for seed in 0..100 {
            let bad = name(seed as usize % 5, seed as usize / 5 % 5);
            let found = outliers(&toy(seed, 1000, Some(bad)), 0.01);
            assert!(found.contains(&bad), "seed {seed}");
            assert!(found.len() <= 2, "seed {seed}: {found:?}");
        }
    }

    #[test]
    fn honest_miners_stand_out_as_often_as_said() {
        let (seeds, said) = (2000, 0.05);
        let wrong =
            (0..seeds).filter(|&seed| !outliers(&toy(1000 + seed, 600, None), said).is_empty()).count();
        println!("{wrong} of {seeds} honest swarms have a miner that stands out, {said} of them should");
        // 100 are expected; these are three standard deviations of that count.
        assert!((71..=129).contains(&wrong), "{wrong} of {seeds}");
    }

    #[test]
    fn falling_losses_are_no_effect_and_few_routes_say_nothing() {
        let mut samples = toy(7, 1000, None);
        // The first miner of stage 0 came when losses were high.
        for (i, sample) in samples.iter_mut().enumerate() {
            sample.loss += 3.0 - i as f64 / 400.0;
            if i > 300 && sample.route[0] == name(0, 0) {
                sample.route[0] = name(0, 1);
            }
        }
        assert!(outliers(&samples, 0.01).is_empty());
        assert!(effects(&samples[..100], 0.01).is_empty());
    }

    #[test]
    fn means_of_few_routes_are_no_measure_of_other_miners() {
        let mut samples = toy(8, 70, None);
        let few = ROUTES_MIN - 1;
        for (i, sample) in samples.iter_mut().enumerate() {
            sample.route = vec![name(0, usize::from(i < few)), name(1, i % 2)];
        }
        let of_stage = |samples: &[Sample], stage| {
            effects(samples, 0.01).iter().filter(|effect| effect.stage == stage).count()
        };
        assert_eq!((of_stage(&samples, 0), of_stage(&samples, 1)), (0, 2));
        samples[few].route[0] = name(0, 1);
        assert_eq!(of_stage(&samples, 0), 2);
    }

    #[test]
    fn the_mean_of_each_step_is_a_degree_of_freedom_less() {
        let (seeds, said) = (400_u64, 0.05);
        let of_two = |seed| {
            let mut samples = toy(5000 + seed, 600, None);
            (0..).zip(&mut samples).for_each(|(i, sample)| sample.step = i / 2);
            samples
        };
        let wrong = (0..seeds).filter(|&seed| !outliers(&of_two(seed), said).is_empty()).count();
        // 20 are expected; these are three standard deviations of that count.
        assert!((7..=33).contains(&wrong), "{wrong} of {seeds}");
    }

    #[test]
    fn tails_are_the_tables() {
        let table = [
            (0.0, 7.0, 0.5),
            (1.0, 1.0, 0.25),
            (1.812_461_123, 10.0, 0.05),
            (2.763_769, 10.0, 0.01),
            (3.390_491, 100.0, 0.000_5),
            (1.959_963_985, 1e7, 0.025),
        ];
        for (t, freedom, p) in table {
            let found = beyond(t, freedom);
            assert!((found - p).abs() < 1e-4 * p, "t = {t}, {freedom}: {found}, expected {p}");
        }
    }
}
