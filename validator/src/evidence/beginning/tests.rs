//! A stage as it stands after a merge, then what its miner may and may not begin the next epoch with.

use crate::evidence::{Expected, Outcome, Refused, needed, pack, verify};
use engine::StageState;
use spec::{Digest, Member, Operation, Outer, Run, Window};
use wire::{AuditOrder, Evidence, Finding, Key, Manifest, ObjectRef, Receipt, Signed, StageRecord, Verdict};

const STAGE: u16 = 1;

/// What a case is made of, before anything of it is signed.
#[derive(Clone)]
struct Draft {
    run: Run,
    /// What the manifest names.
    weights: Vec<u8>,
    momentum: Vec<u8>,
    /// The state that the miner's merge came to, where the manifest names it.
    merged: Option<Digest>,
    /// The state that it began with.
    began: Digest,
}

fn orchestrator() -> Key {
    Key::from_seed([1; 32])
}

fn miner() -> Key {
    Key::from_seed([11; 32])
}

/// A miner that begins afresh; and the state that its merge might have come to.
fn afresh() -> (Draft, Digest) {
    let mut run = Run::from_toml(include_str!("../../../../engine/spec/tests/tiny.toml")).unwrap();
    run.outer = Outer::Nesterov { lr: 0.7, momentum: 0.9, bits: 8 };
    let mut state = StageState::initial(&run, STAGE.into()).unwrap();
    state.edit_weights(|weights| weights[0] += 1.0).unwrap();
    let weights = state.weights_bytes().unwrap();
    // Any momentum will do, and zeros are one.
    let momentum = state.momentum_bytes().unwrap().unwrap();
    let began = StageState::of_manifest(&run, STAGE.into(), &weights, Some(&momentum)).unwrap();
    state.edit_moments(|moments| moments[0] += 1.0).unwrap();
    let began = began.state_digest().unwrap();
    (Draft { run, weights, momentum, merged: None, began }, state.state_digest().unwrap())
}

impl Draft {
    fn receipt(&self, (epoch, sequence): (u32, u64), operation: Operation, state: Digest) -> Signed<Receipt> {
        let is_merge = operation == Operation::Apply;
        let body = Receipt {
            run: self.run.id(),
            mode: self.run.mode,
            epoch,
            sequence,
            previous: Digest([4; 32]),
            stage: STAGE,
            operation,
            state: Some(state),
            input_receipt: None,
            input: Some(Digest([5; 32])),
            output: is_merge.then(|| Digest::of(&self.weights)),
            loss_q32: (!is_merge).then_some(5 << 32),
            outcome: spec::Outcome::Ok,
        };
        Signed::new(body, &miner())
    }

    fn case(&self) -> Evidence {
        let member = Member { assignment: 9, attempt: 0, step: 0, position: 0, microbatch: 9 };
        let start = self.receipt((1, 21), Operation::Forward(member), self.began);
        let merge = self.merged.map(|state| self.receipt((0, 20), Operation::Apply, state));
        let [weights, momentum] = [&self.weights, &self.momentum].map(|bytes| ObjectRef::of(bytes));
        let miners = merge.iter().map(|_| miner().id()).collect();
        let record = StageRecord { weights, momentum: Some(momentum), miners };
        let manifest = Manifest {
            run: self.run.id(),
            epoch: 1,
            previous: Digest([7; 32]),
            stages: vec![record; self.run.model.stage_count()],
            loss_q32: None,
        };
        let order = AuditOrder {
            miner: miner().id(),
            stage: STAGE,
            window: Window::beginning(1),
            weights: weights.digest,
            state: weights,
            start,
            receipts: merge.into_iter().collect(),
            inputs: vec![momentum],
            merge: None,
        };
        let finding =
            Finding::Unequal { sequence: 21, what: "state".into(), expected: "a".into(), found: "b".into() };
        let (window, start) = (order.window, order.start.digest());
        let verdict = Verdict { run: self.run.id(), miner: miner().id(), window, start, finding };
        Evidence {
            run: self.run.canonical_bytes(),
            manifest: Signed::new(manifest, &orchestrator()),
            order,
            verdict: Signed::new(verdict, &Key::from_seed([12; 32])),
        }
    }

    fn file(&self, case: &Evidence) -> Vec<u8> {
        let case = wire::to_bytes(case);
        let named = needed(&case).unwrap();
        let is_named = |bytes: &&Vec<u8>| named.contains(&ObjectRef::of(bytes));
        let objects: Vec<&Vec<u8>> = [&self.weights, &self.momentum].into_iter().filter(is_named).collect();
        pack(&case, &objects).unwrap()
    }

