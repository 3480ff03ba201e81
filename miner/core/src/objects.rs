//! What lies in the shell's object table, and since how many uses.

use crate::effect::Effect;
use crate::machine::Miner;
use serde::Serialize;
use spec::Digest;
use std::collections::BTreeMap;
use wire::{Grant, ObjectRef, Verb};

/// Objects in the table, each with the number of things that still need it: two payloads may have the
/// same bytes, and so the same name.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Table {
    uses: BTreeMap<Digest, u32>,
}

impl Table {
    pub fn holds(&self, digest: Digest) -> bool {
        self.uses.contains_key(&digest)
    }

    pub fn hold(&mut self, digest: Digest) {
        *self.uses.entry(digest).or_default() += 1;
    }

    /// Whether nothing needs the object any more.
    pub fn release(&mut self, digest: Digest) -> bool {
        let Some(uses) = self.uses.get_mut(&digest) else { return false };
        *uses -= 1;
        let unused = *uses == 0;
        if unused {
            self.uses.remove(&digest);
        }
        unused
    }
}

impl Miner {
    pub(crate) fn ask(&mut self, verb: Verb, object: ObjectRef) {
        if let Some(message) = self.state.waits.ask(self.now_ms, verb, object) {
            self.send(message);
        }
    }

    pub(crate) fn take_grant(&mut self, grant: Grant) {
        match self.state.waits.granted(grant) {
            None => self.note("the orchestrator granted an object that was not asked for, ignored".into()),
            Some((ask, Ok(request))) => self.emit(match ask.verb {
                Verb::Get => Effect::Fetch { object: ask.object, request },
                Verb::Put => Effect::Upload { object: ask.object, request },
            }),
            Some((ask, Err(why))) => {
                // What was asked for before an epoch began again may be nobody's any more.
                self.state.waits.transferred(ask.verb, ask.object.digest);
                if ask.verb == Verb::Put {
                    self.reveal_refused(ask.object.digest);
                }
                if self.answers_with(ask.object.digest) {
                    return self.leave(format!("the orchestrator does not let me {ask}: {why}"));
                }
                self.note(format!("the orchestrator does not let me {ask}: {why}"));
            }
        }
    }
}
