//! What the shells do: the effects of the three cores, in this world.

use super::again::{add_up, confirm, fresh_state, replay, slander};
use super::disk::Object;
use super::explain::{digests, outputs};
use super::faults::Asked;
use super::learner::{Made, POISON, WORSE, WORSE_Q32};
use super::{Coming, Node, World, codes};
use crate::report::Reissue;
use crate::trace::{Event, What};
use miner_core::{Done, StateAfter, Task};
use orchestrator_core::Report as Said;
use spec::{Digest, NodeId, Operation, Outcome};
use wire::{Finding, Grant, Message, ObjectRef, Presigned, Signed};

/// How long an operation of an engine takes, in microseconds.
const FORWARD_US: std::ops::Range<u64> = 2_000..6_000;
/// What a node that lingers takes more, in microseconds.
const LINGER_US: u64 = 60_000_000;
/// How long a second party takes, in microseconds.
const CONFIRM_US: std::ops::Range<u64> = 10_000..20_000_000;

impl World {
    pub(super) fn perform_orchestrator(&mut self, effect: orchestrator_core::Effect) {
        use orchestrator_core::{Effect, Event as Happened};
        match effect {
            Effect::Send { to, message } => self.tell(to, message),
            Effect::Grant { to, ask } => {
                let url = format!("sim://store/{}", ask.object.digest);
                let answer = Ok(Presigned { verb: ask.verb, url, headers: Vec::new(), expires_ms: u64::MAX });
                self.tell(to, Message::Grant(Grant { ask, answer }));
            }
            Effect::Put { object, bytes } => {
                let at_us = self.net.store_us(self.clock.now_us(), 0, object.bytes);
                let stored = self.store.objects.put(bytes);
                let event = if stored == object {
                    Happened::Stored { digest: object.digest }
                } else {
                    let why = format!("the bytes are those of object {}", stored.digest);
                    Happened::StoreFailed { what: format!("putting object {}", object.digest), why }
                };
                self.own_at(at_us, 0, Event::Orchestrator(event), Vec::new());
            }
            Effect::MovePointer { from, to } => {
                let at_us = self.net.store_us(self.clock.now_us(), 0, 0);
                let event = match self.store.move_pointer(from, to) {
                    Ok(()) => Happened::PointerMoved { manifest: to },
                    Err(why) => Happened::StoreFailed { what: "moving the pointer".into(), why },
                };
                self.own_at(at_us, 0, Event::Orchestrator(event), Vec::new());
            }
            Effect::KeepEvidence { miner, bytes } => {
                self.store.objects.put(bytes);
                self.report.evidence.push(miner);
            }
            Effect::Confirm { evidence, case } => self.confirm(evidence, &case),
            Effect::Confine { peer } => self.confine(peer),
            Effect::Compare { miner, case, trace } => self.compare(miner, &case, &trace),
            Effect::Narrow { miner, case, trace, value, output } => {
                self.narrow(miner, &case, &trace, (value, output));
            }
            // The checkers see it in the trace.
            Effect::Credit { .. } => {}
            Effect::Disconnect { peer, why } => self.hang_up(peer, &why),
            Effect::WakeAt(at_ms) => self.wake_at(0, at_ms),
            Effect::Report(said) => self.note(said),
            Effect::Finish(ending) => {
                self.report.ending = Some(ending);
                self.nodes[0].alive = false;
                self.nodes[0].fate.mishaps.clear();
                for node in 1..self.nodes.len() {
                    self.hang_up(self.nodes[node].id, "the orchestrator has ended");
                }
            }
        }
    }