    fn decide(&self) -> Result<Outcome, Refused> {
        let report = verify(&self.file(&self.case()), None, &Expected::default())?;
        assert_eq!((report.orchestrator, report.window), (orchestrator().id(), Window::beginning(1)));
        Ok(report.outcome)
    }
}

#[test]
fn who_began_in_neither_state_is_convicted_from_a_file_without_a_replay() {
    let (honest, merged) = afresh();
    let equal = Ok(Outcome::NotProven { operations: 0 });
    assert_eq!(honest.decide(), equal);
    let named = Draft { merged: Some(merged), ..honest.clone() };
    assert_eq!(named.decide(), equal, "whoever merged may begin afresh all the same");
    assert_eq!(Draft { began: merged, ..named.clone() }.decide(), equal);
    let liars = [
        // The state that it came to, though nobody counted its merge; and one that nobody knows.
        Draft { began: merged, ..honest.clone() },
        Draft { began: Digest::of(b"moments of its own making"), ..named },
    ];
    for liar in liars {
        let Ok(Outcome::Convicted(conviction)) = liar.decide() else { panic!("missed") };
        assert!(conviction.operation.unwrap().starts_with("forward"));
        let Finding::Unequal { sequence: 21, what, expected, found } = conviction.finding else { panic!() };
        assert_eq!(
            (what.as_str(), expected, found),
            ("state", honest.began.to_string(), liar.began.to_string())
        );
    }
}

#[test]
fn what_does_not_follow_from_the_manifest_proves_nothing() {
    let (honest, merged) = afresh();
    let liar = Draft { began: Digest::of(b"other moments"), merged: Some(merged), ..honest.clone() };
    let refusal = |case: &Evidence| {
        let expected = Expected { orchestrator: Some(orchestrator().id()), ..Expected::default() };
        verify(&liar.file(case), None, &expected).expect_err("it must be refused").to_string()
    };
    // Without the receipt of its merge an honest miner could be said to have begun elsewhere.
    let mut case = Draft { began: merged, ..liar.clone() }.case();
    case.order.receipts.clear();
    let found = refusal(&case);
    assert!(found.starts_with("receipt of the merge: expected one of the accused, found none"), "{found}");
    // With another merge's, a liar could be said to have begun where it may.
    let mut case = Draft { merged: None, ..liar.clone() }.case();
    case.order.receipts = liar.case().order.receipts;
    assert!(refusal(&case).starts_with("receipt of the merge: expected none"));
    let mut case = liar.case();
    case.order.receipts[0] = liar.receipt((0, 20), Operation::Encode, merged);
    assert!(refusal(&case).contains("is not of the merge that the epoch began after"));
    // Of other weights, or without the momentum, the fresh state is another.
    let mut case = liar.case();
    case.order.inputs.clear();
    assert!(refusal(&case).starts_with("weights and momentum"));
    let mut case = liar.case();
    case.order.state = case.order.inputs[0];
    assert!(refusal(&case).starts_with("weights and momentum"));
    // Anybody can sign a manifest; whose counts, the reader knows.
    let mut case = liar.case();
    case.manifest = Signed::new(case.manifest.body, &Key::from_seed([66; 32]));
    assert!(refusal(&case).starts_with("signer of the manifest"));
    // An object that is missing, or none of the stage.
    let case = wire::to_bytes(&liar.case());
    assert_eq!(needed(&case).unwrap().len(), 2);
    let file = pack(&case, &[&liar.weights]).unwrap();
    let found = verify(&file, None, &Expected::default()).unwrap_err().to_string();
    assert!(
        found.contains(&Digest::of(&liar.momentum).to_string()) && found.contains("found nothing"),
        "{found}"
    );
    let swapped = Draft { weights: liar.momentum.clone(), momentum: liar.weights.clone(), ..liar.clone() };
    assert_eq!(swapped.decide().unwrap_err().field, "fresh state");
}

#[test]
fn a_verdict_on_another_beginning_of_the_epoch_is_refused() {
    let (honest, _) = afresh();
    let mut case = honest.case();
    let verdict = Verdict { start: Digest([3; 32]), ..case.verdict.body.clone() };
    case.verdict = Signed::new(verdict, &Key::from_seed([12; 32]));
    let found = verify(&honest.file(&case), None, &Expected::default()).unwrap_err().to_string();
    assert!(found.starts_with("start of the verdict"), "{found}");
}
