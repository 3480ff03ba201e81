//! Who may reach which object.

use crate::effect::Effect;
use crate::machine::Orchestrator;
use spec::NodeId;
use wire::limits::BODY_BYTES_MAX;
use wire::{Ask, Grant, Message, ObjectRef, Verb};

/// A weights shard may grow by this much between epochs, in bytes: its header tells the epoch.
const WEIGHTS_SLACK_BYTES: u64 = 64 << 10;
/// The state of a stage (weights, moments, residual, momentum) in lengths of its weights shard.
const STATE_WEIGHTS_MAX: u64 = 8;

impl Orchestrator {
    pub(crate) fn answer(&mut self, node: NodeId, ask: Ask) {
        match self.allowed(node, &ask) {
            Ok(()) => self.emit(Effect::Grant { to: node, ask }),
            Err(why) => self.send(node, Message::Grant(Grant { ask, answer: Err(why.into()) })),
        }
    }

    fn allowed(&self, node: NodeId, ask: &Ask) -> Result<(), &'static str> {
        match (ask.verb, self.state.seats.stage_of(node)) {
            (Verb::Get, Some(stage)) => self.miner_may_get(stage, ask.object),
            (Verb::Put, Some(stage)) => self.miner_may_put(node, stage, ask.object),
            (Verb::Get, None) => self.validator_may_get(node, ask.object),
            (Verb::Put, None) => Err("a validator writes nothing"),
        }
    }

    fn miner_may_get(&self, stage: u16, object: ObjectRef) -> Result<(), &'static str> {
        let record = self.state.manifest.body.stages.get(usize::from(stage));
        let own = record.is_some_and(|record| record.weights == object || record.momentum == Some(object));
        if own || self.is_token_shard(object) {
            return Ok(());
        }
        Err("a miner reads the token shards and its own stage's weights of the last manifest")
    }

    fn miner_may_put(&self, miner: NodeId, stage: u16, object: ObjectRef) -> Result<(), &'static str> {
        let now = self.weights(stage).map_or(0, |weights| weights.bytes);
        let epoch = self.state.epoch.as_ref();
        if epoch.is_some_and(|epoch| epoch.may_keep(miner, stage, object)) {
            let fits = object.bytes <= now.saturating_add(WEIGHTS_SLACK_BYTES);
            return if fits { Ok(()) } else { Err("the weights shard is longer than this stage's can be") };
        }
        if epoch.is_some_and(|epoch| epoch.may_disclose(miner, object)) {
            let fits = object.bytes <= now.saturating_add(WEIGHTS_SLACK_BYTES);
            return if fits { Ok(()) } else { Err("the piece is longer than this stage's can be") };
        }
        let bound = self.drawn_bound(miner, object.digest);
        // Whoever moved since reveals what it did in the stage that it had.
        let then = bound.and_then(|(stage, _)| self.weights(stage)).map_or(0, |weights| weights.bytes);
        let state_max = then.saturating_mul(STATE_WEIGHTS_MAX).saturating_add(WEIGHTS_SLACK_BYTES);
        match bound {
            Some((_, true)) if object.bytes <= state_max => Ok(()),
            Some((_, false)) if object.bytes <= u64::from(BODY_BYTES_MAX) => Ok(()),
            Some(_) => Err("the object is longer than what the receipt binds can be"),
            None => Err("a miner writes its merged weights and what a drawn window binds"),
        }
    }

    fn validator_may_get(&self, validator: NodeId, object: ObjectRef) -> Result<(), &'static str> {
        let adds_up = self.state.epoch.as_ref().is_some_and(|epoch| epoch.may_add_up(validator, object));
        if self.is_token_shard(object) || adds_up || self.ordered_to(validator, object) {
            return Ok(());
        }
        Err("a validator reads the token shards and the objects of its audits")
    }

    fn weights(&self, stage: u16) -> Option<ObjectRef> {
        Some(self.state.manifest.body.stages.get(usize::from(stage))?.weights)
    }

    fn is_token_shard(&self, object: ObjectRef) -> bool {
        let data = &self.config.run.data;
        object == ObjectRef::train(data) || object == ObjectRef::validation(data)
    }
}
