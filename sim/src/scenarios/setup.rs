//! The honest swarm that every scenario starts from.

use super::Scenario;
use crate::cores::Recipe;
use crate::world::chance::Chance;
use crate::world::disk::Store;
use crate::world::faults::Fate;
use crate::world::learner::Learner;
use crate::{Options, SimError};
use orchestrator_core::Timeouts;
use spec::{
    Admission, Audit, BoundaryCodec, Data, Digest, Epoch, Inner, Mode, Model, NodeId, Outer, Run, SpecError,
    Tokenizer,
};
use wire::{Key, Manifest, Signed, StageRecord, guest};

/// So many miners have a validator of their own: one alone would be late with its verdicts.
const MINERS_OF_A_VALIDATOR: usize = 50;

/// A world before its first moment.
pub struct Setup {
    /// The run.
    pub run: Run,
    /// Token shards and first weights.
    pub store: Store,
    /// The orchestrator, then the miners, then the validator.
    pub nodes: Vec<NodeSetup>,
    /// A frame breaks the direct route that it is sent over once in so many times; never where it is 0.
    pub routes_break_one_in: u64,
    orchestrator: NodeId,
    token: Vec<u8>,
}

/// One node of it.
pub struct NodeSetup {
    /// Its key.
    pub id: NodeId,
    /// Its role and number.
    pub name: String,
    /// Its core.
    pub recipe: Recipe,
    /// What befalls it.
    pub fate: Fate,
}

impl Setup {
    /// What the node with the wrong token is called.
    pub const STRANGER: &'static str = "stranger";

    /// The swarm of a scenario.
    ///
    /// # Errors
    /// When the options make no legal run.
    pub fn new(scenario: &Scenario, seed: u64, options: &Options) -> Result<Self, SimError> {
        let mut chance = Chance::of(seed, "setup");
        let (mut run, shards) = small_run(options)?;
        run.seed = seed;
        if chance.within(0..2) == 0 && options.miners == 1 {
            run.outer = Outer::None;
        }
        (scenario.run)(&mut run);
        let key = Key::from_seed(chance.bytes());
        let token = chance.bytes().to_vec();
        let mut store = Store::default();
        for shard in shards {
            store.objects.put(shard);
        }
        let stage = |stage: usize| StageRecord {
            weights: store.objects.put(Learner::first_weights(&run, stage as u16)),
            momentum: None,
            miners: Vec::new(),
        };
        let stages = (0..run.model.stage_count()).map(stage).collect();
        let previous = Digest::default();
        let manifest =
            Signed::new(Manifest { run: run.id(), epoch: 0, previous, stages, loss_q32: None }, &key);
        let miners = run.model.stage_count() * usize::from(options.miners);
        let validators = (miners / MINERS_OF_A_VALIDATOR).max(1) as u16;
        let config = orchestrator_core::Config {
            run: run.clone(),
            key: key.clone(),
            manifest,
            token: token.clone(),
            secret: chance.bytes(),
            validators,
            lanes_at_start: 0,
            mixes_routes: true,
            direct: false,
            timeouts: Timeouts::default(),
        };
        let orchestrator = key.id();
        let mut guest = || {
            let config =
                guest::Config::new(Key::from_seed(chance.bytes()), orchestrator, token.clone(), "sim");
            (config.key.id(), config)
        };
        let mut nodes = vec![NodeSetup {
            id: orchestrator,
            name: "orchestrator".into(),
            recipe: Recipe::Orchestrator(config),
            fate: Fate::default(),
        }];
        for number in 0..miners {
            let (id, config) = guest();
            let (name, recipe) = (format!("miner-{number}"), Recipe::Miner(config));
            nodes.push(NodeSetup { id, name, recipe, fate: Fate::default() });
        }
        for number in 0..validators {
            let (id, config) = guest();
            let name = if number == 0 { "validator".into() } else { format!("validator-{number}") };
            nodes.push(NodeSetup { id, name, recipe: Recipe::Validator(config), fate: Fate::default() });
        }
        let mut setup = Self { run, store, nodes, routes_break_one_in: 0, orchestrator, token };
        (scenario.twist)(&mut setup, &mut chance);
        Ok(setup)
    }

    /// Lets the orchestrator begin once every stage has one miner.
    pub fn start_with_one_lane(&mut self) {
        if let Recipe::Orchestrator(config) = &mut self.nodes[0].recipe {
            config.lanes_at_start = 1;
        }
    }

