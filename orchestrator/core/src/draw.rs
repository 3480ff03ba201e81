//! Randomness that nobody could know before the receipts were in.

use crate::machine::Orchestrator;
use spec::NodeId;

const MERGE_DOMAIN: &str = "iota merge secret v1";
const ROUTE_DOMAIN: &str = "iota route turn v1";
const AUDIT_DOMAIN: &str = "iota audit draw v1";
const MERGE_AUDIT_DOMAIN: &str = "iota merge audit draw v1";

/// How much more is drawn from a miner through which losses are higher.
const OUTLIER_DRAWS: usize = 3;

/// What the draws of one epoch grow from, which is the same for every miner.
pub(crate) struct Draw {
    steps: blake3::Hasher,
    merges: blake3::Hasher,
}

impl Orchestrator {
    /// What windows are drawn from, now that all receipts of an epoch are in.
    pub(crate) fn draw(&self) -> Draw {
        Draw { steps: self.commitment(AUDIT_DOMAIN), merges: self.commitment(MERGE_AUDIT_DOMAIN) }
    }

    /// The routes of an epoch, every stage's miners turned by a number that nobody knew before its manifest.
    pub(crate) fn mixed(&self, mut routes: Vec<Vec<NodeId>>) -> Vec<Vec<NodeId>> {
        if !self.config.mixes_routes {
            return routes;
        }
        let (lanes, straight) = (routes.len(), routes.clone());
        for stage in 1..self.config.run.model.stage_count() {
            let mut hasher = blake3::Hasher::new_derive_key(ROUTE_DOMAIN);
            hasher.update(&self.config.secret);
            hasher.update(self.state.manifest.digest().as_bytes()).update(&(stage as u64).to_le_bytes());
            let mut word = [0; 8];
            hasher.finalize_xof().fill(&mut word);
            let turn = (u64::from_le_bytes(word) % lanes.max(1) as u64) as usize;
            for (lane, route) in routes.iter_mut().enumerate() {
                route[stage] = straight[(lane + turn) % lanes][stage];
            }
        }
        routes
    }

    /// The secret that, together with what the members commit to, gives a stage's shards to pairs.
    pub(crate) fn merge_secret(&self, epoch: u32, stage: usize) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(MERGE_DOMAIN);
        hasher.update(&self.config.secret);
        hasher.update(self.state.manifest.digest().as_bytes());
        hasher.update(&epoch.to_le_bytes()).update(&(stage as u64).to_le_bytes());
        *hasher.finalize().as_bytes()
    }

    /// The first steps of the epoch's windows that are drawn from a miner, in order: more from one whose routes lose more.
    /// Only windows that begin at one of `whole` are there to be drawn.
    pub(crate) fn drawn_steps(&self, draw: &Draw, miner: NodeId, whole: &[u32]) -> Vec<u32> {
        let mut hasher = draw.steps.clone();
        hasher.update(miner.as_bytes());
        let mut stream = hasher.finalize_xof();
        let mut candidates = self.config.run.audit_candidates();
        candidates.retain(|step| whole.contains(step));
        let times = if self.state.accounts.stands_out(miner) { OUTLIER_DRAWS } else { 1 };
        let mut drawn: Vec<u32> = (0..candidates.len().min(times * self.config.run.audit_draws()))
            .map(|_| {
                let mut word = [0; 8];
                stream.fill(&mut word);
                // The bias of the remainder is below 2^-32 for every count of steps there is.
                let at = u64::from_le_bytes(word) % candidates.len() as u64;
                candidates.remove(at as usize)
            })
            .collect();
        drawn.sort_unstable();
        drawn
    }

    /// Whether what a miner did when its stage merged is done again: as often as an inner step.
    pub(crate) fn is_merge_drawn(&self, draw: &Draw, miner: NodeId) -> bool {
        let mut hasher = draw.merges.clone();
        hasher.update(miner.as_bytes());
        let mut word = [0; 8];
        hasher.finalize_xof().fill(&mut word);
        let candidates = self.config.run.audit_candidates().len() as u64;
        let times = if self.state.accounts.stands_out(miner) { OUTLIER_DRAWS } else { 1 };
        // The bias of the remainder is below 2^-32 for every count of steps there is.
        candidates > 0
            && u64::from_le_bytes(word) % candidates < (times * self.config.run.audit_draws()) as u64
    }

    /// The secret, and the end of every miner's chain, in key order.
    fn commitment(&self, domain: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        hasher.update(&self.config.secret);
        for seat in self.state.seats.miners() {
            hasher.update(seat.chain.last.as_bytes());
        }
        hasher
    }
}
