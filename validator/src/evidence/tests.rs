//! A tail's window as it really comes about, then everything that can be wrong with evidence against it.

use super::*;
use engine::StageState;
use engine::data::{TokenShard, Width, shard_bytes};
use engine::work::{Done, perform};
use proptest::prelude::*;
use spec::{Digest, Member, Operation, Run, Window};
use std::sync::LazyLock;
use wire::{AuditOrder, Chain, Evidence, Finding, Key, Manifest, ObjectRef, Receipt, Signed, Verdict};

mod large;

const STAGE: usize = 1;
const STEP: u32 = 1;

/// A case before anything of it is signed.
#[derive(Clone)]
struct Draft {
    run: Run,
    /// The start's first; numbered, chained and signed by [`Draft::case`].
    receipts: Vec<Receipt>,
    /// State, payloads, shard.
    objects: Vec<Vec<u8>>,
    miner: Key,
    validator: Key,
    said: Finding,
}

fn tokens() -> Vec<u8> {
    let tokens: Vec<u32> = (0..4000u32).map(|i| i * i % 251).collect();
    shard_bytes(&tokens, Width::One).unwrap()
}

fn run() -> Run {
    let mut run = Run::from_toml(include_str!("../../../engine/spec/tests/tiny.toml")).unwrap();
    let shard = TokenShard::from_bytes(tokens()).unwrap();
    (run.data.train, run.data.train_tokens) = (shard.digest(), shard.count());
    run
}

/// Head and tail side by side for two steps; the tail's second is the window.
fn honest() -> Draft {
    static DRAFT: LazyLock<Draft> = LazyLock::new(work);
    DRAFT.clone()
}

fn work() -> Draft {
    let (run, shard) = (run(), TokenShard::from_bytes(tokens()).unwrap());
    let [mut head, mut tail] = [0, STAGE].map(|stage| StageState::initial(&run, stage).unwrap());
    let act = |state: &mut StageState, operation: &Operation, inputs: &[&[u8]]| {
        perform(state, Some(&shard), 0, operation, inputs).unwrap()
    };
    let (mut receipts, mut objects) = (vec![], vec![]);
    for step in 0..=STEP {
        receipts.clear();
        objects.clear();
        // The state before the window is bound by the step before it.
        if step == STEP {
            let state = Some(tail.state_digest().unwrap());
            let operation = Operation::Step { step: step - 1, members: vec![] };
            receipts.push(Receipt { state, ..receipt(&run, operation, None, None) });
            objects.push(tail.state_bytes().unwrap());
        }
        let mut members = vec![];
        for position in 0..run.inner.members {
            let number = u64::from(step) * u64::from(run.inner.members) + u64::from(position);
            let member = Member { assignment: number, attempt: 0, step, position, microbatch: number };
            let activation = act(&mut head, &Operation::Forward(member), &[]).output.unwrap();
            let forward = act(&mut tail, &Operation::Forward(member), &[&activation]);
            receipts.push(receipt(&run, Operation::Forward(member), Some(&activation), Some(&forward)));
            let backward = act(&mut tail, &Operation::Backward(member), &[]);
            receipts.push(receipt(&run, Operation::Backward(member), None, Some(&backward)));
            act(&mut head, &Operation::Backward(member), &[backward.output.as_deref().unwrap()]);
            objects.push(activation);
            members.push(member);
        }
        let operation = Operation::Step { step, members };
        act(&mut head, &operation, &[]);
        act(&mut tail, &operation, &[]);
        let state = run.digests_after(step).then(|| tail.state_digest().unwrap());
        receipts.push(Receipt { state, ..receipt(&run, operation, None, None) });
    }
    objects.push(tokens());
    let said =
        Finding::Unequal { sequence: 8, what: "output".into(), expected: "a".into(), found: "b".into() };
    let [miner, validator] = [11, 12].map(|seed| Key::from_seed([seed; 32]));
    Draft { run, receipts, objects, miner, validator, said }
}

fn receipt(run: &Run, operation: Operation, input: Option<&Vec<u8>>, done: Option<&Done>) -> Receipt {
    Receipt {
        run: run.id(),
        mode: run.mode,
        epoch: 0,
        sequence: 0,
        previous: Digest::default(),
        stage: STAGE as u16,
        operation,
        state: None,
        input_receipt: input.map(|_| Digest([5; 32])),
        input: input.map(|bytes| Digest::of(bytes)),
        output: done.and_then(|done| done.output_digest),
        loss_q32: done.and_then(|done| done.loss_q32),
        outcome: spec::Outcome::Ok,
    }
}

