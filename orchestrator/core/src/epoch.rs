//! The inner steps of an epoch: assignments out, receipts in.

use crate::effect::Report;
use crate::machine::{Orchestrator, Phase};
use crate::merge::StageMerge;
use crate::pace::Pace;
use serde::{Deserialize, Serialize};
use spec::{Digest, Member, NodeId, Run};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Assignment, Manifest, Message, ObjectRef, Receipt, Signed};

/// An epoch from its opening until its successor opens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Epoch {
    pub number: u32,
    /// The manifest it opened with.
    pub opened_with: Signed<Manifest>,
    /// The miners of each lane, head first, as they are now.
    pub routes: Vec<Vec<NodeId>>,
    /// Steps handed out, by lane.
    pub handed_out: Vec<u32>,
    pub pace: Pace,
    /// Whether a lost miner's place was given to another.
    pub amended: bool,
    /// Lanes that share a miner then, once they were asked for; no part of a snapshot.
    #[serde(skip)]
    pub groups: Option<Vec<Vec<usize>>>,
    /// Microbatches that some stage has not folded.
    pub live: BTreeMap<u64, Tracked>,
    /// Microbatches of which nobody does the rest. Who had folded one before it heard so says it in its receipts.
    pub struck: BTreeMap<u64, Tracked>,
    pub miners: BTreeMap<NodeId, Progress>,
    /// Those who went away while their stage merged, when their pieces were in: what they did counts.
    pub left: BTreeMap<NodeId, Progress>,
    /// Those whose work counts and who were started again since: what is drawn from them is gone.
    pub forgetful: BTreeSet<NodeId>,
    /// Inner steps that every miner has taken.
    pub stepped: u32,
    /// Miners that have taken no more, when they were last counted.
    behind: usize,
    loss_q32_sum: i128,
    pub losses: u64,
    /// Losses of the microbatches that went one way.
    pub route_losses: BTreeMap<Vec<NodeId>, Losses>,
    /// By stage, once the last step is taken.
    pub merges: Vec<StageMerge>,
    /// How often an owner of a shard showed the pieces that it added up.
    pub disclosures: u32,
}

/// A microbatch on its way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tracked {
    pub assignment: Assignment,
    /// What each stage's forward receipt says.
    pub forward: Vec<Option<Leg>>,
    /// What each stage's backward receipt says.
    pub backward: Vec<Option<Leg>>,
    /// What lost miners of the route said, by stage: a neighbour may have used it.
    pub former: Vec<(usize, Leg)>,
    /// Whether its loss was reported.
    pub judged: bool,
}

impl Tracked {
    /// A microbatch that nobody has touched.
    pub fn new(assignment: Assignment) -> Self {
        let none = vec![None; assignment.route.len()];
        Self { assignment, forward: none.clone(), backward: none, former: Vec::new(), judged: false }
    }

    /// Whether every stage has folded it.
    pub fn is_folded(&self) -> bool {
        self.backward.iter().all(Option::is_some)
    }
}

/// What a receipt says of what came in and what went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub receipt: Digest,
    pub input_receipt: Option<Digest>,
    pub input: Option<Digest>,
    pub output: Option<Digest>,
    /// When the receipt came.
    pub at_ms: u64,
}

impl Leg {
    pub fn of(receipt: &Signed<Receipt>, at_ms: u64) -> Self {
        let Receipt { input_receipt, input, output, .. } = receipt.body;
        Self { receipt: receipt.digest(), input_receipt, input, output, at_ms }
    }
}

/// Losses of some microbatches, in nats per token.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Losses {
    pub sum: f64,
    pub count: u64,
}

/// What one miner has done in the epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The lane that it opened the epoch in.
    pub lane: usize,
    /// Members of each inner step that was handed out to it.
    pub sizes: Vec<u16>,
    /// Its receipts of the epoch, in order.
    pub receipts: Vec<Signed<Receipt>>,
    /// Inner steps taken.
    pub steps: u32,
    /// Backwards folded since the last step.
    pub folded: Vec<Member>,
    /// Backwards folded in the epoch.
    pub folds: u64,
    /// When its last receipt came, or the epoch opened.
    pub last_ms: u64,
    /// The longest time between two of them.
    pub longest_ms: u64,
}