    pub(super) fn perform_miner(&mut self, node: usize, effect: miner_core::Effect) {
        use miner_core::{Effect, Event as Happened};
        match effect {
            Effect::Send(Message::Revealed { .. }) if self.nodes[node].fate.withholds => {}
            Effect::Send(message) => self.say(node, message),
            Effect::SendPayload { to, head, block } => {
                self.send_object(node, to, block, |block| Happened::Payload { head, block })
            }
            Effect::SendPart { to, head, block } => {
                self.send_object(node, to, block, |block| Happened::Part { head, block })
            }
            Effect::Fetch { object, .. } => {
                let digest = object.digest;
                let failed = |_, why| Event::Miner(Happened::StoreFailed { digest, why });
                self.fetch(node, object, Event::Miner(Happened::Fetched { digest }), failed);
            }
            Effect::Upload { object, .. } => {
                let event = match self.nodes[node].table.object(object.digest) {
                    Some(found) => {
                        self.store.objects.keep(found);
                        Happened::Uploaded { digest: object.digest }
                    }
                    None => Happened::StoreFailed { digest: object.digest, why: missing(object.digest) },
                };
                let at_us = self.upload_us(node, object.bytes);
                self.own_at(at_us, node, Event::Miner(event), Vec::new());
            }
            Effect::Compute { ticket, task } => self.compute(node, ticket, task),
            Effect::Forget(digest) => self.nodes[node].table.forget(digest),
            Effect::Neighbours(neighbours) => self.set_neighbours(node, &neighbours),
            Effect::CallAgain { after_ms } => self.call_after(node, after_ms),
            Effect::WakeAt(at_ms) => self.wake_at(node, at_ms),
            Effect::Note(_) => {}
            Effect::Exit(with) => self.exit(node, with),
        }
    }

    pub(super) fn perform_validator(&mut self, node: usize, effect: validator_core::Effect) {
        use validator_core::{Effect, Event as Happened};
        match effect {
            Effect::Send(Message::Verdict(verdict)) if self.nodes[node].fate.lazy => {
                let operations = match verdict.body.window.is_beginning() {
                    true => 0,
                    false => self.nodes[node].asked.pop_front().unwrap_or_default(),
                };
                let body = wire::Verdict { finding: Finding::Equal { operations }, ..verdict.body };
                if let Some(key) = self.nodes[node].recipe.key() {
                    self.say(node, Message::Verdict(Signed::new(body, key)));
                }
            }
            Effect::Send(message) if self.nodes[node].fate.accuses => {
                let said = self.nodes[node].recipe.key().map(|key| slander(&message, key));
                self.say(node, said.unwrap_or(message));
            }
            Effect::Send(message) => self.say(node, message),
            Effect::Fetch { object, .. } => {
                let digest = object.digest;
                let failed = |missing, why| Event::Validator(Happened::StoreFailed { digest, missing, why });
                self.fetch(node, object, Event::Validator(Happened::Fetched { digest }), failed);
            }
            Effect::Replay { epoch, state, weights, miner, operations, .. } => {
                self.nodes[node].asked.push_back(operations.len() as u32);
                let table = &self.nodes[node].table;
                let (results, stopped) =
                    replay(&self.run, table, (miner, epoch), (state, weights), &operations);
                let at_us = self.busy_us(node, operations.len() as u64);
                let event = Event::Validator(Happened::Replayed { results, stopped });
                self.own_at(at_us, node, event, Vec::new());
            }
            Effect::Build { stage, weights, momentum, .. } => {
                let at_us = self.busy_us(node, 1);
                let event = match fresh_state(&self.nodes[node].table, stage, weights, momentum) {
                    Ok(fresh) => Happened::Built { state: Digest::of(&fresh.state()) },
                    Err(why) => Happened::StoreFailed { digest: weights, missing: false, why },
                };
                self.own_at(at_us, node, Event::Validator(event), Vec::new());
            }
            Effect::AddUp { blocks, roots, pieces, .. } => {
                let sum = add_up(&self.nodes[node].table, &blocks, &roots, &pieces);
                let at_us = self.busy_us(node, pieces.len() as u64);
                self.own_at(at_us, node, Event::Validator(Happened::AddedUp { sum }), Vec::new());
            }
            Effect::Forget(digest) => self.nodes[node].table.forget(digest),
            Effect::CallAgain { after_ms } => self.call_after(node, after_ms),
            Effect::WakeAt(at_ms) => self.wake_at(node, at_ms),
            Effect::Note(_) => {}
            Effect::Exit(with) => self.exit(node, with),
        }
    }

