//! Where miners began their epochs: the fresh state of a stage is built once, and held against what each of them signed.

use crate::check::check_beginning;
use crate::compare::compare_beginning;
use crate::machine::Validator;
use serde::Serialize;
use spec::Digest;
use std::collections::VecDeque;
use wire::{AuditOrder, Finding};

/// Fresh states remembered: all stages of a run for a few epochs, or most of them.
const STATES_MAX: usize = 256;

/// What a fresh state is made of: stage, weights, outer momentum.
type Source = (u16, Digest, Option<Digest>);

/// Digests of the fresh states that were built last, oldest first.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Fresh(VecDeque<(Source, Digest)>);

impl Fresh {
    /// The fresh state that an order asks about, if it was built before.
    pub fn of(&self, order: &AuditOrder) -> Option<Digest> {
        self.0.iter().find(|(source, _)| *source == source_of(order)).map(|(_, state)| *state)
    }

    fn remember(&mut self, order: &AuditOrder, state: Digest) {
        if self.0.len() == STATES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((source_of(order), state));
    }
}

/// What the fresh state is made of.
pub(crate) fn source_of(order: &AuditOrder) -> Source {
    (order.stage, order.state.digest, order.inputs.first().map(|momentum| momentum.digest))
}

impl Validator {
    /// What is said of an order without fetching anything: it does not hold together, or the state was built before.
    pub(crate) fn known_beginning(&self, order: &AuditOrder) -> Option<Finding> {
        let seat = self.state.seat.as_ref()?;
        match check_beginning(&seat.run, seat.run_id, order) {
            Ok(()) => Some(compare_beginning(order, self.state.fresh.of(order)?)),
            Err(why) => Some(Finding::Inconsistent { why: why.to_string() }),
        }
    }

    /// The fresh state is built.
    pub(crate) fn built(&mut self, state: Digest) {
        match self.state.audit.as_ref().filter(|audit| audit.replaying && audit.order.window.is_beginning()) {
            Some(audit) => {
                self.state.fresh.remember(&audit.order, state);
                self.judge(compare_beginning(&audit.order, state));
            }
            None => self.note("a state came that was not asked for, ignored"),
        }
    }
}