impl Progress {
    fn of_lane(lane: usize, last_ms: u64) -> Self {
        let (sizes, receipts, folded) = (Vec::new(), Vec::new(), Vec::new());
        Self { lane, sizes, receipts, steps: 0, folded, folds: 0, last_ms, longest_ms: 0 }
    }

    /// Whether it may do forwards of this step already: of the one after the step in work, where that is stale; not as the
    /// epoch's first, for that binds what the epoch begins with.
    pub fn may_run_ahead(&self, run: &Run, step: u32) -> bool {
        self.receipts.len() > 1 && self.steps.checked_add(1) == Some(step) && run.is_stale(step)
    }

    /// Inner steps handed out to it.
    pub fn handed_out(&self) -> u32 {
        u32::try_from(self.sizes.len()).unwrap_or(u32::MAX)
    }
}

impl Epoch {
    /// Whether a miner has done all that there is to do in the epoch.
    pub fn is_done(&self, miner: NodeId) -> bool {
        self.merges.iter().any(|merge| merge.is_done(miner))
    }

    /// A miner is gone before its stage had merged; `false` if nothing that it did counts.
    pub fn leave(&mut self, miner: NodeId) -> bool {
        let counts = self.merges.iter().any(|merge| merge.contributors().contains(&miner));
        let progress = self.miners.remove(&miner).filter(|_| counts);
        self.groups = None;
        self.left.extend(progress.map(|progress| (miner, progress)));
        counts
    }

    /// Whether a miner is to put these weights into the store.
    pub fn may_keep(&self, miner: NodeId, stage: u16, object: ObjectRef) -> bool {
        self.merges.get(usize::from(stage)).is_some_and(|merge| merge.may_keep(miner, object))
    }

    /// Whether an owner named this object as a piece of a shard that is added up again.
    pub fn may_disclose(&self, miner: NodeId, object: ObjectRef) -> bool {
        let mut disputes = self.merges.iter().flat_map(|merge| merge.disputes.with_piece(object));
        disputes.any(|dispute| dispute.names(miner, object))
    }

    /// Whether a validator was asked to add this object up.
    pub fn may_add_up(&self, validator: NodeId, object: ObjectRef) -> bool {
        let mut disputes = self.merges.iter().flat_map(|merge| merge.disputes.with_piece(object));
        disputes.any(|dispute| dispute.ordered_to(validator, object))
    }

    /// A microbatch that some stage has not folded, also one of which nobody does the rest.
    pub fn tracked(&self, id: u64) -> Option<&Tracked> {
        self.live.get(&id).or_else(|| self.struck.get(&id))
    }

    /// Positions of a miner's inner step that were struck and that it has not folded, in order.
    pub fn struck_of(&self, miner: NodeId, step: u32) -> impl Iterator<Item = u16> {
        self.struck.values().flat_map(move |tracked| {
            let shares = tracked.assignment.route.iter().zip(&tracked.backward);
            let left =
                shares.filter(move |(slot, fold)| (slot.miner, slot.step) == (miner, step) && fold.is_none());
            left.map(|(slot, _)| slot.position)
        })
    }

    /// Mean loss in 2^-32 nats per token.
    pub fn loss_q32(&self) -> Option<i64> {
        let mean = self.loss_q32_sum.checked_div(i128::from(self.losses))?;
        i64::try_from(mean).ok()
    }

    pub fn add_loss(&mut self, loss_q32: i64) {
        self.loss_q32_sum += i128::from(loss_q32);
        self.losses += 1;
    }
}

impl Orchestrator {
    /// Whether every seat is taken and ready, but for those that the others go on without, every stage has a miner,
    /// and the validators are there.
    pub(crate) fn is_gathered(&self) -> bool {
        let (seats, due) = (&self.state.seats, self.state.manifest.body.epoch);
        let needed = self.config.lanes_needed();
        // Looked at with every event until it is so: most of the time somebody is not ready, and the rest need not be counted.
        let ready = seats.miners().all(|seat| seat.away || seat.lost.is_none() && seat.ready == Some(due));
        let enough = || seats.validators_present().count() >= usize::from(self.config.validators);
        let mut stages = 0..self.config.run.model.stage_count();
        let mut full = || stages.all(|stage| seats.miners_of(stage).count() >= needed);
        // Once the run has begun, only a conviction frees a seat, and the others go on.
        let has_begun = !matches!(self.state.phase, Phase::Gathering { .. });
        ready && enough() && (has_begun || full()) && !seats.routes(due).is_empty()
    }

