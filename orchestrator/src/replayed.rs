//! What is done again of what followed from events that are replayed.

use crate::folder::RunFolder;
use crate::ledger::LedgerFile;
use crate::notice::Notice;
use crate::shell::OrchestratorError;
use crate::view::View;
use orchestrator_core::Effect;
use spec::{Digest, NodeId};
use wire::Key;

/// Where it is done. Everything else was done before, or the core asks for it again once it is told that it was started again.
pub(crate) struct Replayed<'a> {
    pub folder: &'a RunFolder,
    pub key: &'a Key,
    pub run: Digest,
    pub ledger: &'a mut LedgerFile,
    pub view: &'a mut View,
}

impl Replayed<'_> {
    /// What was told is told again, to whoever watches; what was not written to the disk before the end would be missing for
    /// good.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn take(&mut self, ms: u64, effect: Effect) -> Result<(), OrchestratorError> {
        match effect {
            Effect::Report(report) => self.view.take(&Notice::Report { ms, report }),
            Effect::Credit { epoch, manifest, work, struck } => {
                self.ledger.enter(self.key, (self.run, epoch, manifest), work, struck)?;
            }
            Effect::KeepEvidence { miner, bytes } => {
                let case = self.folder.path(&case_name(miner));
                // It may be packed by now.
                if !case.exists() && !case.with_extension("evidence").exists() {
                    self.folder.write(&case_name(miner), &bytes, false)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Where the case against a miner is kept, of a run's folder.
pub(crate) fn case_name(miner: NodeId) -> String {
    format!("evidence/{miner}.case")
}

/// Where the evidence of one tile against a miner is kept, beside that of its window.
pub(crate) fn tile_name(miner: NodeId) -> String {
    format!("evidence/{miner}.tile.evidence")
}

#[cfg(test)]
mod tests {
    use super::*;
    use credit::{Ledger, Rule};
    use orchestrator_core::Report;

    #[test]
    fn what_was_not_written_is_written_and_what_was_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&place.path().join("run")).unwrap();
        let (key, run, ledger) = (Key::from_seed([3; 32]), Digest([4; 32]), folder.path("ledger"));
        let mut file = LedgerFile::open(&ledger, Rule::default()).unwrap();
        let mut view = View::default();
        let mut replayed = Replayed { folder: &folder, key: &key, run, ledger: &mut file, view: &mut view };
        let [missing, kept, packed] = [1, 2, 3].map(|miner| NodeId([miner; 32]));
        folder.write(&case_name(kept), b"kept", false).unwrap();
        folder.write(&format!("evidence/{packed}.evidence"), b"packed", false).unwrap();
        for miner in [missing, kept, packed] {
            replayed.take(1, Effect::KeepEvidence { miner, bytes: b"again".to_vec() }).unwrap();
        }
        for epoch in [0, 0, 1] {
            let (manifest, work, struck) = (Digest([5; 32]), vec![], vec![]);
            replayed.take(2, Effect::Credit { epoch, manifest, work, struck }).unwrap();
        }
        replayed.take(3, Effect::Report(Report::Stable { epoch: 1 })).unwrap();
        let case = |miner| std::fs::read(folder.path(&case_name(miner))).ok();
        assert_eq!(
            [missing, kept, packed].map(case),
            [Some(b"again".to_vec()), Some(b"kept".to_vec()), None]
        );
        let (entered, _) = Ledger::read(&std::fs::read(&ledger).unwrap()).unwrap();
        let epochs: Vec<u32> = entered.entries().iter().map(|entry| entry.body.epoch).collect();
        assert_eq!((epochs, view.stable, view.now_ms), (vec![0, 1], 2, 3));
    }
}
