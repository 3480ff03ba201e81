//! CLASP: whose presence on a route makes losses worse.
//!
//! After the paper on the ancestor of this project (IOTA, 2025, section on contribution by loss and sampled paths): each
//! microbatch's loss and route are on record. A miner's marginal effect is the mean loss of the routes through it against
//! that of the routes through its stage's other miners. Losses fall while a model learns, so each is first taken against
//! the mean of its inner step. The effect over its standard error (Welch) is a z-score; a miner stands out where z is
//! beyond the quantile that, over all miners looked at (Bonferroni), honest ones pass with probability
//! `false_positives` at most. Who stands out deserves a closer look and is convicted by nothing but a replay.
//!
//! Samples must be independent: where routes stay for an epoch, the weights of a route's miners drift on their own in it, and
//! an epoch's mean is one sample, not each microbatch (taken one by one, honest lanes of a real run stood out at z = 4.8).

use serde::Serialize;
use spec::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Routes below which nothing is said of a miner: the mean of fewer is not nearly normal.
pub const ROUTES_MIN: usize = 30;

/// One microbatch that went through every stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// Sum, sum of squares, and number of some values.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        self.squares += value * value;
    }

    fn without(self, part: Self) -> Self {
        Self {
            count: self.count - part.count,
            sum: self.sum - part.sum,
            squares: self.squares - part.squares,
        }
    }

    fn mean(self) -> f64 {
        self.sum / self.count
    }

    /// The square of the mean's standard error.
    fn error_squared(self) -> f64 {
        let variance = (self.squares - self.sum * self.mean()) / (self.count - 1.0);
        variance.max(0.0) / self.count
    }
}

/// The effect of every miner with at least [`ROUTES_MIN`] routes whose peers have as many, in order of stage and key.
///
/// `false_positives` is the probability, in (0, 1), that any honest miner stands out. Where lanes never mix, the miners of
/// one lane cannot be told apart and stand out together.
pub fn effects(samples: &[Sample], false_positives: f64) -> Vec<Effect> {
    let mut steps: BTreeMap<u64, Moments> = BTreeMap::new();
    for sample in samples {
        steps.entry(sample.step).or_default().add(sample.loss);
    }
    let (mut miners, mut stages): (BTreeMap<(usize, NodeId), Moments>, BTreeMap<usize, Moments>) =
        Default::default();
    for sample in samples {
        let against_step = sample.loss - steps[&sample.step].mean();
        for (stage, &miner) in sample.route.iter().enumerate() {
            miners.entry((stage, miner)).or_default().add(against_step);
            stages.entry(stage).or_default().add(against_step);
        }
    }
    let mut effects = Vec::new();
    for (&(stage, miner), &own) in &miners {
        let peers = stages[&stage].without(own);
        if own.count < ROUTES_MIN as f64 || peers.count < ROUTES_MIN as f64 {
            continue;
        }
        let nats = own.mean() - peers.mean();
        let error = (own.error_squared() + peers.error_squared()).sqrt();
        let z = if error > 0.0 { nats / error } else { 0.0 };
        let routes = own.count as usize;
        effects.push(Effect { miner, stage, routes, nats, z, stands_out: false });
    }
    let threshold = quantile(1.0 - false_positives / effects.len().max(1) as f64);
    for effect in &mut effects {
        effect.stands_out = effect.z > threshold;
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

/// Where the standard normal distribution function reaches `p`, by bisection.
fn quantile(p: f64) -> f64 {
    let below = |z: f64| 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if below(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
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
    fn honest_miners_stand_out_no_more_often_than_said() {
        let (seeds, said) = (400, 0.05);
        let wrong =
            (0..seeds).filter(|&seed| !outliers(&toy(1000 + seed, 600, None), said).is_empty()).count();
        // 20 are expected at most; 35 or more of 400 have a probability below 0.1 % at that rate.
        println!(
            "{wrong} of {seeds} honest swarms have a miner that stands out, at most {said} of them should"
        );
        assert!(wrong < 35, "{wrong} of {seeds}");
        assert!(wrong > 0, "a test that never says yes says nothing");
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
    fn quantiles_are_the_tables() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959_963_985), (0.999_6, 3.352_794_780), (0.01, -2.326_347_874)] {
            assert!((quantile(p) - z).abs() < 1e-8, "{p}: {}", quantile(p));
        }
    }
}
