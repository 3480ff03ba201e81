//! Receipts: whether one holds, continues its chain, and says what was assigned.

use crate::effect::Report;
use crate::epoch::{Epoch, Leg, Tracked};
use crate::machine::Orchestrator;
use spec::{Member, NodeId, Operation, Outcome, Run};
use wire::{ChainError, Receipt, Signed};

/// What is wrong with a receipt.
pub(crate) enum Fault {
    /// It is not needed, and said so once for each kind.
    Ignored(&'static str, String),
    /// The signer contradicts itself, its neighbours or the run.
    Lie(String),
    /// It signed two receipts with one number, and both are here.
    Twice(u64),
}

impl Orchestrator {
    pub(crate) fn take_receipt(&mut self, from: NodeId, receipt: Signed<Receipt>) {
        let sequence = receipt.body.sequence;
        match self.check_receipt(from, receipt) {
            Ok(()) => {
                self.progressed();
                self.draw_suspects();
            }
            Err(Fault::Ignored(kind, why)) => {
                self.note(from, kind, &format!("receipt {sequence} {why}; ignored"));
            }
            Err(Fault::Twice(sequence)) => {
                self.convict(
                    from,
                    &format!(" of equivocation: it signed two receipts with number {sequence}"),
                    None,
                );
            }
            Err(Fault::Lie(why)) => self.turn_away(from, &format!("gave receipt {sequence}, which {why}")),
        }
    }

    fn check_receipt(&mut self, from: NodeId, receipt: Signed<Receipt>) -> Result<(), Fault> {
        let lie = |why: &str| Err(Fault::Lie(why.into()));
        let body =
            receipt.verify().map_err(|error| Fault::Lie(format!("cannot be trusted: {error}")))?.clone();
        let Some(seat) = self.state.seats.seat_mut(from) else { return lie("comes from nobody's seat") };
        if receipt.signer != from {
            return lie("another node signed");
        }
        if body.run != self.run_id || body.mode != self.config.run.mode || body.stage != seat.stage {
            return lie("belongs to another run, mode or stage");
        }
        let sequence = body.sequence;
        let known = self.state.epoch.as_ref().and_then(|epoch| epoch.miners.get(&from));
        let repeated = sequence < seat.chain.next
            && known.is_some_and(|progress| progress.receipts.iter().any(|known| known.body == body));
        if repeated {
            return Err(Fault::Ignored("repeated", "was given before".into()));
        }
        let same = |known: &Signed<Receipt>| known.body.sequence == sequence;
        if known.is_some_and(|progress| progress.receipts.iter().any(same)) {
            return Err(Fault::Twice(sequence));
        }
        seat.chain.follow(&body).map_err(|error| match error {
            ChainError::Sequence { expected, found } if found < expected => {
                Fault::Lie(format!("contradicts one given before: {error}"))
            }
            error => Fault::Lie(format!("breaks its chain: {error}")),
        })?;
        let opened = self.state.epoch.as_mut().filter(|epoch| epoch.number == body.epoch);
        let Some(epoch) = opened else {
            return Err(Fault::Ignored("epoch", format!("is of epoch {}, which is not open", body.epoch)));
        };
        let Some(progress) = epoch.miners.get_mut(&from) else {
            return Err(Fault::Ignored("away", "comes from a miner that the others went on without".into()));
        };
        progress.receipts.push(receipt.clone());
        progress.longest_ms = progress.longest_ms.max(self.now_ms.saturating_sub(progress.last_ms));
        progress.last_ms = self.now_ms;
        self.take_operation(from, &receipt)
    }