    /// The slowest uplink that is waited for, in bytes/s.
    pub fn wait_for_uplinks_of(&mut self, bytes_per_s: u64) {
        if let Recipe::Orchestrator(config) = &mut self.nodes[0].recipe {
            config.timeouts.uplink_bytes_per_s = bytes_per_s;
        }
    }

    /// Lets miners talk to each other directly; a frame breaks the route that it is sent over once in so many times.
    pub fn route_directly(&mut self, break_one_in: u64) {
        self.routes_break_one_in = break_one_in;
        for (port, node) in (1..).zip(&mut self.nodes) {
            match &mut node.recipe {
                Recipe::Orchestrator(config) => config.direct = true,
                Recipe::Miner(config) => config.reachable = Some(vec![([10, 0, 0, 1], port).into()]),
                Recipe::Validator(_) => {}
            }
        }
    }

    /// How many miners there are from the start: they come after the orchestrator.
    pub fn miners(&self) -> usize {
        self.run.model.stage_count() * usize::from(self.run.miners_per_stage)
    }

    /// Draws one of the miners.
    pub fn some_miner(&mut self, chance: &mut Chance) -> &mut NodeSetup {
        let miner =
            chance.within(1..self.run.model.stage_count() as u64 * u64::from(self.run.miners_per_stage) + 1);
        &mut self.nodes[miner as usize]
    }

    /// Adds a miner whose token is a wrong one.
    pub fn add_stranger(&mut self, seed: [u8; 32]) {
        self.add_miner(Self::STRANGER, seed, b"guessed".to_vec());
    }

    /// Adds a miner that comes when the others have long begun.
    pub fn add_newcomer(&mut self, seed: [u8; 32], comes_after_us: u64) {
        let token = self.token.clone();
        self.add_miner("newcomer", seed, token).fate.comes_after_us = Some(comes_after_us);
    }

    /// The validator that is there from the start.
    pub fn first_validator(&mut self) -> Option<&mut NodeSetup> {
        self.nodes.iter_mut().find(|node| matches!(node.recipe, Recipe::Validator(_)))
    }

    /// Adds a validator that comes when the others have long begun.
    pub fn add_validator(&mut self, seed: [u8; 32], comes_after_us: u64) {
        let config = guest::Config::new(Key::from_seed(seed), self.orchestrator, self.token.clone(), "sim");
        let fate = Fate { comes_after_us: Some(comes_after_us), ..Fate::default() };
        let (id, name, recipe) = (config.key.id(), "other validator".into(), Recipe::Validator(config));
        self.nodes.push(NodeSetup { id, name, recipe, fate });
    }

    fn add_miner(&mut self, name: &str, seed: [u8; 32], token: Vec<u8>) -> &mut NodeSetup {
        let config = guest::Config::new(Key::from_seed(seed), self.orchestrator, token, "sim");
        let (id, name, at) = (config.key.id(), name.into(), self.nodes.len());
        self.nodes.push(NodeSetup { id, name, recipe: Recipe::Miner(config), fate: Fate::default() });
        &mut self.nodes[at]
    }
}

/// A run of the size that `options` ask for, with the files of its training and validation shard.
///
/// # Errors
/// When the options make no legal run.
pub fn small_run(options: &Options) -> Result<(Run, [Vec<u8>; 2]), SpecError> {
    let tokens = 64_usize;
    let shards = [b't', b'v'].map(|byte| vec![byte; tokens + Data::SHARD_HEADER_BYTES as usize]);
    let run = Run {
        name: "simulated".into(),
        mode: Mode::Portable,
        seed: 0,
        miners_per_stage: options.miners,
        model: Model {
            dim: 16,
            heads: 2,
            kv_heads: 1,
            ffn: 32,
            vocab: 256,
            context: 16,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            stages: vec![1; options.stages.into()],
            rope_scaling: None,
        },
        data: Data {
            tokenizer: Tokenizer::Bytes,
            train: Digest::of(&shards[0]),
            train_tokens: tokens as u64,
            validation: Digest::of(&shards[1]),
            validation_tokens: tokens as u64,
            sequences: 1,
        },
        inner: Inner {
            lr: 1e-3,
            lr_final: 1e-4,
            warmup_steps: 2,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            members: options.members,
            staleness: 0,
        },
        outer: Outer::Nesterov { lr: 0.7, momentum: 0.9, bits: 8 },
        epoch: Epoch { steps: options.steps, count: options.epochs, digest_every: 2 },
        boundary: BoundaryCodec::F32,
        audit: Audit { windows: 1, lag: 1 },
        admission: Admission::Invitation,
    };
    run.check()?;
    Ok((run, shards))
}