    /// A second party fetches what a case is about, and does it again.
    fn confirm(&mut self, evidence: Digest, case: &[u8]) {
        let confirmation = confirm(&self.run, &self.store.objects, case);
        let took_us = self.tempo.within(CONFIRM_US);
        let event = orchestrator_core::Event::Confirmed { evidence, confirmation };
        self.own_at(self.clock.now_us() + took_us, 0, Event::Orchestrator(event), Vec::new());
    }

    fn send_object(
        &mut self,
        from: usize,
        to: NodeId,
        block: Digest,
        arrived: impl FnOnce(ObjectRef) -> miner_core::Event,
    ) {
        let Some(&node) = self.by_id.get(&to) else { return };
        let Some(object) = self.nodes[from].table.object(block) else {
            let name = self.nodes[from].name.clone();
            return self
                .object("objects_are_there", format!("{name} sends object {}, {}", block, missing(block)));
        };
        let event = Event::Miner(arrived(object.name));
        let Some((event, object)) = self.send_directly((from, node), (event, object)) else { return };
        if !self.nodes[from].connected || self.nodes[from].confined || !self.nodes[node].connected {
            return; // what does not go directly goes through the orchestrator's relay
        }
        let at_us = self.net.payload_us(self.clock.now_us(), from, node, object.name.bytes);
        let over = (node, self.nodes[node].link);
        self.clock.at(at_us, Coming::Heard { by: node, over, event, objects: vec![object] });
    }

    fn wake_at(&mut self, node: usize, at_ms: u64) {
        self.nodes[node].wake_ms = Some(at_ms);
        self.clock.at(at_ms.saturating_mul(1000), Coming::Alarm { node, at_ms });
    }

    /// From the store into a node's table. `failed` is told whether there is no such object, and why.
    fn fetch(
        &mut self,
        node: usize,
        object: ObjectRef,
        fetched: Event,
        failed: impl FnOnce(bool, String) -> Event,
    ) {
        let (event, objects) = match self.store.objects.object(object.digest) {
            Some(found) if found.name == object => (fetched, vec![found]),
            Some(found) => {
                let why = format!("it has {} bytes, expected {}", found.name.bytes, object.bytes);
                (failed(false, why), Vec::new())
            }
            None => (failed(true, missing(object.digest)), Vec::new()),
        };
        let at_us = self.net.store_us(self.clock.now_us(), node, object.bytes);
        self.own_at(at_us, node, event, objects);
    }

    /// When an upload that is asked for now is over.
    fn upload_us(&mut self, node: usize, bytes: u64) -> u64 {
        let at_us = self.net.store_us(self.clock.now_us(), node, bytes);
        let Node { fate, uplink_free_at_us, .. } = &mut self.nodes[node];
        if fate.upload_us == 0 {
            return at_us;
        }
        *uplink_free_at_us = at_us.max(*uplink_free_at_us) + fate.upload_us;
        *uplink_free_at_us
    }

    /// When an engine that is given so many operations now is done with them.
    fn busy_us(&mut self, node: usize, operations: u64) -> u64 {
        let tempo = if self.nodes[node].confined { &mut self.aside } else { &mut self.tempo };
        let took_us: u64 = (0..operations.max(1)).map(|_| tempo.within(FORWARD_US)).sum();
        let mut took_us = took_us * (1 + self.nodes[node].fate.slower);
        if self.nodes[node].fate.lingers {
            took_us += LINGER_US;
        }
        let free_at_us = &mut self.nodes[node].free_at_us;
        *free_at_us = self.clock.now_us().max(*free_at_us) + took_us;
        *free_at_us
    }

    fn compute(&mut self, node: usize, ticket: u64, task: Task) {
        if matches!(task, Task::Explain { .. }) && !self.is_asked(node) {
            return;
        }
        let mut objects: Vec<Object> = Vec::new();
        let event = match self.attempt(node, task, &mut objects) {
            Ok(done) => miner_core::Event::Done { ticket, done },
            Err(why) => miner_core::Event::TaskFailed { ticket, why },
        };
        let at_us = self.busy_us(node, 1);
        self.own_at(at_us, node, Event::Miner(event), objects);
    }

