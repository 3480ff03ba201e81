//! A window and what its miner revealed of it: all that its ops can be told and performed from, whoever accuses and the accused.

use super::{Objects, Refused, refused};
use engine::Device;
use engine::data::TokenShard;
use engine::trace::{self, Said, Window};
use spec::{Digest, Run};
use std::collections::BTreeSet;
use validator_core::check;
use wire::limits::TRACE_VALUES_MAX;
use wire::{AuditOrder, Receipt, Signed};

/// A block has no fewer outputs in any operation.
const VALUES_OF_A_BLOCK: u64 = 9;

/// A window, as it was ordered to be replayed, and its objects.
#[derive(Debug, Clone, Copy)]
pub struct Revealed<'a> {
    /// The run.
    pub run: &'a Run,
    /// The window.
    pub order: &'a AuditOrder,
    /// The objects that the order names.
    pub objects: &'a Objects<'a>,
    /// The training shard, for a stage that reads it.
    pub shard: &'a [u8],
}

/// A window up to the operation that a trace ends with.
pub(super) struct Traced {
    pub said: Vec<Said>,
}

impl Traced {
    pub fn of(order: &AuditOrder, receipt: &Digest) -> Result<Self, Refused> {
        let named = order.receipts.iter().position(|said| said.digest() == *receipt);
        let last = named.ok_or_else(|| refused("trace", "one up to a receipt of the window", receipt))?;
        let said = |receipt: &Signed<Receipt>| {
            let Receipt { operation, input, output, loss_q32, state, outcome, .. } = receipt.body.clone();
            Said {
                operation,
                input,
                output,
                loss_q32,
                state: if ends(&receipt.body) { state } else { None },
                outcome,
            }
        };
        Ok(Self { said: order.receipts[..=last].iter().map(said).collect() })
    }

    pub fn window<'a>(&'a self, run: &'a Run, order: &AuditOrder) -> Window<'a> {
        let state = (order.state.digest, order.state.bytes);
        Window { run, stage: usize::from(order.stage), epoch: order.window.epoch, state, said: &self.said }
    }
}

/// Whether a receipt's state is the one after its operation. That of a window's first forward is the one before.
fn ends(receipt: &Receipt) -> bool {
    matches!(receipt.operation, spec::Operation::Step { .. })
}

pub(super) fn untraceable(error: impl std::fmt::Display) -> Refused {
    refused("window", "one whose ops can be told", error)
}

/// Refuses a window with more outputs than a trace may have, of which `values` are known of, before its program is written down.
pub(super) fn check_values(run: &Run, order: &AuditOrder, values: u32) -> Result<(), Refused> {
    let blocks: u64 = run.model.stage(usize::from(order.stage)).map_or(0, |stage| stage.blocks.into());
    let least = VALUES_OF_A_BLOCK.saturating_mul(blocks).saturating_mul(order.receipts.len() as u64);
    let (most, found) = (u64::from(TRACE_VALUES_MAX), least.max(values.into()));
    if found > most {
        return Err(refused("outputs of the trace", format!("at most {most}"), found));
    }
    Ok(())
}

impl Revealed<'_> {
    /// The accused's side: what every op gave up to a receipt, by performing the window as it did. Outputs in `keep` are there to be
    /// shown. Its signature under that can convict it, so it answers only for a window that its own receipts bind.
    ///
    /// # Errors
    /// The order is not that of one window that the miner signed, or the window has no trace.
    pub fn answer(
        &self,
        receipt: &Digest,
        keep: BTreeSet<u32>,
        performer: &mut trace::Performer<'_>,
    ) -> Result<trace::Trace, Refused> {
        check(self.run, self.run.id(), self.order)
            .map_err(|why| refused("receipts", "one window of this miner, signed and unbroken", why))?;
        check_values(self.run, self.order, 0)?;
        self.performed(&Traced::of(self.order, receipt)?, keep, performer)
    }

    pub(super) fn object(&self, digest: &Digest) -> Result<&[u8], Refused> {
        let found = self.objects.get(digest).map(AsRef::as_ref);
        found.ok_or_else(|| refused(format!("object {digest}"), "its bytes", "nothing"))
    }

    pub(super) fn inputs(&self, traced: &Traced) -> Result<Vec<&[u8]>, Refused> {
        let input = |said: &Said| said.input.map_or(Ok(&[][..]), |digest| self.object(&digest));
        traced.said.iter().map(input).collect()
    }

    /// The window, honestly.
    pub(super) fn perform(&self, traced: &Traced, keep: BTreeSet<u32>) -> Result<trace::Trace, Refused> {
        self.performed(traced, keep, &mut engine::perform)
    }

    fn performed(
        &self,
        traced: &Traced,
        keep: BTreeSet<u32>,
        performer: &mut trace::Performer<'_>,
    ) -> Result<trace::Trace, Refused> {
        let window = traced.window(self.run, self.order);
        let shard = match self.shard {
            [] => None,
            bytes => Some(
                TokenShard::from_bytes(bytes.to_vec())
                    .map_err(|error| refused("token shard", "one", error))?,
            ),
        };
        let (state, inputs) = (self.object(&self.order.state.digest)?, self.inputs(traced)?);
        trace::perform(&window, state, shard.as_ref(), &inputs, &Device::Cpu, keep, performer)
            .map_err(untraceable)
    }
}
