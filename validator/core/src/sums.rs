//! Shards of a merge that are added up again: whether an order holds together, and what comes of it.

use crate::check::Objection;
use crate::effect::Effect;
use crate::machine::Validator;
use butterfly::Cut;
use serde::Serialize;
use spec::{Digest, NodeId, Operation, Run};
use std::collections::BTreeSet;
use std::ops::Range;
use wire::merge::{commitment, reduce_digest};
use wire::{MergeOrder, Message, Receipt, Signed, SumVerdict};

use Objection::{Miner, Order};

/// What is to be added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// The shard's blocks of 1024 parameters.
    pub blocks: Range<u64>,
    /// Whose pieces, and what each must open against, in order.
    pub roots: Vec<(NodeId, Digest)>,
}

/// What is to be added up, if the receipts are those of one shard of one merge.
///
/// # Errors
/// The first contradiction.
pub fn check_merge(run: &Run, run_id: Digest, order: &MergeOrder) -> Result<Addition, Objection> {
    let stage = usize::from(order.stage);
    if stage >= run.model.stage_count() {
        return Err(Order(format!("stage {stage} is past the tail")));
    }
    let contributors: Vec<NodeId> = order.roots.iter().map(|root| root.signer).collect();
    let mut roots = Vec::new();
    for receipt in &order.roots {
        let body = check_place(run, run_id, order, receipt)?;
        let seat = order.seats.iter().find(|seat| seat.node == receipt.signer);
        let root = body.output.filter(|root| seat.is_some_and(|seat| seat.root == *root));
        match (&body.operation, root) {
            (Operation::Encode, Some(root)) => roots.push((receipt.signer, root)),
            _ => {
                return Err(Order(format!(
                    "receipt {} of {} commits to no contribution of this draw",
                    body.sequence,
                    receipt.signer.short()
                )));
            }
        }
    }
    let blocks = butterfly::blocks(run.model.stage_parameters(stage));
    let shards = butterfly::draw(blocks, &order.secret, &order.seats, Cut::PAIRS);
    let shard = shards.get(order.shard as usize);
    let shard = shard.ok_or_else(|| Order(format!("the draw gives no shard {}", order.shard)))?;
    let committed: Vec<Digest> = roots.iter().map(|(_, root)| *root).collect();
    let input = reduce_digest(&committed, commitment(&order.secret));
    for claim in &order.claims {
        let body = check_place(run, run_id, order, claim)?;
        let reduces = Operation::Reduce { shard: order.shard, contributors: contributors.clone() };
        if body.operation != reduces || body.input != Some(input) {
            return Err(Order(format!(
                "receipt {} of {} adds up something else, or by another draw",
                body.sequence,
                claim.signer.short()
            )));
        }
        if !shard.owners.contains(&claim.signer) {
            return Err(Miner(format!("{} adds up a shard that is not its own", claim.signer.short())));
        }
    }
    if order.pieces.len() != roots.len() || roots.is_empty() {
        return Err(Order(format!(
            "there are {} pieces of {} contributors",
            order.pieces.len(),
            roots.len()
        )));
    }
    Ok(Addition { blocks: shard.blocks.clone(), roots })
}

fn check_place<'a>(
    run: &Run,
    run_id: Digest,
    order: &MergeOrder,
    receipt: &'a Signed<Receipt>,
) -> Result<&'a Receipt, Objection> {
    let body = receipt.verify().map_err(|error| Order(error.to_string()))?;
    let place = (body.run, body.mode, body.epoch, body.stage);
    if place != (run_id, run.mode, order.epoch, order.stage) {
        return Err(Order(format!("receipt {} is of another run, mode, epoch or stage", body.sequence)));
    }
    Ok(body)
}

/// The shard in work.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Adding {
    order: MergeOrder,
    blocks: Range<u64>,
    roots: Vec<(NodeId, Digest)>,
    /// Pieces on their way, and those in the table.
    missing: BTreeSet<Digest>,
    held: BTreeSet<Digest>,
    begun: bool,
}

impl Adding {
    pub fn digests(self) -> (BTreeSet<Digest>, BTreeSet<Digest>) {
        (self.missing, self.held)
    }

    /// A piece is here; `false` if it is none of this shard.
    pub fn arrived(&mut self, digest: Digest) -> bool {
        self.missing.remove(&digest) && self.held.insert(digest)
    }

    pub fn waits_for(&self, digest: Digest) -> bool {
        self.missing.contains(&digest)
    }
}

impl Validator {
    /// Takes the next shard, and adds it up once every piece is there.
    pub(crate) fn advance_sums(&mut self) {
        while !self.state.over && self.state.adding.is_none() {
            let Some(order) = self.state.sums.pop_front() else { break };
            let Some(seat) = &self.state.seat else { return };
            let Ok(Addition { blocks, roots }) = check_merge(&seat.run, seat.run_id, &order) else {
                self.note("was told to add up what is no shard of a merge, ignored");
                continue;
            };
            let pieces = order.pieces.clone();
            let missing = pieces.iter().map(|piece| piece.digest).collect();
            let held = BTreeSet::new();
            self.state.adding = Some(Adding { order, blocks, roots, missing, held, begun: false });
            for piece in pieces {
                self.ask(piece);
            }
        }
        let (Some(seat), Some(adding)) = (&self.state.seat, &mut self.state.adding) else { return };
        if adding.begun || !adding.missing.is_empty() {
            return;
        }
        adding.begun = true;
        let (run, stage, blocks) = (seat.run.clone(), adding.order.stage, adding.blocks.clone());
        let roots = adding.roots.clone();
        let pieces = adding.order.pieces.iter().map(|piece| piece.digest).collect();
        self.emit(Effect::AddUp { run, stage, blocks, roots, pieces });
    }

    /// Says what a shard adds up to, and drops its pieces.
    pub(crate) fn added_up(&mut self, sum: Option<Digest>) {
        let (Some(seat), Some(adding)) = (&self.state.seat, self.state.adding.take()) else {
            return self.note("a sum came that was not asked for, ignored");
        };
        let MergeOrder { stage, epoch, shard, .. } = adding.order;
        let verdict = SumVerdict { run: seat.run_id, stage, epoch, shard, sum };
        let verdict = Signed::new(verdict, &self.config.key);
        let (missing, held) = adding.digests();
        self.drop_digests(missing, held);
        self.send(Message::AddedUp(verdict));
    }
}
