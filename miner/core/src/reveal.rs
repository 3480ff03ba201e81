//! What an audit may ask for: kept until the epoch's draws are served, uploaded when drawn.

use crate::machine::Miner;
use crate::seat::Seat;
use serde::Serialize;
use spec::{Digest, Window};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Message, ObjectRef, Verb};

/// State before a window, and the payloads that came in during it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Kept {
    state: Option<ObjectRef>,
    inputs: Vec<ObjectRef>,
    /// Whether it is drawn.
    drawn: bool,
    /// What is not in the store yet, once it is its turn.
    uploading: Option<BTreeSet<Digest>>,
}

impl Kept {
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.state.iter().chain(&self.inputs).map(|object| object.digest)
    }
}

impl Miner {
    /// An input of inner step `step` was used: keeps it while its window may be drawn.
    pub(crate) fn keep_step_input(&mut self, epoch: u32, step: u32, block: ObjectRef) {
        let first = self.state.seat.as_ref().map_or(step, |seat| seat.run.window_start(step));
        self.keep_input(Window { epoch, step: first }, block);
    }

    /// An input of a window was used, which the table holds once for it: keeps it while the window may be drawn.
    pub(crate) fn keep_input(&mut self, window: Window, block: ObjectRef) {
        match self.state.kept.get_mut(&window) {
            Some(kept) if !kept.drawn && !kept.inputs.contains(&block) => {
                kept.inputs.push(block);
            }
            _ => self.release(block.digest),
        }
    }

    /// The state before `window` is bound: keeps it if anything is audited.
    pub(crate) fn keep_state(&mut self, window: Window, state: ObjectRef) {
        self.state.table.hold(state.digest);
        if self.state.seat.as_ref().is_some_and(Seat::is_audited) {
            self.state.kept.insert(window, Kept { state: Some(state), ..Kept::default() });
        } else {
            self.release(state.digest);
        }
    }

    /// Windows are drawn; if there will be no others, the rest of the epoch need not be kept.
    pub(crate) fn drawn(&mut self, epoch: u32, steps: &[u32], more: bool) {
        for &step in steps {
            self.reveal(Window { epoch, step });
        }
        if !more {
            self.drop_windows(|window, kept| window.epoch == epoch && !kept.drawn);
        }
    }

    /// An epoch opens: nothing is drawn any more from those so long before it.
    pub(crate) fn drop_settled(&mut self, opened: u32) {
        let lag = self.state.seat.as_ref().map_or(0, |seat| seat.run.audit.lag);
        self.drop_windows(|window, _| window.epoch.saturating_add(lag) < opened);
    }

    fn reveal(&mut self, window: Window) {
        if let Some(told) = self.state.told.get(&window).cloned() {
            return self.send(told);
        }
        let Some(kept) = self.state.kept.get_mut(&window) else {
            return self.note(format!(
                "epoch {} step {} was drawn, which no receipt binds any more, ignored",
                window.epoch, window.step
            ));
        };
        kept.drawn = true;
        self.reveal_next();
    }

    /// Windows go to the store one after another: the orchestrator gives time for the next with each that is there.
    pub(crate) fn reveal_next(&mut self) {
        if self.state.kept.values().any(|kept| kept.uploading.is_some()) {
            return;
        }
        let Some(kept) = self.state.kept.values_mut().find(|kept| kept.drawn) else { return };
        let objects: Vec<ObjectRef> = kept.state.into_iter().chain(kept.inputs.iter().copied()).collect();
        kept.uploading = Some(objects.iter().map(|object| object.digest).collect());
        for object in objects {
            self.ask(Verb::Put, object);
        }
    }

    /// An object may not be put into the store: the window that binds it is asked of nobody any more.
    pub(crate) fn reveal_refused(&mut self, digest: Digest) {
        let binds = |kept: &Kept| kept.uploading.as_ref().is_some_and(|missing| missing.contains(&digest));
        self.drop_windows(|_, kept| binds(kept));
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
            self.reveal_next();
        }
    }

    fn drop_windows(&mut self, due: impl Fn(&Window, &Kept) -> bool) {
        let kept = std::mem::take(&mut self.state.kept);
        let (dropped, kept): (BTreeMap<_, _>, _) =
            kept.into_iter().partition(|(window, kept)| due(window, kept));
        self.state.kept = kept;
        for kept in dropped.values() {
            for &digest in kept.uploading.iter().flatten() {
                self.state.waits.transferred(Verb::Put, digest);
            }
            self.drop_kept(kept);
        }
        self.reveal_next();
    }

    fn drop_kept(&mut self, kept: &Kept) {
        for digest in kept.digests() {
            self.release(digest);
        }
    }
}
