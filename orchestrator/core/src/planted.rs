//! Validators are tried: now and then one is ordered to replay a window that is known to be wrong.
//!
//! The window is a real one, signed anew by a key that nobody else knows, with one wrong digest. Who replays it finds it unequal; who
//! says that it is equal has not replayed it. Its word counts no longer: what it found equal of epochs that are not stable is given to
//! somebody else.

use crate::audit::Standing;
use crate::effect::Report;
use crate::machine::Orchestrator;
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Window};
use std::collections::BTreeMap;
use wire::{AuditOrder, Chain, Finding, Key, Message, ObjectRef, Receipt, Signed};

const DOMAIN: &str = "iota planted window v1";
/// One order in so many is followed by a planted one.
const ORDERS: u64 = 8;

/// What validators are tried with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Trials {
    /// Orders given to each validator.
    given: BTreeMap<NodeId, u64>,
    /// Planted windows that wait for a verdict: by validator and name of a miner that there is not.
    planted: BTreeMap<(NodeId, NodeId), Planted>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Planted {
    window: Window,
    objects: Vec<ObjectRef>,
}

impl Orchestrator {
    /// An order is given: every eighth or so is followed by one that must be found wrong.
    pub(crate) fn try_validator(&mut self, validator: NodeId, order: &AuditOrder) {
        let given = self.state.trials.given.entry(validator).or_default();
        let turn = *given;
        *given += 1;
        let mut stream = self.trial_stream(validator, turn / ORDERS);
        let mut word = || {
            let mut word = [0; 8];
            stream.fill(&mut word);
            u64::from_le_bytes(word)
        };
        if turn % ORDERS != word() % ORDERS {
            return;
        }
        let spoilt = word();
        let mut seed = [0; 32];
        stream.fill(&mut seed);
        let Some(order) = spoil(order, &Key::from_seed(seed), spoilt) else { return };
        let objects = std::iter::once(order.state).chain(order.inputs.iter().copied()).collect();
        let planted = Planted { window: order.window, objects };
        self.state.trials.planted.insert((validator, order.miner), planted);
        self.send(validator, Message::Audit(order));
    }

    fn trial_stream(&self, validator: NodeId, block: u64) -> blake3::OutputReader {
        let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
        hasher.update(&self.config.secret).update(validator.as_bytes()).update(&block.to_le_bytes());
        hasher.finalize_xof()
    }

    /// Takes in a verdict on a planted window; `false` if it is on another.
    pub(crate) fn take_trial(
        &mut self,
        from: NodeId,
        miner: NodeId,
        window: Window,
        finding: &Finding,
    ) -> bool {
        let trials = &mut self.state.trials;
        let due = trials.planted.get(&(from, miner)).is_some_and(|planted| planted.window == window);
        if !due {
            return false;
        }
        trials.planted.remove(&(from, miner));
        if let Finding::Equal { .. } = finding {
            self.distrust(from, "says that a window is equal which was planted with a wrong digest");
        }
        true
    }

    /// Whether a validator was given this object to replay a planted window.
    pub(crate) fn planted_for(&self, node: NodeId, object: ObjectRef) -> bool {
        let of = self.state.trials.planted.range((node, NodeId([0; 32]))..=(node, NodeId([0xFF; 32])));
        of.into_iter().any(|(_, planted)| planted.objects.contains(&object))
    }

    /// A validator is gone, and its planted windows with it.
    pub(crate) fn forget_trials(&mut self, gone: NodeId) {
        self.state.trials.planted.retain(|(validator, _), _| *validator != gone);
    }

    /// A validator's word counts no longer.
    pub(crate) fn distrust(&mut self, validator: NodeId, why: &str) {
        let sentence = format!("{} {why}", self.name(validator));
        self.state.consequences.banned.insert(validator, sentence.clone());
        self.report(Report::Convicted { node: validator, stage: None, evidence: None, why: sentence });
        self.strike(validator, None);
        for audited in self.state.audits.values_mut() {
            let (its, others): (BTreeMap<_, _>, _) =
                std::mem::take(&mut audited.passed).into_iter().partition(|(_, (by, _))| *by == validator);
            audited.passed = others;
            for (at, (_, mut pending)) in its {
                if self.state.consequences.banned.contains_key(&at.0) {
                    continue;
                }
                if let Standing::Ordered { state, inputs, .. } = pending.standing {
                    pending.standing = Standing::Revealed { state, inputs };
                    pending.since_ms = self.now_ms;
                    audited.pending.insert(at, pending);
                }
            }
        }
        self.turn_away(validator, "is not believed any more");
        self.state.seats.vacate(validator);
    }
}

/// The order as one of a miner that there is not, with one wrong digest or loss; `None` if it has none that could be wrong.
fn spoil(order: &AuditOrder, key: &Key, word: u64) -> Option<AuditOrder> {
    // What is encoded names whose it is: nobody else can have made it.
    if order.merge.is_some() {
        return None;
    }
    if order.window.is_beginning() {
        let mut start = order.start.body.clone();
        start.state = start.state.map(|state| Digest::of(state.as_bytes()));
        let receipts = order.receipts.iter().map(|receipt| Signed::new(receipt.body.clone(), key)).collect();
        return Some(AuditOrder {
            miner: key.id(),
            start: Signed::new(start, key),
            receipts,
            ..order.clone()
        });
    }
    let says = |receipt: &Signed<Receipt>| receipt.body.output.is_some() || receipt.body.loss_q32.is_some();
    let candidates: Vec<usize> = (0..order.receipts.len()).filter(|&at| says(&order.receipts[at])).collect();
    let at = *candidates.get(usize::try_from(word % candidates.len().max(1) as u64).ok()?)?;
    let begins = order.receipts.first() == Some(&order.start);
    let mut chain = Chain { next: order.start.body.sequence, last: order.start.body.previous };
    let mut sign = |mut body: Receipt, wrong: bool| {
        body.previous = chain.last;
        match (&mut body.output, &mut body.loss_q32) {
            (Some(output), _) if wrong => *output = Digest::of(output.as_bytes()),
            // By a little, or it would be known at a glance; by no fixed amount, or it could undo what a liar did.
            (None, Some(loss)) if wrong => *loss ^= 1 + (word >> 44) as i64,
            _ => {}
        }
        chain = Chain::after(&body);
        Signed::new(body, key)
    };
    let before = (!begins).then(|| sign(order.start.body.clone(), false));
    let receipts: Vec<Signed<Receipt>> =
        order.receipts.iter().enumerate().map(|(i, receipt)| sign(receipt.body.clone(), i == at)).collect();
    let start = before.or_else(|| receipts.first().cloned())?;
    Some(AuditOrder { miner: key.id(), start, receipts, ..order.clone() })
}
