//! Audits by the thousand: work of honest miners, replayed on other SIMD paths, other numbers of threads and another kind of device,
//! never differs; and what proving work costs beside doing it. `cargo xtask audits` runs many and prints a table.

#![allow(clippy::unwrap_used)] // a trial that cannot go on has failed

use cpu_time::ThreadTime;
use engine::data::{TextTokenizer, TokenShard, Width, shard_bytes};
use engine::state::StageState;
use engine::{Device, Done, perform};
use kernels::SimdPath;
use kernels::device::CudaDevice;
use spec::{Digest, Member, Operation, Run};
use std::collections::BTreeMap;
use std::time::Duration;
use validator::replay::{self, Window};
use validator_core::{Replay, compare};
use wire::{Chain, Finding, Key, Receipt, Signed};

// As in the program: what a state's file costs is for a good part what new memory costs.
#[global_allocator]
static ALLOCATOR: kernels::allocator::LineAligned = kernels::allocator::LineAligned;

/// Where work is done.
#[derive(Clone)]
struct Place {
    name: String,
    path: SimdPath,
    threads: usize,
    device: Device,
}

impl Place {
    fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.path.limit();
        rayon::ThreadPoolBuilder::new().num_threads(self.threads).build().unwrap().install(work)
    }
}

/// Every SIMD path of this CPU with one, two and three threads; the emulated or real device where there is one.
fn places() -> (Vec<Place>, Option<Place>) {
    let mut places = Vec::new();
    for path in SimdPath::available() {
        for threads in 1..=3 {
            let name = format!("{path:?} x{threads}");
            places.push(Place { name, path, threads, device: Device::Cpu });
        }
    }
    let device = CudaDevice::open(0).ok().map(|device| Place {
        name: "CUDA device".into(),
        path: SimdPath::best(),
        threads: 1,
        device: Device::Cuda(device),
    });
    (places, device)
}

/// A run of three stages, in epochs of two windows of so many steps.
fn run([dim, context, sequences]: [u32; 3], window: u32) -> (Run, TokenShard) {
    let text = "the quick brown fox jumps over the lazy dog; ".repeat(1000);
    let tokens = TextTokenizer::bytes().encode(&text).unwrap();
    let shard = TokenShard::from_bytes(shard_bytes(&tokens, Width::One).unwrap()).unwrap();
    let mut run = Run::from_toml(include_str!("../../engine/spec/tests/tiny.toml")).unwrap();
    (run.model.dim, run.model.ffn, run.model.context) = (dim, dim * 8 / 3 / 8 * 8, context);
    (run.model.heads, run.model.kv_heads, run.model.stages) = (4, 2, vec![1, 1, 1]);
    (run.data.train, run.data.train_tokens) = (shard.digest(), shard.count());
    (run.data.sequences, run.epoch.steps, run.epoch.digest_every) = (sequences, 2 * window, window);
    run.check().unwrap();
    (run, shard)
}

/// The same on weights that are one step old.
fn stale(run: &Run) -> Run {
    let run = Run { inner: spec::Inner { staleness: 1, ..run.inner.clone() }, ..run.clone() };
    run.check().unwrap();
    run
}

/// What a miner did in one window, and signed.
struct Proof {
    stage: usize,
    state: Vec<u8>,
    receipts: Vec<Signed<Receipt>>,
    inputs: BTreeMap<Digest, Vec<u8>>,
    /// Processor time in the engine, and for digests and signatures.
    worked: Duration,
    committed: Duration,
}

/// A swarm of one miner a stage.
struct Swarm<'a> {
    run: &'a Run,
    shard: &'a TokenShard,
    stages: Vec<StageState>,
    keys: Vec<Key>,
    chains: Vec<Chain>,
}

impl<'a> Swarm<'a> {
    fn new(run: &'a Run, shard: &'a TokenShard, device: &Device) -> Self {
        let stage = |stage| StageState::initial(run, stage).unwrap().to_device(device).unwrap();
        let stages: Vec<StageState> = (0..run.model.stage_count()).map(stage).collect();
        let keys = (0..stages.len()).map(|stage| Key::from_seed([stage as u8; 32])).collect();
        let chains = vec![Chain::default(); stages.len()];
        Self { run, shard, stages, keys, chains }
    }

    /// Does the window that begins with `first`; what each miner can show of it.
    fn window(&mut self, first: u32) -> Vec<Proof> {
        let mut proofs: Vec<Proof> = (0..self.stages.len())
            .map(|stage| {
                let state = self.stages[stage].state_bytes().unwrap();
                let (receipts, inputs) = (Vec::new(), BTreeMap::new());
                Proof { stage, state, receipts, inputs, worked: Duration::ZERO, committed: Duration::ZERO }
            })
            .collect();
        for step in first..first + self.run.epoch.digest_every {
            if !self.run.is_stale(step) {
                self.forwards(&mut proofs, step);
            }
            // What may run ahead does.
            if self.run.is_stale(step + 1) {
                self.forwards(&mut proofs, step + 1);
            }
            let members = self.members(step);
            for &member in &members {
                let mut payload = None;
                for proof in proofs.iter_mut().rev() {
                    payload = self.act(proof, Operation::Backward(member), payload.as_deref()).output;
                }
            }
            for proof in &mut proofs {
                self.act(proof, Operation::Step { step, members: members.clone() }, None);
            }
        }
        proofs
    }