    fn attempt(&mut self, node: usize, task: Task, objects: &mut Vec<Object>) -> Result<Done, String> {
        let mut done = Done {
            output: None,
            root: None,
            state: None,
            file: None,
            weights: None,
            momentum: None,
            loss_q32: None,
            outcome: Outcome::Ok,
        };
        let mut keep = |bytes: Vec<u8>| {
            let object = Object::of(bytes);
            let name = object.name;
            objects.push(object);
            name
        };
        let machine = &mut self.nodes[node];
        let (epoch, operation, inputs, state, keep_weights) = match task {
            Task::Adopt { stage, epoch, manifest, weights, momentum, .. } => {
                let kept = machine.snapshots.get(&epoch).filter(|(opened, _)| *opened == manifest);
                let kept = kept.map(|(_, learner)| learner).filter(|learner| learner.stage() == stage);
                machine.learner = Some(match kept {
                    Some(kept) => kept.clone(),
                    None => fresh_state(&machine.table, stage, weights, momentum)?,
                });
                return Ok(done);
            }
            Task::Keep { .. } if machine.fate.disk_is_full => return Err("no room on the disk".into()),
            Task::Keep { epoch, manifest } => {
                let first = epoch.saturating_sub(self.run.audit.lag);
                machine.snapshots.retain(|begun, _| *begun >= first);
                let kept = machine.learner.clone().map(|learner| (epoch, (manifest, learner)));
                machine.snapshots.extend(kept);
                return Ok(done);
            }
            Task::Cut { blocks } => {
                let contribution = machine.contribution.as_ref().ok_or("nothing was encoded")?;
                done.output =
                    Some(keep(contribution.piece(machine.id, &blocks).ok_or("there are no such blocks")?));
                return Ok(done);
            }
            Task::Open { piece, from, root, blocks } => {
                let bytes = machine.table.get(piece).ok_or_else(|| missing(piece))?;
                let opens = codes::piece(bytes)
                    .is_ok_and(|piece| (piece.who, piece.root, piece.blocks) == (from, root, blocks));
                done.output = opens.then(|| ObjectRef::of(bytes));
                return Ok(done);
            }
            Task::Explain { order, receipt, show, .. } => {
                let outputs = outputs(&self.run, &machine.table, &order, receipt, &machine.fate)?;
                let said = match show {
                    Some(value) => outputs.get(value as usize).cloned().ok_or("there is no such output")?,
                    None if machine.fate.asked == Asked::SaysSomethingElse => digests(&outputs[1..]),
                    None => digests(&outputs),
                };
                done.output = Some(keep(said));
                return Ok(done);
            }
            Task::Perform { epoch, operation, inputs, state, keep_weights } => {
                (epoch, operation, inputs, state, keep_weights)
            }
        };
        let bytes: Vec<&[u8]> = inputs
            .iter()
            .map(|input| machine.table.get(*input).ok_or_else(|| missing(*input)))
            .collect::<Result<_, _>>()?;
        let learner = machine.learner.as_mut().ok_or("no weights were adopted")?;
        let begins = state != StateAfter::Untold && matches!(operation, Operation::Forward(_));
        let mut lied = None;
        let returned = machine.fate.returns_with_moments && machine.life > 0;
        if (machine.fate.other_moments || returned) && begins && epoch > 0 {
            learner.spoil_moments();
            lied = Some(What::Lied { epoch });
        }
        if machine.fate.other_weights && operation == Operation::Apply {
            learner.spoil_momentum();
            lied = Some(What::Lied { epoch });
        }
        let mut made = learner.perform(&self.run, epoch, &operation, &bytes)?;
        if let Some(contribution) = made.contribution.as_mut().filter(|_| machine.fate.other_codes) {
            contribution.codes.iter_mut().for_each(|code| *code = -*code);
            lied = Some(What::Lied { epoch });
        }
        if machine.fate.harms {
            harm(&operation, &mut made);
        }
        if machine
            .fate
            .perturbation
            .is_some_and(|perturbation| perturbation.hits(learner.stage(), &operation))
        {
            perturb(&mut made, machine.fate.poisons);
            lied = Some(What::Lied { epoch });
        }
        let mut seen = None;
        if let Some(contribution) = made.contribution {
            done.root = Some(contribution.root(machine.id));
            machine.contribution = Some(contribution.clone());
            seen = Some(What::Encoded { contribution });
        } else if let (Operation::Reduce { .. }, Some(sum), true) =
            (&operation, &mut made.output, machine.fate.wrong_sums)
        {
            *sum = codes::spoilt(sum)?;
            lied = Some(What::Lied { epoch });
        } else if let (Operation::Reduce { contributors, .. }, Some(sum)) = (&operation, &made.output) {
            let (contributors, sum) = (contributors.clone(), sum.clone());
            let roots = bytes.iter().filter_map(|piece| Some(codes::piece(piece).ok()?.root)).collect();
            seen = Some(What::Reduced { contributors, roots, sum });
        }
        done.output = made.output.map(&mut keep);
        (done.loss_q32, done.outcome) = (made.loss_q32, made.outcome);
        match state {
            StateAfter::Untold => {}
            StateAfter::Digest => done.state = Some(Digest::of(&learner.state())),
            StateAfter::File => {
                done.file = Some(keep(learner.state()));
                done.state = done.file.map(|file| file.digest);
            }
        }
        if keep_weights {
            done.weights = Some(keep(learner.shard()));
            done.momentum = Some(keep(learner.momentum()));
        }
        if lied.is_some() && !self.report.convicted.contains(&self.nodes[node].id) {
            self.lied.insert(epoch);
        }
        for seen in [seen, lied].into_iter().flatten() {
            self.engine_did(node, seen);
        }
        Ok(done)
    }

