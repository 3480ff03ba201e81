//! What a validator finds wrong is an accusation. It convicts only once a second party did the same again and agrees.
//!
//! The shell has each case checked beside the run. Until the answer is there the window counts as not judged, and a shard
//! as not added up; everything else goes on. Where the check does not bear out what was said, the accuser lied.

use crate::audit::Standing;
use crate::disputes::Charged;
use crate::effect::{Effect, Report};
use crate::event::Confirmation;
use crate::machine::{Orchestrator, shorten};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Window};
use std::collections::BTreeMap;
use wire::Finding;

/// Accusations that are checked, by the digest of their case.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Accusations(BTreeMap<Digest, Accusation>);

/// A validator's word against somebody.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Accusation {
    pub accuser: NodeId,
    pub since_ms: u64,
    /// What the second party is given.
    pub case: Vec<u8>,
    pub charge: Charge,
}

/// What somebody is accused of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // a handful at a time
pub(crate) enum Charge {
    /// A window that a replay does not give.
    Window {
        miner: NodeId,
        stage: u16,
        window: Window,
        finding: Finding,
        /// To follow "was convicted".
        why: String,
    },
    /// Sums of a shard that the pieces do not have, or pieces that do not open.
    Sum(Charged),
}

impl Accusations {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Since when each is checked.
    pub fn since_ms(&self) -> impl Iterator<Item = u64> {
        self.0.values().map(|accusation| accusation.since_ms)
    }

    /// Those that are overdue, for people.
    pub fn owing(&self, late: &dyn Fn(u64) -> bool) -> Vec<String> {
        let overdue = self.0.iter().filter(|(_, accusation)| late(accusation.since_ms));
        let sentence = |(digest, accusation): (&Digest, &Accusation)| {
            format!(
                "this machine owes the check of case {} by validator {}",
                digest.short(),
                accusation.accuser.short()
            )
        };
        overdue.map(sentence).collect()
    }
}

impl Orchestrator {
    /// Has a validator's word against somebody checked.
    pub(crate) fn accuse(&mut self, accuser: NodeId, case: Vec<u8>, charge: Charge) -> Digest {
        let evidence = Digest::of(&case);
        let accusation = Accusation { accuser, since_ms: self.now_ms, case: case.clone(), charge };
        self.state.accusations.0.insert(evidence, accusation);
        self.emit(Effect::Confirm { evidence, case });
        evidence
    }

    /// This orchestrator was started again: who checked was its own, so all is checked anew.
    pub(crate) fn accuse_again(&mut self) {
        let now_ms = self.now_ms;
        let mut effects = Vec::new();
        for (&evidence, accusation) in &mut self.state.accusations.0 {
            accusation.since_ms = now_ms;
            effects.push(Effect::Confirm { evidence, case: accusation.case.clone() });
        }
        self.effects.extend(effects);
    }

    /// A second party did again what an accusation is about.
    pub(crate) fn confirmed(&mut self, evidence: Digest, confirmation: Confirmation) {
        let Some(Accusation { accuser, case, charge, .. }) = self.state.accusations.0.remove(&evidence)
        else {
            return;
        };
        self.progressed();
        let proven = confirmation == Confirmation::Proven;
        let lie = match confirmation {
            Confirmation::Proven => None,
            Confirmation::Unable { why } => {
                let text = format!(
                    "case {} could not be checked here ({}): the word of validator {} alone convicts",
                    evidence.short(),
                    shorten(&why),
                    accuser.short()
                );
                self.report(Report::Note { text });
                None
            }
            Confirmation::NotProven { why } => Some(shorten(&why)),
        };
        match (charge, lie) {
            (Charge::Window { miner, stage, window, finding, why }, None) => {
                self.forget_undone(miner, evidence);
                if !self.state.consequences.banned.contains_key(&miner) {
                    self.report(Report::Audited { miner, stage, window, finding });
                    // Nobody is asked on the word of a validator alone.
                    if proven {
                        self.prepare_question(&case);
                    }
                    self.convict(miner, &why, Some(case));
                }
            }
            (Charge::Window { miner, window, .. }, Some(lie)) => {
                self.forget_undone(miner, evidence);
                self.doubt(miner, window, evidence);
                self.slandered(accuser, &lie);
            }
            (Charge::Sum(charged), None) => self.sum_is_proven(charged),
            (Charge::Sum(charged), Some(lie)) => {
                self.sum_is_open_again(&charged);
                self.slandered(accuser, &lie);
            }
        }
    }

    /// Who accuses the honest is not believed any more; what it judged is judged by another.
    fn slandered(&mut self, accuser: NodeId, lie: &str) {
        if !self.state.consequences.banned.contains_key(&accuser) {
            self.distrust(accuser, &format!("accuses somebody of what a second check does not find: {lie}"));
        }
        self.order_audits();
        self.order_sums();
    }

    /// A window waits for a verdict again.
    fn doubt(&mut self, miner: NodeId, window: Window, evidence: Digest) {
        let now_ms = self.now_ms;
        self.change_pending(miner, window, |pending| {
            if let Standing::Accused { evidence: of, state, inputs } = &pending.standing
                && *of == evidence
            {
                pending.standing = Standing::Revealed { state: *state, inputs: inputs.clone() };
                pending.since_ms = now_ms;
            }
        });
    }

    /// A window of an epoch that was undone is judged, and asked of nobody.
    fn forget_undone(&mut self, miner: NodeId, evidence: Digest) {
        let accused = |standing: &Standing| matches!(standing, Standing::Accused { evidence: of, .. } if *of == evidence);
        let undone = &mut self.state.consequences.undone;
        undone.retain(|(of, ..), (_, pending)| *of != miner || !accused(&pending.standing));
    }
}