    fn take_operation(&mut self, from: NodeId, receipt: &Signed<Receipt>) -> Result<(), Fault> {
        let body = &receipt.body;
        let Some(epoch) = &self.state.epoch else { return Ok(()) };
        let is_first = epoch.miners.get(&from).is_some_and(|progress| progress.receipts.len() == 1);
        check_shape(&self.config.run, body, is_first)?;
        if is_first && matches!(body.operation, Operation::Forward(_)) {
            self.look_at_beginning(from, receipt);
        }
        let Some(epoch) = &mut self.state.epoch else { return Ok(()) };
        let stage = usize::from(body.stage);
        let mut liar = None;
        match &body.operation {
            Operation::Forward(member) | Operation::Backward(member) => {
                liar = take_leg(epoch, &self.config.run, from, (stage, self.now_ms), member, receipt)?;
            }
            Operation::Step { step, members } => take_step(epoch, from, *step, members)?,
            Operation::Scale | Operation::Encode | Operation::Reduce { .. } | Operation::Apply => {
                self.take_merge(from, receipt)?;
            }
        }
        if let Some(liar) = liar {
            self.turn_away(liar, "says that it used a payload which its neighbour on the route did not sign");
        }
        if body.outcome != Outcome::Ok {
            self.inquire(from, body);
            return Ok(());
        }
        match &body.operation {
            Operation::Forward(member) => self.take_loss(body, member),
            Operation::Step { .. } => {
                self.report_step(from);
                self.hand_out_to(from);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_loss(&mut self, body: &Receipt, member: &Member) {
        let (Some(loss_q32), Some(nats)) = (body.loss_q32, body.loss_nats()) else { return };
        let Some(epoch) = &mut self.state.epoch else { return };
        // Who stands in for a lost tail computes a loss once more.
        let tracked = epoch.live.get_mut(&member.assignment);
        let Some(tracked) = tracked.filter(|tracked| !tracked.judged) else { return };
        tracked.judged = true;
        let route = tracked.assignment.route.iter().map(|slot| slot.miner).collect();
        epoch.add_loss(loss_q32);
        let of_route = epoch.route_losses.entry(route).or_default();
        (of_route.sum, of_route.count) = (of_route.sum + nats, of_route.count + 1);
        let (step, microbatch) = (member.step, member.microbatch);
        self.report(Report::Loss { epoch: body.epoch, step, microbatch, nats });
    }
}

/// Which fields a receipt must have follows from the operation, the stage and the run, and whether it is the miner's first
/// of the epoch.
fn check_shape(run: &Run, body: &Receipt, is_first: bool) -> Result<(), Fault> {
    let Some(kind) = run.model.stage(usize::from(body.stage)).map(|stage| stage.kind) else {
        return Err(Fault::Lie("is of a stage past the tail".into()));
    };
    let ok = body.outcome == Outcome::Ok;
    let (input, output, loss, state) = match &body.operation {
        Operation::Forward(_) => (!kind.embeds(), !kind.judges() && ok, kind.judges() && ok, is_first),
        Operation::Backward(_) => (!kind.judges(), !kind.embeds() && ok, false, false),
        Operation::Step { step, .. } => (false, false, false, run.digests_after(*step)),
        // What goes into an operation of the merge depends on how many merge: see `take_merge`.
        Operation::Scale | Operation::Encode | Operation::Reduce { .. } => {
            (body.input.is_some(), ok, false, false)
        }
        // What the next epoch begins with.
        Operation::Apply => (body.input.is_some(), ok, false, ok),
    };
    let forward = matches!(body.operation, Operation::Forward(_) | Operation::Backward(_));
    let fields = [
        ("input", body.input.is_some(), input),
        ("input receipt", body.input_receipt.is_some(), input && forward),
        ("output", body.output.is_some(), output),
        ("loss", body.loss_q32.is_some(), loss),
        ("state digest", body.state.is_some(), state),
    ];
    for (what, found, expected) in fields {
        // What a failed operation could still say is nobody's loss.
        if found != expected && (ok || expected) {
            let verb = if expected { "lacks" } else { "has" };
            return Err(Fault::Lie(format!(
                "{verb} a field which a {} of its stage {}: {what}",
                body.operation.name(),
                if expected { "needs" } else { "has not" }
            )));
        }
    }
    Ok(())
}

/// Takes in a forward or backward; the answer is who claims a payload that its neighbour did not sign.
fn take_leg(
    epoch: &mut Epoch,
    run: &Run,
    from: NodeId,
    (stage, now_ms): (usize, u64),
    member: &Member,
    receipt: &Signed<Receipt>,
) -> Result<Option<NodeId>, Fault> {
    let backward = matches!(receipt.body.operation, Operation::Backward(_));
    let unknown = || {
        Fault::Ignored("assignment", format!("is of assignment {}, which is not its own", member.assignment))
    };
    let passed = epoch.struck_of(from, member.step).filter(|position| *position < member.position).count();
    let Epoch { live, struck, miners, .. } = epoch;
    let tracked = live.get_mut(&member.assignment).or_else(|| struck.get_mut(&member.assignment));
    let tracked = tracked.ok_or_else(unknown)?;
    let slot = tracked.assignment.route.get(stage).ok_or_else(unknown)?;
    if slot.miner != from || tracked.assignment.member(stage) != Some(*member) {
        return Err(unknown());
    }
    let forward_done = tracked.forward[stage].is_some();
    let legs = if backward { &mut tracked.backward } else { &mut tracked.forward };
    if legs[stage].is_some() {
        return Err(Fault::Ignored("twice", format!("does assignment {} a second time", member.assignment)));
    }
    if let Some(progress) = miners.get_mut(&from) {
        let of_step = progress.steps == member.step;
        let in_turn = match backward {
            true => of_step && forward_done && progress.folded.len() + passed == usize::from(member.position),
            false => of_step || progress.may_run_ahead(run, member.step),
        };
        if !in_turn {
            return Err(Fault::Lie(
                "is out of its turn: forward, then backward in position order, step by step".into(),
            ));
        }
        if backward {
            progress.folded.push(*member);
            progress.folds += 1;
        }
    }
    legs[stage] = Some(Leg::of(receipt, now_ms));
    let liar = broken_link(tracked, stage, backward);
    if tracked.is_folded() {
        live.remove(&member.assignment);
    }
    Ok(liar)
}

/// Compares a stage's new leg with those of its neighbours, as far as they are known.
fn broken_link(tracked: &Tracked, stage: usize, backward: bool) -> Option<NodeId> {
    let legs = if backward { &tracked.backward } else { &tracked.forward };
    let pairs = [stage.checked_sub(1).map(|before| (before, stage)), Some((stage, stage + 1))];
    for (low, high) in pairs.into_iter().flatten() {
        let (producer, consumer) = if backward { (high, low) } else { (low, high) };
        let Some(Some(used)) = legs.get(consumer) else { continue };
        if !tracked.could_use(producer, legs.get(producer).copied().flatten(), used) {
            return tracked.assignment.route.get(consumer).map(|slot| slot.miner);
        }
    }
    None
}

impl Tracked {
    /// Whether a neighbour may have used what `used` says: the payload of whoever has the stage, or of somebody lost who
    /// had it. What a lost one sent last may have been used though its receipt never came, so where somebody
    /// was lost only a known receipt with another payload is a contradiction.
    fn could_use(&self, producer: usize, made: Option<Leg>, used: &Leg) -> bool {
        let replaced = self.assignment.route.get(producer).is_some_and(|slot| slot.attempt > 0);
        let former = self.former.iter().filter(|(stage, _)| *stage == producer).map(|(_, leg)| *leg);
        let mut named = former.chain(made).filter(|made| used.input_receipt == Some(made.receipt));
        match named.next() {
            Some(made) => used.input == made.output,
            None => made.is_none() || replaced,
        }
    }
}

fn take_step(epoch: &mut Epoch, from: NodeId, step: u32, members: &[Member]) -> Result<(), Fault> {
    let passed = epoch.struck_of(from, step).count();
    let Some(progress) = epoch.miners.get_mut(&from) else { return Ok(()) };
    let due = progress.sizes.get(progress.steps as usize).copied().map(usize::from);
    let whole = due == Some(progress.folded.len() + passed);
    if step != progress.steps || !whole || members != progress.folded {
        return Err(Fault::Lie(format!("does not step on what was folded for step {}", progress.steps)));
    }
    progress.steps += 1;
    progress.folded.clear();
    Ok(())
}