impl Draft {
    fn case(&self) -> Evidence {
        let mut chain = Chain { next: 7, last: Digest([4; 32]) };
        let sign = |body: &Receipt| {
            let body = Receipt { sequence: chain.next, previous: chain.last, ..body.clone() };
            chain = Chain::after(&body);
            Signed::new(body, &self.miner)
        };
        let mut receipts: Vec<_> = self.receipts.iter().map(sign).collect();
        let start = receipts.remove(0);
        let payloads = &self.objects[1..self.objects.len() - 1];
        let order = AuditOrder {
            miner: self.miner.id(),
            stage: STAGE as u16,
            window: Window { epoch: 0, step: STEP },
            weights: Digest::of(b"weights"),
            state: ObjectRef::of(&self.objects[0]),
            start,
            receipts,
            inputs: payloads.iter().map(|bytes| ObjectRef::of(bytes)).collect(),
            merge: None,
        };
        let weights = vec![ObjectRef::of(b"weights"); self.run.model.stage_count()];
        let manifest = Manifest::first(self.run.id(), &weights);
        let verdict = Verdict {
            run: self.run.id(),
            miner: self.miner.id(),
            window: order.window,
            start: order.start.digest(),
            finding: self.said.clone(),
        };
        Evidence {
            run: self.run.canonical_bytes(),
            manifest: Signed::new(manifest, &Key::from_seed([1; 32])),
            order,
            verdict: Signed::new(verdict, &self.validator),
        }
    }

    fn file(&self) -> Vec<u8> {
        self.file_of(&self.case())
    }

    fn file_of(&self, case: &Evidence) -> Vec<u8> {
        pack(&wire::to_bytes(case), &self.objects).unwrap()
    }
}

/// Honest work, but for one lie: the backward of the second member.
fn liar() -> Draft {
    let mut draft = honest();
    draft.receipts[4].output = Some(Digest::of(b"what it never computed"));
    draft
}

fn decide(file: &[u8]) -> Result<Outcome, Refused> {
    verify(file, None, &Expected::default()).map(|report| report.outcome)
}

/// The sentence of a refusal.
fn refusal(file: &[u8]) -> String {
    decide(file).expect_err("evidence that must be refused").to_string()
}

#[test]
fn a_lie_is_convicted_by_its_operation_and_honest_work_is_not() {
    assert_eq!(decide(&honest().file()), Ok(Outcome::NotProven { operations: 5 }));
    /// What is told of, what is found, and how receipts are changed.
    type Lie = (&'static str, &'static str, fn(&mut Vec<Receipt>));
    let lies: [Lie; 3] = [
        ("output", "backward of assignment 3", |r| r[4].output = Some(Digest::default())),
        ("loss", "forward of assignment 2", |r| r[1].loss_q32 = r[1].loss_q32.map(|loss| loss - 1)),
        ("state", "step 1 of 2 members", |r| r[5].state = Some(Digest::default())),
    ];
    for (field, wrong, lie) in lies {
        let mut draft = honest();
        lie(&mut draft.receipts);
        let Ok(Outcome::Convicted(conviction)) = decide(&draft.file()) else { panic!("{field} is missed") };
        assert!(conviction.operation.unwrap().starts_with(wrong));
        assert!(matches!(conviction.finding, Finding::Unequal { what, .. } if what == field));
    }
}

