//! Manifests go to the store, the pointer moves, the run goes on or ends.

use crate::effect::{Effect, Ending, Report};
use crate::machine::{Orchestrator, Phase};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};
use wire::{Manifest, ObjectRef, Signed};

/// A manifest on its way to the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Publishing {
    manifest: Signed<Manifest>,
    /// The manifest's object: [`wire::to_bytes`] of the signed manifest.
    object: ObjectRef,
    stored: bool,
}

impl Orchestrator {
    pub(crate) fn publish(&mut self, manifest: Signed<Manifest>) {
        let bytes = wire::to_bytes(&manifest);
        let object = ObjectRef::of(&bytes);
        self.state.publishing = Some(Publishing { manifest, object, stored: false });
        self.emit(Effect::Put { object, bytes });
    }

    /// Asks the store again for what was under way.
    pub(crate) fn publish_again(&mut self) {
        let Some(Publishing { manifest, object, stored }) = self.state.publishing.clone() else { return };
        if stored {
            self.emit(Effect::MovePointer { from: self.state.pointer, to: object.digest });
        } else {
            self.emit(Effect::Put { object, bytes: wire::to_bytes(&manifest) });
        }
    }

    pub(crate) fn stored(&mut self, digest: Digest) {
        let Some(publishing) = &mut self.state.publishing else { return };
        if publishing.object.digest != digest || publishing.stored {
            return;
        }
        if self.state.phase == Phase::RollingBack {
            // Nobody saw it yet, and nobody will.
            self.state.publishing = None;
            self.move_back();
            return;
        }
        publishing.stored = true;
        self.emit(Effect::MovePointer { from: self.state.pointer, to: digest });
        self.progressed();
    }

    pub(crate) fn pointer_moved(&mut self, digest: Digest) {
        let due = |publishing: &Publishing| publishing.stored && publishing.object.digest == digest;
        if !self.state.publishing.as_ref().is_some_and(due) {
            return;
        }
        let Some(Publishing { manifest, .. }) = self.state.publishing.take() else { return };
        self.state.pointer = Some(digest);
        if self.move_back() {
            return;
        }
        self.state.manifest = manifest;
        self.remember();
        match self.state.phase {
            Phase::Committing => self.committed(digest),
            Phase::RollingBack => self.rolled_back(),
            _ => {}
        }
    }

    /// Moves the pointer to a manifest that is in the store.
    pub(crate) fn point_at(&mut self, manifest: Signed<Manifest>) {
        let object = ObjectRef::of(&wire::to_bytes(&manifest));
        self.emit(Effect::MovePointer { from: self.state.pointer, to: object.digest });
        self.state.publishing = Some(Publishing { manifest, object, stored: true });
    }

    /// Goes as far as the state of things allows.
    pub(crate) fn advance(&mut self) {
        match self.state.phase {
            Phase::Gathering { .. } if self.state.pointer.is_some() && self.may_settle() => {
                self.state.phase = Phase::Settling;
                self.go_on();
            }
            Phase::Merging => {
                if let Some(manifest) = self.merged_manifest() {
                    self.state.phase = Phase::Committing;
                    self.publish(Signed::new(manifest, &self.config.key));
                }
            }
            Phase::Settling => self.go_on(),
            _ => {}
        }
    }

    fn committed(&mut self, digest: Digest) {
        let Some(epoch) = self.state.epoch.take() else { return };
        // Nothing but the mean over all microbatches is said here; each was reported on its own.
        let nats = self.state.manifest.body.loss_q32.map_or(f64::NAN, wire::receipt::nats);
        self.report(Report::Committed { epoch: epoch.number, manifest: digest, nats });
        // Who merged these weights holds them.
        let next = self.state.manifest.body.epoch;
        let holds = |miner: &&NodeId| epoch.merges.iter().any(|merge| merge.holds_merged(**miner));
        for miner in epoch.miners.keys().filter(holds) {
            if let Some(seat) = self.state.seats.seat_mut(*miner) {
                seat.ready = Some(next);
            }
        }
        self.remember_merges(epoch.merges_into(&self.state.manifest.body));
        self.account(&epoch, digest);
        let forgetful = epoch.forgetful.clone();
        self.draw_audits(epoch);
        self.state.phase = Phase::Settling;
        self.progressed();
        self.settle();
        for node in forgetful {
            self.forgive_windows(node, true);
        }
        if !self.is_complete() {
            self.tell_to_adopt();
        }
    }

    /// Opens the next epoch, or ends the run, unless audits must come first.
    fn go_on(&mut self) {
        let next = self.state.manifest.body.epoch;
        let unaudited = self.state.audits.keys().next().copied();
        if self.is_complete() {
            if unaudited.is_none() {
                self.finish("the run is complete".into(), Ending::Complete);
            }
            return;
        }
        let in_time = unaudited.is_none_or(|epoch| next <= epoch.saturating_add(self.config.run.audit.lag));
        if in_time && self.is_gathered() {
            self.open_epoch();
        }
    }

    fn may_settle(&self) -> bool {
        self.is_complete() || self.is_gathered()
    }

    fn is_complete(&self) -> bool {
        self.state.manifest.body.epoch >= self.config.run.epoch.count
    }
}
