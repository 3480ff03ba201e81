//! One message of every kind, every field filled and no two alike.

use spec::{
    Admission, Audit, BoundaryCodec, Data, Digest, Epoch, Inner, Member, Mode, Model, NodeId, Operation,
    Outcome, Outer, Run, Tokenizer, Window,
};
use wire::merge::Seat;
use wire::neighbours::AS_SEEN;
use wire::{
    Ask, Assignment, AuditOrder, Call, Carried, Chain, Command, Explain, Finding, Grant, Hello, Key,
    Manifest, Merge, MergeInputs, MergeOrder, Merged, Message, Neighbour, ObjectRef, Part, PartHead,
    PayloadHead, PayloadKind, Presigned, Receipt, Refusal, Role, Round, Signed, Slot, StageRecord,
    SumVerdict, Trace, Verb, Verdict, Welcome,
};

pub fn key(number: u8) -> Key {
    Key::from_seed([number; 32])
}

pub fn receiver() -> NodeId {
    NodeId([0xee; 32])
}

fn object(number: u8) -> ObjectRef {
    ObjectRef { digest: Digest([number; 32]), bytes: 1000 + u64::from(number) }
}

fn member() -> Member {
    Member { assignment: 300, attempt: 1, step: 2, position: 3, microbatch: 400 }
}

fn run() -> Run {
    let model = Model {
        dim: 64,
        heads: 4,
        kv_heads: 2,
        ffn: 172,
        vocab: 256,
        context: 128,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        stages: vec![1, 2, 1],
        rope_scaling: None,
    };
    let data = Data {
        tokenizer: Tokenizer::Bytes,
        train: Digest([0x11; 32]),
        train_tokens: 1_000_000,
        validation: Digest([0x12; 32]),
        validation_tokens: 50_000,
        sequences: 8,
    };
    let inner = Inner {
        lr: 1e-3,
        lr_final: 1e-4,
        warmup_steps: 20,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        clip: 1.0,
        members: 4,
        staleness: 0,
    };
    Run {
        name: "golden".into(),
        mode: Mode::Portable,
        seed: 7,
        miners_per_stage: 1,
        model,
        data,
        inner,
        outer: Outer::Nesterov { lr: 0.7, momentum: 0.9, bits: 8 },
        epoch: Epoch { steps: 20, count: 3, digest_every: 5 },
        boundary: BoundaryCodec::Bf16,
        audit: Audit { windows: 1, lag: 2 },
        admission: Admission::Invitation,
    }
}

fn manifest() -> Signed<Manifest> {
    let stage = StageRecord {
        weights: object(0x21),
        momentum: Some(object(0x22)),
        miners: vec![key(1).id(), key(2).id()],
    };
    let body = Manifest {
        run: Digest([0x23; 32]),
        epoch: 5,
        previous: Digest([0x24; 32]),
        stages: vec![stage],
        loss_q32: Some(-3 << 32),
    };
    Signed::new(body, &key(9))
}

pub fn receipt() -> Signed<Receipt> {
    let body = Receipt {
        run: Digest([0x31; 32]),
        mode: Mode::Portable,
        epoch: 5,
        sequence: 70_000,
        previous: Digest([0x32; 32]),
        stage: 1,
        operation: Operation::Step { step: 6, members: vec![member()] },
        state: Some(Digest([0x33; 32])),
        input_receipt: Some(Digest([0x34; 32])),
        input: Some(Digest([0x35; 32])),
        output: None,
        loss_q32: Some(5 << 31),
        outcome: Outcome::NonFinite,
    };
    Signed::new(body, &key(2))
}

fn merge_order() -> MergeOrder {
    let seat = Seat { node: key(2).id(), root: Digest([0x72; 32]) };
    MergeOrder {
        stage: 1,
        epoch: 9,
        shard: 6,
        secret: [0x71; 32],
        seats: vec![seat],
        roots: vec![receipt()],
        claims: vec![receipt(), receipt()],
        pieces: vec![object(0x53)],
    }
}

fn sum_verdict() -> SumVerdict {
    SumVerdict { run: Digest([0x31; 32]), stage: 1, epoch: 9, shard: 6, sum: Some(Digest([0x54; 32])) }
}

pub fn payload(kind: PayloadKind) -> Message {
    Message::Payload(PayloadHead { kind, assignment: 300, attempt: 1, receipt: receipt() })
}

pub fn part(part: Part) -> Message {
    Message::Part(PartHead { part, receipt: receipt() })
}