#[test]
fn a_receipt_wrong_by_itself_convicts_and_a_choice_of_receipts_does_not() {
    let mut draft = honest();
    draft.receipts[2].state = Some(Digest::default());
    let Ok(Outcome::Convicted(conviction)) = decide(&draft.file()) else { panic!("missed") };
    assert!(conviction.finding.sentence().contains("has a state digest"));
    // An epoch that begins again binds its state again.
    let mut draft = honest();
    draft.receipts[1].state = Some(Digest::default());
    assert!(refusal(&draft.file()).contains("out of place"));
    // Honest receipts left out break the chain; where an epoch began again, steps follow each other as they never would.
    let draft = honest();
    let mut case = draft.case();
    case.order.receipts.drain(1..3);
    let said = refusal(&draft.file_of(&case));
    assert!(said.contains("where 9 was due"), "{said}");
    // What came before the end of a window is judged as it is.
    let mut case = draft.case();
    case.order.receipts.pop();
    assert_eq!(decide(&draft.file_of(&case)), Ok(Outcome::NotProven { operations: 4 }));
    let mut case = liar().case();
    case.order.receipts.pop();
    assert!(matches!(decide(&draft.file_of(&case)), Ok(Outcome::Convicted(_))));
    // No other weights than the manifest's.
    let mut case = draft.case();
    case.order.weights = Digest::of(b"others");
    assert!(refusal(&draft.file_of(&case)).starts_with("weights of the manifest"));
    let mut draft = honest();
    draft.receipts.swap(1, 2);
    assert!(refusal(&draft.file()).contains("out of place"));
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let file = liar().file();
    let lengths = (0..800).chain((800..file.len()).step_by(997)).chain([file.len() - 1]);
    for length in lengths {
        let said = refusal(&file[..length]);
        assert!(["file", "length of all sections"].iter().any(|f| said.starts_with(f)), "{length}: {said}");
    }
    let long = [&file[..], &[0]].concat();
    assert!(refusal(&long).starts_with("length of all sections"));
}

#[test]
fn a_flipped_byte_is_refused_wherever_it_lies() {
    let file = liar().file();
    let sections = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
    assert_eq!(sections, 1 + 1 + 2 + 1, "case, state, payloads, shard");
    let table = 8 + 48 * sections;
    // Header and table byte by byte, then the first, middle and last byte of each section.
    let mut places: Vec<usize> = (0..table).collect();
    let mut begin = table;
    for line in file[8..table].chunks_exact(48) {
        let length = u64::from_le_bytes(line[40..].try_into().unwrap()) as usize;
        places.extend([begin, begin + length / 2, begin + length - 1]);
        begin += length;
    }
    assert_eq!(begin, file.len());
    for place in places {
        let mut edited = file.clone();
        edited[place] ^= 1;
        assert!(decide(&edited).is_err(), "byte {place} of {} counts for nothing", file.len());
    }
}

#[test]
fn what_another_key_signed_is_refused() {
    let draft = liar();
    let other = Key::from_seed([99; 32]);
    // The accused's receipts under somebody else's signature.
    let mut case = draft.case();
    case.order.receipts =
        case.order.receipts.iter().map(|signed| Signed::new(signed.body.clone(), &other)).collect();
    let said = refusal(&draft.file_of(&case));
    assert!(said.contains("is signed by") && said.contains(&draft.miner.id().short()), "{said}");
    // A name under words that are not its own.
    let mut case = draft.case();
    case.order.receipts[3].body.output = None;
    assert!(refusal(&draft.file_of(&case)).contains("does not hold"));
    let mut case = draft.case();
    case.verdict.signer = other.id();
    assert!(refusal(&draft.file_of(&case)).starts_with("signature of the verdict"));
    let mut case = draft.case();
    case.manifest.body.loss_q32 = Some(1);
    assert!(refusal(&draft.file_of(&case)).starts_with("signature of the manifest"));
    // Whoever knows the validators takes no other's word.
    let expected = Expected { validator: Some(other.id()), ..Expected::default() };
    let error = verify(&draft.file(), None, &expected).unwrap_err();
    assert_eq!((error.field.as_str(), error.expected), ("signer of the verdict", other.id().to_string()));
}

#[test]
fn another_run_and_another_miner_are_refused() {
    let draft = liar();
    let mut run = draft.run.clone();
    run.seed += 1;
    let mut case = draft.case();
    case.run = run.canonical_bytes();
    assert!(refusal(&draft.file_of(&case)).starts_with("run of the manifest"));
    let expected = Expected { run: Some(run.id()), ..Expected::default() };
    let error = verify(&draft.file(), None, &expected).unwrap_err();
    assert_eq!((error.field.as_str(), error.found), ("run", draft.run.id().to_string()));
    // Manifest and verdict made anew for the other run: the receipts still name theirs.
    let mut case = Draft { run: run.clone(), ..draft.clone() }.case();
    case.order = draft.case().order;
    assert!(refusal(&draft.file_of(&case)).contains("is of another run"));
    // Somebody else's window under the name of a third.
    let third = Key::from_seed([13; 32]);
    let mut case = draft.case();
    case.order.miner = third.id();
    assert!(refusal(&draft.file_of(&case)).starts_with("accused of the verdict"));
    let verdict = Verdict { miner: third.id(), ..case.verdict.body.clone() };
    case.verdict = Signed::new(verdict, &draft.validator);
    assert!(refusal(&draft.file_of(&case)).contains("not by the miner"));
}

