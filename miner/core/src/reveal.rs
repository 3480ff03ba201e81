//! What an audit may ask for: kept until the epoch's draws are served, uploaded when drawn.

use crate::machine::Miner;
use serde::Serialize;
use spec::{Digest, Window};
use std::collections::BTreeSet;
use wire::{Message, ObjectRef, Verb};

/// State before a window, and the payloads that came in during it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Kept {
    state: Option<ObjectRef>,
    inputs: Vec<ObjectRef>,
    /// What is not in the store yet, once the window is drawn.
    uploading: Option<BTreeSet<Digest>>,
}

impl Kept {
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.state.iter().chain(&self.inputs).map(|object| object.digest)
    }
}

impl Miner {
    /// An input was used: keeps it if its window may be drawn.
    pub(crate) fn keep_input(&mut self, window: Window, block: ObjectRef) {
        match self.state.kept.get_mut(&window) {
            Some(kept) if !kept.inputs.contains(&block) => kept.inputs.push(block),
            _ => self.release(block.digest),
        }
    }

    /// The state before `window` is bound: keeps it if the window may be drawn.
    pub(crate) fn keep_state(&mut self, window: Window, state: ObjectRef) {
        self.state.table.hold(state.digest);
        if self.state.seat.as_ref().is_some_and(|seat| seat.may_be_drawn(window.step)) {
            self.state.kept.insert(window, Kept { state: Some(state), ..Kept::default() });
        } else {
            self.release(state.digest);
        }
    }

    pub(crate) fn reveal(&mut self, window: Window) {
        if let Some(told) = self.state.told.get(&window).cloned() {
            return self.send(told);
        }
        let Some(kept) = self.state.kept.get_mut(&window) else {
            return self.note(format!(
                "epoch {} step {} was drawn, which no receipt binds any more, ignored",
                window.epoch, window.step
            ));
        };
        if kept.uploading.is_some() {
            return;
        }
        let objects: Vec<ObjectRef> = kept.state.into_iter().chain(kept.inputs.iter().copied()).collect();
        kept.uploading = Some(objects.iter().map(|object| object.digest).collect());
        for object in objects {
            self.ask(Verb::Put, object);
        }
    }

    pub(crate) fn reveal_uploaded(&mut self, digest: Digest) {
        let mut complete = Vec::new();
        for (window, kept) in &mut self.state.kept {
            if let Some(uploading) = &mut kept.uploading
                && uploading.remove(&digest)
                && uploading.is_empty()
            {
                complete.push(*window);
            }
        }
        for window in complete {
            let Some(kept) = self.state.kept.remove(&window) else { continue };
            if let Some(state) = kept.state {
                let revealed = Message::Revealed { window, state, inputs: kept.inputs.clone() };
                self.state.told.insert(window, revealed.clone());
                self.send(revealed);
            }
            self.drop_kept(&kept);
            self.served(window.epoch);
        }
    }

    /// Counts a served draw; after the last of an epoch nothing of it can be asked for.
    fn served(&mut self, epoch: u32) {
        let draws = self.state.seat.as_ref().map_or(0, |seat| seat.run.audit_draws());
        let served = self.state.revealed.entry(epoch).or_default();
        *served += 1;
        if *served < draws {
            return;
        }
        self.state.revealed.remove(&epoch);
        let windows: Vec<Window> =
            self.state.kept.keys().filter(|window| window.epoch == epoch).copied().collect();
        for window in windows {
            if let Some(kept) = self.state.kept.remove(&window) {
                self.drop_kept(&kept);
            }
        }
    }

    fn drop_kept(&mut self, kept: &Kept) {
        for digest in kept.digests() {
            self.release(digest);
        }
    }
}
