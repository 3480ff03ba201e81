//! Convicts that are asked what every op gave. An operation has one op here, and its output is what the receipt binds: a block, a
//! loss or a state.

use super::disk::Objects;
use super::faults::{Asked, Fate};
use super::learner::Learner;
use super::perform::{missing, perturb};
use super::{Coming, World};
use crate::trace::Event;
use orchestrator_core::Event as Happened;
use spec::{Digest, NodeId, Run};
use std::ops::Range;
use wire::{AuditOrder, Evidence, ObjectRef, Signed, Trace};

/// How long a judge takes for an answer, in microseconds.
const JUDGE_US: Range<u64> = 10_000..500_000;
/// How long an orchestrator is away that is killed while it asks, in microseconds.
const AWAY_US: u64 = 1_000_000;

/// What a window's operations give up to a receipt, done again as a node of this fate does them.
pub(super) fn outputs(
    run: &Run,
    table: &Objects,
    order: &AuditOrder,
    receipt: Digest,
    fate: &Fate,
) -> Result<Vec<Vec<u8>>, String> {
    let object = |digest| table.get(digest).ok_or_else(|| missing(digest));
    let mut learner = Learner::from_state(object(order.state.digest)?)?;
    let last = order.receipts.iter().position(|said| said.digest() == receipt);
    let last = last.ok_or("the receipt is none of the window's")?;
    let mut outputs = Vec::new();
    for said in &order.receipts[..=last] {
        let operation = &said.body.operation;
        let input = said.body.input.map(object).transpose()?;
        let mut made = learner.perform(run, order.window.epoch, operation, input.as_slice())?;
        if fate.perturbation.is_some_and(|perturbation| perturbation.hits(learner.stage(), operation)) {
            perturb(&mut made, fate.poisons);
        }
        let loss = made.loss_q32.map(|loss| loss.to_le_bytes().to_vec());
        outputs.push(made.output.or(loss).unwrap_or_else(|| learner.state()));
    }
    Ok(outputs)
}

/// The file of the digests of outputs.
pub(super) fn digests(outputs: &[Vec<u8>]) -> Vec<u8> {
    outputs.iter().flat_map(|output| Digest::of(output).0).collect()
}

impl World {
    /// What befalls a convict once it performs its window again; whether it goes on with that.
    pub(super) fn is_asked(&mut self, node: usize) -> bool {
        match self.nodes[node].fate.asked {
            Asked::Answers | Asked::SaysSomethingElse => return true,
            Asked::SaysNothing => {}
            Asked::Dies => self.kill(node, Some(AWAY_US)),
            Asked::OutlivesItsOrchestrator => {
                self.kill(0, Some(AWAY_US));
                return true;
            }
        }
        false
    }

    /// Nothing of a node is passed on any more, and what happens to it is no chance of the others.
    pub(super) fn confine(&mut self, peer: NodeId) {
        let Some(&node) = self.by_id.get(&peer) else { return };
        self.nodes[node].confined = true;
        self.net.set_aside(node);
    }

    /// The first output that is wrong in what a convict said.
    pub(super) fn compare(&mut self, miner: NodeId, case: &[u8], trace: &Signed<Trace>) {
        let doubt = self.doubt(case, trace);
        self.judged(Happened::Compared { miner, doubt });
    }

    /// A convict has shown its output: the evidence is written if it is that one.
    pub(super) fn narrow(
        &mut self,
        miner: NodeId,
        case: &[u8],
        trace: &Signed<Trace>,
        shown: (u32, ObjectRef),
    ) {
        let evidence = match self.store.objects.get(shown.1.digest) {
            Some(bytes) if self.doubt(case, trace) == Ok(shown) => Ok(Digest::of(&[case, bytes].concat())),
            Some(_) => Err("it is not the one that is wrong".into()),
            None => Err(missing(shown.1.digest)),
        };
        self.judged(Happened::Narrowed { miner, evidence });
    }

    fn doubt(&self, case: &[u8], trace: &Signed<Trace>) -> Result<(u32, ObjectRef), String> {
        let case: Evidence = Evidence::from_bytes(case).ok_or("it is no case")?;
        let body = &trace.body;
        let honest = outputs(&self.run, &self.store.objects, &case.order, body.receipt, &Fate::default())?;
        let theirs = self.store.objects.get(body.root).ok_or_else(|| missing(body.root))?;
        let (theirs, _) = theirs.as_chunks::<32>();
        if theirs.len() != honest.len() {
            return Err(format!("it has {} outputs, the window {}", theirs.len(), honest.len()));
        }
        let differs =
            |(_, (theirs, honest)): &(u32, (&[u8; 32], &Vec<u8>))| Digest(**theirs) != Digest::of(honest);
        let found = (0..).zip(theirs.iter().zip(&honest)).find(differs).ok_or("nothing in it is wrong")?;
        let (value, (digest, honest)) = found;
        Ok((value, ObjectRef { digest: Digest(*digest), bytes: honest.len() as u64 }))
    }

    fn judged(&mut self, event: Happened) {
        let at_us = self.clock.now_us() + self.aside.within(JUDGE_US);
        let life = self.nodes[0].life;
        let event = Event::Orchestrator(event);
        self.clock.at(at_us, Coming::Event { node: 0, life, event, objects: Vec::new() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::Scenario;
    use crate::{Options, Report};

    /// A run in which a convict does that when it is asked.
    fn run(seed: u64, asked: Asked) -> Report {
        let options = Options { stages: 3, miners: 2, epochs: 3, steps: 4, members: 2, log: false };
        let mut world = World::new(Scenario::named("perturb").unwrap(), seed, &options).unwrap();
        world.nodes.iter_mut().for_each(|node| node.fate.asked = asked);
        world.run()
    }

    #[test]
    fn bans_and_all_that_follows_are_the_same_with_an_answer_and_without() {
        for seed in 0..6 {
            let answered = run(seed, Asked::Answers);
            assert!(answered.passed(), "{answered}");
            assert_eq!(answered.narrowed, answered.cheats, "seed {seed}: {:?}", answered.notes);
            for asked in [Asked::SaysNothing, Asked::SaysSomethingElse, Asked::Dies] {
                let other = run(seed, asked);
                assert!(other.passed(), "{other}");
                assert!(other.narrowed.is_empty(), "seed {seed}, {asked:?}");
                let what = |report: &Report| {
                    let Report { ending, losses, commits, findings, rewinds, rollbacks, .. } = report.clone();
                    let Report { tokens_undone, convicted, evidence, .. } = report.clone();
                    (
                        ending,
                        losses,
                        commits,
                        findings,
                        rewinds,
                        rollbacks,
                        tokens_undone,
                        convicted,
                        evidence,
                    )
                };
                assert_eq!(what(&answered), what(&other), "seed {seed}, {asked:?}");
            }
        }
    }
}
