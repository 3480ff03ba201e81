//! What a convict says for itself: every op of the window that it was convicted for, performed again from what it revealed.
//!
//! It keeps nothing for it, and does nothing else any more. An honest miner has nothing to fear from an answer: it signs what
//! its ops gave, and no tile of that is wrong.

use crate::effect::{Effect, Task};
use crate::epoch::Job;
use crate::event::Done;
use crate::machine::Miner;
use serde::Serialize;
use spec::Digest;
use std::collections::BTreeSet;
use wire::{Explain, Message, ObjectRef, Signed, Trace, Verb};

/// The answer to the one question that a miner is ever asked.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Explaining {
    question: Explain,
    /// Objects of the window that are not here yet.
    missing: BTreeSet<Digest>,
    /// The output that is to be shown, once that was said.
    show: Option<u32>,
    /// What is on its way into the store.
    made: Option<ObjectRef>,
}

impl Miner {
    /// Everything else ends, and what the window takes is fetched.
    pub(crate) fn explain(&mut self, question: Explain) {
        let me = self.config.key.id();
        let Some(seat) = &mut self.state.seat else {
            return self
                .note("the orchestrator asked for an explanation before it gave a seat, ignored".into());
        };
        if question.order.miner != me {
            return self.note("the orchestrator asked what another miner did, ignored".into());
        }
        if self.state.explaining.is_some() {
            return self.note("the orchestrator asked twice for an explanation, ignored".into());
        }
        seat.missing.clear();
        let shape = seat.run.model.stage(usize::from(question.order.stage));
        let reads = shape.is_some_and(|shape| shape.kind.embeds() || shape.kind.judges());
        let shard = ObjectRef::train(&seat.run.data);
        let shard = (reads && !self.state.table.holds(shard.digest)).then_some(shard);
        let wanted: BTreeSet<ObjectRef> = question.order.objects().chain(shard).collect();
        let (window, stage) = (question.order.window, question.order.stage);
        self.abandon(0);
        self.emit(Effect::Note(format!(
            "the orchestrator convicted this miner of what it did in {window} as stage {stage}, and asks what every op gave"
        )));
        let missing = wanted.iter().map(|object| object.digest).collect();
        self.state.explaining = Some(Explaining { question, missing, show: None, made: None });
        for object in wanted {
            self.ask(Verb::Get, object);
        }
    }

    /// An object is here: whether the window takes it.
    pub(crate) fn explains_with(&mut self, fetched: Digest) -> bool {
        let Some(explaining) = &mut self.state.explaining else { return false };
        let was_missing = explaining.missing.remove(&fetched);
        if was_missing && explaining.missing.is_empty() {
            self.perform_again();
        }
        was_missing
    }

    /// One output of the trace is to be shown.
    pub(crate) fn show(&mut self, value: u32) {
        match &mut self.state.explaining {
            Some(Explaining { show: show @ None, .. }) => *show = Some(value),
            _ => {
                return self
                    .note("the orchestrator asked to be shown what it cannot know of, ignored".into());
            }
        }
        self.perform_again();
    }

    fn perform_again(&mut self) {
        let (Some(explaining), Some(seat)) = (&self.state.explaining, &self.state.seat) else { return };
        let Explaining { question: Explain { order, receipt }, show, .. } = explaining.clone();
        let run = seat.run.clone();
        self.compute(Job::Explain, Task::Explain { run, order, receipt, show });
    }

    /// What came of it is named, signed where it is the trace, and put into the store.
    pub(crate) fn performed_again(&mut self, done: &Done) {
        let (Some(explaining), Some(seat)) = (&mut self.state.explaining, &self.state.seat) else { return };
        let Some(made) = done.output else { return };
        explaining.made = Some(made);
        if explaining.show.is_none() {
            let trace = Trace::named(seat.run_id, explaining.question.receipt, made);
            self.send(Message::Explained(Signed::new(trace, &self.config.key)));
        }
        self.state.table.hold(made.digest);
        self.ask(Verb::Put, made);
    }

    /// An object is in the store: perhaps one that was asked for.
    pub(crate) fn shown(&mut self, uploaded: Digest) {
        let Some(explaining) = &mut self.state.explaining else { return };
        if let Some(made) = explaining.made.take_if(|made| made.digest == uploaded) {
            self.release(made.digest);
            self.send(Message::Shown(made));
        }
    }

    /// Whether an object belongs to the answer: without it there is none.
    pub(crate) fn answers_with(&self, object: Digest) -> bool {
        self.state.explaining.as_ref().is_some_and(|explaining| {
            explaining.missing.contains(&object) || explaining.made.is_some_and(|made| made.digest == object)
        })
    }
}