    fn drop_losses(&mut self, epoch: u32) {
        let before = self.losses_at_open.get(&epoch).copied().unwrap_or_default();
        self.report.losses.truncate(before);
    }

    fn note(&mut self, said: Said) {
        match said {
            Said::Opened { epoch } => {
                self.losses_at_open.insert(epoch, self.report.losses.len());
            }
            Said::Rewound { epoch, .. } => {
                self.drop_losses(epoch);
                self.report.rewinds += 1;
            }
            Said::RolledBack { epoch, epochs, tokens, .. } => {
                self.report.rollbacks += 1;
                self.report.tokens_undone += tokens;
                self.drop_losses(epoch);
                self.lied.split_off(&epoch);
                self.report.commits -= epochs;
            }
            Said::Stable { epoch } => self.report.escaped += u32::from(self.lied.remove(&epoch)),
            Said::Convicted { node, .. } => self.report.convicted.push(node),
            Said::Narrowed { node, .. } => self.report.narrowed.push(node),
            Said::Reissued { from, microbatches, tokens, .. } => {
                let killed_us = self.report.killed_us.get(&from);
                let after_us = killed_us.map(|killed_us| self.clock.now_us() - killed_us);
                self.report.reissues.push(Reissue { after_us, microbatches, tokens });
            }
            Said::Note { text } => self.report.notes.push(text),
            Said::Loss { nats, .. } => self.report.losses.push(nats),
            Said::Committed { .. } => self.report.commits += 1,
            Said::Audited { miner, finding, .. } => self.report.findings.push((miner, finding)),
            _ => {}
        }
    }
}

/// The one value that is changed: of the block, or where there is none, the loss. Or the block is made so that whoever takes
/// it meets infinity.
pub(super) fn perturb(made: &mut Made, poisons: bool) {
    match (&mut made.output, &mut made.loss_q32) {
        (Some(block), _) if poisons => block.splice(..0, POISON.iter().copied()).for_each(drop),
        (Some(block), _) => {
            if let Some(last) = block.last_mut() {
                *last ^= 1;
            }
        }
        (None, Some(loss)) => *loss += 1,
        (None, None) => {}
    }
}

/// Its share of a route makes the loss higher.
fn harm(operation: &Operation, made: &mut Made) {
    if let (Operation::Forward(_), Some(block)) = (operation, &mut made.output) {
        block.splice(..0, WORSE.iter().copied()).for_each(drop);
    }
    if let Some(loss) = &mut made.loss_q32 {
        *loss += WORSE_Q32;
    }
}

pub(super) fn missing(digest: Digest) -> String {
    format!("object {} is not there", digest.short())
}
