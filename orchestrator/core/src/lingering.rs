//! Who has all it needs and does nothing, or next to nothing: slow is no lie, but the others need not wait for it.
//!
//! A miner that lingers over one operation much longer than any other of its stage over any gets what a lost one gets: its work of the
//! epoch goes to another of its stage, where there is one that can take it. It is asked again in the next epoch, once.

use crate::effect::Report;
use crate::epoch::Epoch;
use crate::machine::{Orchestrator, Phase};
use spec::NodeId;

/// So many times as long as the longest that any other of its stage took may a miner take.
const TIMES: u64 = 8;
/// In so many epochs may a miner linger before it gets no lane where others are ready.
pub(crate) const LINGERS_MAX: u8 = 2;

impl Orchestrator {
    /// The work of miners that linger goes to others.
    pub(crate) fn go_on_without_lingerers(&mut self) {
        self.state.looked_ms = self.now_ms;
        while let Some((miner, ms)) = self.lingerer() {
            let name = self.name(miner);
            let why = format!("{name} has had all that it needs for {} s and does nothing", ms / 1000);
            self.report(Report::Note { text: format!("{why}: its stage goes on without it") });
            if let Some(seat) = self.state.seats.seat_mut(miner) {
                (seat.away, seat.ready) = (true, None);
                seat.lingers = seat.lingers.saturating_add(1);
            }
            self.lose_work(miner, &why);
        }
    }

    /// When miners are looked at next.
    pub(crate) fn look_at_ms(&self) -> Option<u64> {
        let works = self.state.phase == Phase::Working && self.state.inquiry.is_none();
        works.then(|| self.state.looked_ms.saturating_add(self.config.timeouts.linger_ms))
    }

    /// A miner that lingers though another could do its work, and for how long.
    fn lingerer(&self) -> Option<(NodeId, u64)> {
        let epoch = self.state.epoch.as_ref().filter(|_| self.look_at_ms().is_some())?;
        let linger_ms = self.config.timeouts.linger_ms;
        let silent = epoch.miners.iter().filter(|(miner, progress)| {
            self.now_ms >= progress.last_ms.saturating_add(linger_ms) && !self.state.seats.is_lost(**miner)
        });
        let mut lingering = silent.filter_map(|(&miner, _)| {
            let stage = self.state.seats.stage_of(miner)?;
            let since_ms = epoch.due_since_ms(miner, usize::from(stage))?;
            let peers = self.state.seats.miners_of(usize::from(stage)).filter(|peer| *peer != miner);
            let longest = peers.filter_map(|peer| Some(epoch.miners.get(&peer)?.longest_ms)).max()?;
            let bound_ms = linger_ms.max(longest.saturating_mul(TIMES));
            let ms = self.now_ms.saturating_sub(since_ms);
            (ms >= bound_ms).then_some((miner, ms))
        });
        lingering.find(|(miner, _)| !self.stand_ins(*miner).is_empty())
    }
}

impl Epoch {
    /// Since when a miner has had all that its next operation needs; `None` while it waits for others.
    fn due_since_ms(&self, miner: NodeId, stage: usize) -> Option<u64> {
        let progress = self.miners.get(&miner)?;
        let members = *progress.sizes.get(usize::try_from(progress.steps).ok()?)?;
        if progress.folded.len() == usize::from(members) {
            return Some(progress.last_ms);
        }
        let due = self.live.values().filter_map(|tracked| {
            let slot = tracked.assignment.route.get(stage)?;
            if slot.miner != miner || slot.step != progress.steps {
                return None;
            }
            let came_ms = match (&tracked.forward[stage], &tracked.backward[stage]) {
                (None, _) => match stage.checked_sub(1) {
                    Some(before) => tracked.forward[before].map(|leg| leg.at_ms),
                    None => Some(0),
                },
                (Some(_), None) if usize::from(slot.position) == progress.folded.len() => {
                    match tracked.backward.get(stage + 1) {
                        Some(after) => after.map(|leg| leg.at_ms),
                        None => Some(0),
                    }
                }
                _ => None,
            };
            Some(came_ms?.max(progress.last_ms))
        });
        due.min()
    }
}