    pub(crate) fn open_epoch(&mut self) {
        let manifest = self.state.manifest.clone();
        let number = manifest.body.epoch;
        let routes = self.mixed(self.state.seats.routes(number));
        let (lanes, now_ms) = (routes.iter().enumerate(), self.now_ms);
        let miners: BTreeMap<NodeId, Progress> = lanes
            .flat_map(|(lane, route)| {
                route.iter().map(move |&miner| (miner, Progress::of_lane(lane, now_ms)))
            })
            .collect();
        for &miner in miners.keys() {
            self.send(miner, Message::Open(manifest.clone()));
        }
        self.report(Report::Opened { epoch: number });
        self.state.phase = Phase::Working;
        self.state.looked_ms = self.now_ms;
        self.state.epoch = Some(Epoch {
            number,
            opened_with: manifest,
            handed_out: vec![0; routes.len()],
            pace: Pace::new(self.now_ms, routes.len(), self.config.run.epoch.steps),
            routes,
            amended: false,
            groups: None,
            live: BTreeMap::new(),
            struck: BTreeMap::new(),
            miners,
            left: BTreeMap::new(),
            forgetful: BTreeSet::new(),
            stepped: 0,
            behind: 0,
            loss_q32_sum: 0,
            losses: 0,
            route_losses: BTreeMap::new(),
            merges: Vec::new(),
            disclosures: 0,
        });
        self.progressed();
        // All of them, so that who could not be reached is called once more.
        self.state.neighbours.clear();
        self.tell_neighbours();
        self.hand_out();
    }

    /// A miner has taken an inner step: all are looked at only if it was the last of those behind.
    pub(crate) fn report_step(&mut self, miner: NodeId) {
        let Some(epoch) = &mut self.state.epoch else { return };
        let Some(progress) = epoch.miners.get(&miner) else { return };
        let steps = progress.steps;
        // Where nobody stands in, only the last miner of a lane changes how many are through.
        let lane = progress.lane;
        let limit = epoch.limit_of(lane);
        if steps >= limit && (epoch.amended || epoch.is_through(lane, limit)) {
            self.watch_pace();
        }
        let Some(epoch) = &mut self.state.epoch else { return };
        if epoch.behind > 0 {
            // Who stands in for others may take a step more than its own lane has.
            epoch.behind -= usize::from(steps == epoch.stepped + 1 && epoch.stepped < limit);
            if epoch.behind > 0 {
                return;
            }
        }
        self.report_steps();
    }

    /// Reports inner steps that every miner has taken; after the last of them the stages merge.
    pub(crate) fn report_steps(&mut self) {
        let steps = self.config.run.epoch.steps;
        let Some(epoch) = &mut self.state.epoch else { return };
        // A miner that stands in for a lost one may take a step more, one of a lane that was too slow takes fewer.
        let taken = epoch.miners.values().map(|progress| match progress.steps {
            taken if taken >= epoch.limit_of(progress.lane) => steps,
            taken => taken,
        });
        let taken = taken.min().unwrap_or(0);
        let (number, reported) = (epoch.number, epoch.stepped);
        let limits = epoch.pace.limits.clone();
        let ended = epoch.handed_out == limits
            && epoch.miners.values().all(|progress| progress.steps == progress.handed_out());
        epoch.stepped = taken.max(reported);
        let limit_of = |lane: usize| limits.get(lane).copied().unwrap_or_default();
        let behind = |progress: &&Progress| progress.steps == taken && taken < limit_of(progress.lane);
        epoch.behind = epoch.miners.values().filter(behind).count();
        let step_tokens = self.config.run.microbatch_tokens() * u64::from(self.config.run.inner.members);
        for step in reported..taken {
            let lanes = limits.iter().filter(|&&limit| step < limit).count() as u64;
            self.report(Report::Stepped { epoch: number, step, tokens: step_tokens * lanes });
        }
        if ended && self.state.phase == Phase::Working {
            self.order_merge();
        }
    }
}