    fn forwards(&mut self, proofs: &mut [Proof], step: u32) {
        for member in self.members(step) {
            let mut payload = None;
            for proof in &mut *proofs {
                payload = self.act(proof, Operation::Forward(member), payload.as_deref()).output;
            }
        }
    }

    fn members(&self, step: u32) -> Vec<Member> {
        let members = u64::from(self.run.inner.members);
        let member = |position: u16| {
            let microbatch = u64::from(step) * members + u64::from(position);
            Member { assignment: microbatch, attempt: 0, step, position, microbatch }
        };
        (0..self.run.inner.members).map(member).collect()
    }

    /// One operation, and its receipt.
    fn act(&mut self, proof: &mut Proof, operation: Operation, input: Option<&[u8]>) -> Done {
        let stage = proof.stage;
        let began = ThreadTime::now();
        let inputs: Vec<&[u8]> = input.into_iter().collect();
        let done = perform(&mut self.stages[stage], Some(self.shard), 0, &operation, &inputs).unwrap();
        proof.worked += began.elapsed();
        let began = ThreadTime::now();
        // The engine digests its output; the receiver does so again.
        let again = done.output.as_deref().map(Digest::of);
        assert_eq!(again, done.output_digest);
        let ends = matches!(operation, Operation::Step { step, .. } if self.run.digests_after(step));
        let state = ends.then(|| self.stages[stage].state_file().unwrap().1);
        let body = Receipt {
            run: self.run.id(),
            mode: self.run.mode,
            epoch: 0,
            sequence: self.chains[stage].next,
            previous: self.chains[stage].last,
            stage: stage as u16,
            operation,
            state,
            input_receipt: input.map(|_| Digest::default()),
            input: input.map(Digest::of),
            output: done.output_digest,
            loss_q32: done.loss_q32,
            outcome: done.outcome,
        };
        self.chains[stage] = Chain::after(&body);
        let receipt = Signed::new(body, &self.keys[stage]);
        // By the orchestrator, and by the neighbour.
        for _ in 0..2 {
            receipt.verify().unwrap();
        }
        proof.committed += began.elapsed();
        if let Some(input) = input {
            proof.inputs.insert(Digest::of(input), input.to_vec());
        }
        proof.receipts.push(receipt);
        done
    }
}

/// What a validator at `place` finds of a window, and how long it worked.
fn audit(run: &Run, shard: &TokenShard, proof: &Proof, place: &Place) -> (Finding, Duration) {
    let replay = |receipt: &Signed<Receipt>| Replay {
        operation: receipt.body.operation.clone(),
        inputs: receipt.body.input.into_iter().collect(),
        digest_state: receipt.body.state.is_some(),
    };
    let operations = proof.receipts.iter().map(replay).collect();
    let (run, state) = (run.clone(), Digest::of(&proof.state));
    let (stage, miner) = (proof.stage as u16, proof.receipts[0].signer);
    let window = Window { run, stage, epoch: 0, state, weights: None, miner, anchor: None, operations };
    let object = |digest: &Digest| {
        if *digest == state { Some(&proof.state[..]) } else { proof.inputs.get(digest).map(Vec::as_slice) }
    };
    let began = ThreadTime::now();
    let (results, stopped) = replay::perform(&window, Some(shard), &place.device, object).unwrap();
    let took = began.elapsed();
    (compare(&proof.receipts, &results, stopped.as_deref()), took)
}