/// A field, and what makes it another.
type Edit<T> = (&'static str, fn(&mut T));

#[test]
fn what_is_signed_about_something_else_is_refused_by_its_field() {
    let draft = liar();
    let verdicts: [Edit<Verdict>; 4] = [
        ("run of the verdict", |verdict| verdict.run = Digest([3; 32])),
        ("accused of the verdict", |verdict| verdict.miner = Key::from_seed([13; 32]).id()),
        ("window of the verdict", |verdict| verdict.window.step += 1),
        ("start of the verdict", |verdict| verdict.start = Digest([3; 32])),
    ];
    for (field, edit) in verdicts {
        let mut case = draft.case();
        edit(&mut case.verdict.body);
        case.verdict = Signed::new(case.verdict.body, &draft.validator);
        let said = refusal(&draft.file_of(&case));
        assert!(said.starts_with(field), "{said}");
    }
    let manifests: [Edit<Manifest>; 3] = [
        ("run of the manifest", |manifest| manifest.run = Digest([3; 32])),
        ("epoch of the manifest", |manifest| manifest.epoch += 1),
        ("weights of the manifest", |manifest| manifest.stages.truncate(STAGE)),
    ];
    for (field, edit) in manifests {
        let mut case = draft.case();
        edit(&mut case.manifest.body);
        case.manifest = Signed::new(case.manifest.body, &Key::from_seed([1; 32]));
        let said = refusal(&draft.file_of(&case));
        assert!(said.starts_with(field), "{said}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let draft = liar();
    let case = wire::to_bytes(&draft.case());
    for missing in 0..draft.objects.len() {
        let mut objects = draft.objects.clone();
        let digest = Digest::of(&objects.remove(missing)).to_string();
        let file = pack(&case, &objects).unwrap();
        let said = refusal(&file);
        assert!(said.contains(&digest) && said.contains("found nothing"), "{said}");
        if missing == draft.objects.len() - 1 {
            let shard = TokenShard::from_bytes(tokens()).unwrap();
            let report = verify(&file, Some(&shard), &Expected::default()).unwrap();
            assert!(matches!(report.outcome, Outcome::Convicted(_)));
            let other = TokenShard::from_bytes(shard_bytes(&[1; 4000], Width::One).unwrap()).unwrap();
            let error = verify(&file, Some(&other), &Expected::default()).unwrap_err();
            assert_eq!((error.field.as_str(), error.found), ("token shard", other.digest().to_string()));
        }
    }
    assert!(pack(&case, &[b"a stranger"]).unwrap_err().field.contains("object"));
}

#[test]
fn a_run_too_large_to_replay_is_refused_before_anything_is_allocated() {
    let draft = honest();
    for grow in [
        (|run| run.model.stages = vec![u32::MAX, u32::MAX]) as fn(&mut Run),
        |run| run.model.ffn = u32::MAX,
        |run| run.model.context = 1 << 30,
        |run| run.data.train_tokens = u64::MAX,
    ] {
        let mut run = draft.run.clone();
        grow(&mut run);
        run.data.train_tokens = run.data.train_tokens.max(u64::from(run.model.context) + 1);
        let case = wire::to_bytes(&Draft { run, ..draft.clone() }.case());
        assert!(needed(&case).unwrap_err().field.starts_with("run: "));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_and_nothing_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..400), count in 0u32..8, sound in any::<bool>()) {
        if sound && bytes.len() >= 8 {
            bytes[..4].copy_from_slice(b"IEV1");
            bytes[4..8].copy_from_slice(&count.to_le_bytes());
        }
        prop_assert!(decide(&bytes).is_err());
    }

    #[test]
    fn a_case_of_any_bytes_is_refused_and_nothing_panics(place in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 1..40)) {
        let draft = liar();
        let mut case = wire::to_bytes(&draft.case());
        let place = place.index(case.len());
        let end = (place + with.len()).min(case.len());
        case[place..end].copy_from_slice(&with[..end - place]);
        prop_assume!(case != wire::to_bytes(&draft.case()));
        // The table is right, so that what is inside is what is judged.
        if let Ok(file) = pack(&case, &draft.objects) {
            prop_assert!(decide(&file).is_err());
        }
    }
}