/// Every kind in the order of its number, with the name it has in the golden file.
pub fn messages() -> Vec<(&'static str, Message)> {
    let window = Window { epoch: 5, step: 10 };
    let ask = Ask { verb: Verb::Put, object: object(0x41) };
    let presigned = Presigned {
        verb: Verb::Put,
        url: "http://127.0.0.1:9000/bucket/object?signature=00".into(),
        headers: vec![("content-length".into(), "1065".into())],
        expires_ms: 1_700_000_000_000,
    };
    let order = AuditOrder {
        miner: key(2).id(),
        stage: 1,
        window,
        weights: Digest([0x50; 32]),
        state: object(0x51),
        start: receipt(),
        receipts: vec![receipt()],
        inputs: vec![object(0x52)],
        merge: Some(MergeInputs {
            anchor: object(0x56),
            scales: vec![Digest([0x57; 32])],
            sums: vec![Digest([0x58; 32])],
        }),
    };
    let finding = Finding::Unequal {
        sequence: 70_000,
        what: "output".into(),
        expected: "53".repeat(32),
        found: "54".repeat(32),
    };
    let verdict =
        Verdict { run: Digest([0x55; 32]), miner: key(2).id(), window, start: Digest([0x59; 32]), finding };
    let trace =
        Trace { run: Digest([0x31; 32]), receipt: Digest([0x81; 32]), values: 301, root: Digest([0x82; 32]) };
    let merged = Merged { epoch: 5, weights: object(0x61), momentum: Some(object(0x62)) };
    let seat = Seat { node: key(2).id(), root: Digest([0x72; 32]) };
    let slot = Slot { miner: key(2).id(), step: 6, position: 3, members: 4, attempt: 1, settled: 5 };
    let assignment = Assignment { id: 300, epoch: 5, microbatch: 400, route: vec![slot] };
    vec![
        (
            "Hello",
            Message::Hello(Hello {
                role: Role::Validator,
                token: vec![1, 2, 3],
                software: "iota 0.1.0".into(),
                resumes: true,
            }),
        ),
        (
            "Welcome",
            Message::Welcome(Welcome {
                run: run(),
                stage: Some(1),
                manifest: manifest(),
                chain: Chain { next: 70_001, last: Digest([0x36; 32]) },
            }),
        ),
        ("Refused", Message::Refused(Refusal::Banned { evidence: "e71d".into() })),
        ("Ask", Message::Ask(ask)),
        ("Grant", Message::Grant(Grant { ask, answer: Ok(presigned) })),
        ("Ready", Message::Ready { epoch: 5, turn: 2 }),
        ("Open", Message::Open(manifest())),
        ("Assign", Message::Assign(assignment.clone())),
        ("Payload", payload(PayloadKind::Gradient)),
        ("Receipt", Message::Receipt(receipt())),
        (
            "Merge",
            Message::Merge(Merge { epoch: 5, members: vec![key(2).id()], commitment: Digest([0x63; 32]) }),
        ),
        ("Merged", Message::Merged(Signed::new(merged, &key(2)))),
        ("Draw", Message::Draw { epoch: 1, steps: vec![0, 10], more: false }),
        ("Revealed", Message::Revealed { window, state: object(0x51), inputs: vec![object(0x52)] }),
        ("Audit", Message::Audit(order.clone())),
        ("Verdict", Message::Verdict(Signed::new(verdict, &key(3)))),
        ("Finish", Message::Finish { reason: "the run is over".into() }),
        ("Leave", Message::Leave { reason: "ctrl-c".into() }),
        ("Call", Message::Call { epoch: 5, call: Call::Drawn { secret: [0x71; 32], seats: vec![seat] } }),
        ("Holding", Message::Holding { epoch: 5, round: Round::Pieces }),
        ("Part", part(Part::Sum { shard: 3 })),
        ("Keep", Message::Keep(object(0x61))),
        ("Kept", Message::Kept(object(0x61))),
        ("Adopt", Message::Adopt { stage: 2, manifest: manifest(), turn: 3 }),
        ("Returned", Message::Returned(key(2).id())),
        ("Amend", Message::Amend(assignment.clone())),
        ("Disclose", Message::Disclose { epoch: 9, shard: 6 }),
        (
            "Disclosed",
            Message::Disclosed { epoch: 9, shard: 6, pieces: vec![object(0x51), object(0x52)], stored: true },
        ),
        ("AddUp", Message::AddUp(merge_order())),
        ("AddedUp", Message::AddedUp(Signed::new(sum_verdict(), &key(4)))),
        ("Command", Message::Command(Command::RollBack { to: Some(300) })),
        ("Answered", Message::Answered(Err("epoch 300 is not stable".into()))),
        ("Strike", Message::Strike(assignment)),
        ("Reachable", Message::Reachable(vec![AS_SEEN, "192.168.1.7:4701".parse().unwrap()])),
        (
            "Neighbours",
            Message::Neighbours(vec![
                Neighbour { node: key(2).id(), addresses: vec!["[2001:db8::7]:4701".parse().unwrap()] },
                Neighbour { node: key(3).id(), addresses: vec![] },
            ]),
        ),
        ("Carried", Message::Carried(Carried { frames: 300, bytes_plain: 80_000, bytes_sent: 70_000 })),
        ("Explain", Message::Explain(Explain { order, receipt: Digest([0x81; 32]) })),
        ("Explained", Message::Explained(Signed::new(trace, &key(2)))),
        ("Show", Message::Show { value: 300, output: object(0x83) }),
        ("Shown", Message::Shown(object(0x83))),
    ]
}