/// How many operations to audit: many only when asked.
fn wanted() -> u64 {
    std::env::var("IOTA_AUDITED_OPERATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(500)
}

#[test]
fn honest_work_is_found_equal_wherever_it_is_done_again() {
    let (run, shard) = run([24, 12, 2], 2);
    let stale = stale(&run);
    let (places, device) = places();
    let mut table: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let mut total = 0;
    let mut trials = 0;
    let mut trial = |miner: &Place, validator: &Place| {
        trials += 1;
        let run = if trials % 2 == 0 { &run } else { &stale };
        let proofs = miner.on(|| {
            let mut swarm = Swarm::new(run, &shard, &miner.device);
            let before = swarm.window(0);
            before.into_iter().chain(swarm.window(2)).collect::<Vec<_>>()
        });
        let (mut operations, mut rejects) = (0, 0);
        for proof in &proofs {
            let (finding, _) = validator.on(|| audit(run, &shard, proof, validator));
            let equal = Finding::Equal { operations: proof.receipts.len() as u32 };
            operations += proof.receipts.len() as u64;
            rejects += u64::from(finding != equal);
        }
        let (all, wrong) = table.entry((miner.name.clone(), validator.name.clone())).or_default();
        (*all, *wrong) = (*all + operations, *wrong + rejects);
        total += operations;
        total
    };
    if let Some(device) = &device {
        for place in [&places[0], &places[places.len() - 1]] {
            trial(device, place);
            trial(place, device);
        }
    } else {
        println!("not run: audits across kinds of devices: there is no CUDA device");
    }
    let pairs = || places.iter().flat_map(|miner| places.iter().map(move |validator| (miner, validator)));
    // Every pair as often as every other.
    while pairs().map(|(miner, validator)| trial(miner, validator)).last().is_some_and(|all| all < wanted()) {
    }
    SimdPath::Avx512.limit();
    let count = |of: &dyn Fn(&(u64, u64)) -> u64| table.values().map(of).sum::<u64>();
    let (all, wrong) = (count(&|of| of.0), count(&|of| of.1));
    println!("| miner | validator | operations audited | false rejects |\n|---|---|---|---|");
    for ((miner, validator), (operations, rejects)) in &table {
        println!("| {miner} | {validator} | {operations} | {rejects} |");
    }
    println!("| all | {} pairs | {all} | {wrong} |", table.len());
    assert_eq!(wrong, 0, "{table:?}");
}

#[test]
fn a_wrong_bit_is_found_wherever_the_work_is_done_again() {
    let (fresh, shard) = run([24, 12, 2], 2);
    let (places, _) = places();
    for run in [stale(&fresh), fresh] {
        let proofs = places[0].on(|| Swarm::new(&run, &shard, &Device::Cpu).window(0));
        for proof in &proofs {
            let at = proof.receipts.len() - 1;
            let mut lie = proof.receipts.clone();
            let last = lie[at].body.state.as_mut().unwrap();
            last.0[31] ^= 1;
            let (state, inputs) = (proof.state.clone(), proof.inputs.clone());
            let lie = Proof { receipts: lie, state, inputs, ..*proof };
            for place in &places {
                let (finding, _) = place.on(|| audit(&run, &shard, &lie, place));
                assert!(matches!(finding, Finding::Unequal { .. }), "{}: {finding}", place.name);
            }
        }
    }
}

/// The thread's processor time, of which neighbours on the machine take little; nothing is held against a bound here, for they
/// take some.
#[test]
fn proving_work_beside_doing_it() {
    if std::env::var_os("IOTA_AUDITED_OPERATIONS").is_none() {
        return println!("not run: times of audits: `cargo xtask audits` asks for them");
    }
    println!(
        "| width | parameters | tokens of a microbatch | of a window | replay / work | digests and signatures / work | of it states |"
    );
    println!("|---|---|---|---|---|---|---|");
    let place = places().0.into_iter().rev().find(|place| place.threads == 1).unwrap();
    let shapes = [
        ([64, 64, 4], 2),
        ([128, 128, 4], 2),
        ([256, 256, 8], 2),
        ([256, 256, 8], 8),
        ([512, 512, 4], 2),
        ([512, 512, 4], 8),
    ];
    for (shape, steps) in shapes {
        let (run, shard) = run(shape, steps);
        let mut rounds: Vec<[f64; 3]> = place.on(|| {
            let mut swarm = Swarm::new(&run, &shard, &Device::Cpu);
            let mut round = |_| {
                let proofs = swarm.window(0);
                // The middle stage: it has both payloads and no table of tokens.
                let proof = &proofs[1];
                let worked = proof.worked.as_secs_f64();
                let began = ThreadTime::now();
                swarm.stages[1].state_file().unwrap();
                let state = began.elapsed().as_secs_f64();
                let (finding, took) = audit(&run, &shard, proof, &place);
                assert!(matches!(finding, Finding::Equal { .. }), "{finding}");
                [took.as_secs_f64(), proof.committed.as_secs_f64(), state].map(|time| time / worked)
            };
            (0..3).map(&mut round).collect()
        });
        let median = |of: usize, rounds: &mut Vec<[f64; 3]>| {
            rounds.sort_by(|a, b| a[of].total_cmp(&b[of]));
            rounds[rounds.len() / 2][of]
        };
        let [replay, proof, state] = [0, 1, 2].map(|of| median(of, &mut rounds));
        let parameters = run.model.stage_parameters(1);
        println!(
            "| {} | {parameters} | {} | {} | {replay:.3} | {:.2} % | {:.2} % |",
            shape[0],
            run.microbatch_tokens(),
            run.microbatch_tokens() * u64::from(run.inner.members) * u64::from(steps),
            100.0 * proof,
            100.0 * state
        );
    }
}
