//! The engine's thread: one task after another, in the order they were given.

use crate::adversary::{Adversary, Engine, engine_of};
use crate::answerer::{Answerer, Asked};
use crate::snapshots::{SnapshotError, Snapshots};
use engine::checkpoint::CheckpointError;
use engine::contribution::{Committed, Contribution, ContributionError, Piece};
use engine::data::TokenShard;
use engine::state::StageState;
use engine::work::WorkError;
use engine::{Device, DeviceError};
use miner_core::{Done, Event, StateAfter, Task};
use spec::{Digest, NodeId, Operation, Outcome, Outer, Run};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;
use transport::node::Objects;
use wire::{AuditOrder, ObjectRef};

/// A ticket and its task.
pub type Ticketed = (u64, Task);

/// Who does what is told.
pub struct Hands {
    /// How it lies, in trials.
    pub adversary: Option<Adversary>,
    /// Who answers for it, should it be convicted.
    pub answerer: Arc<dyn Answerer>,
}

/// Does tasks until the queue's senders are gone; in `lost`, what the device failed with, if it did. Runs on a thread of its own.
pub fn work(
    mut tasks: mpsc::UnboundedReceiver<Ticketed>,
    objects: Objects,
    events: mpsc::Sender<Event>,
    who: NodeId,
    place: PathBuf,
    hands: Hands,
    (device, lost): (Device, Arc<OnceLock<String>>),
) {
    let snapshots = Snapshots::at(place);
    let mut worker = Worker {
        objects,
        events: events.clone(),
        who,
        snapshots,
        engine: engine_of(hands.adversary),
        hands,
        device,
        stage: None,
        committed: None,
    };
    if let Err(error) = engine::workers::compute_here() {
        tracing::warn!(%error, "other threads compute than the engine's own, which is slower");
    }
    while let Some((ticket, task)) = tasks.blocking_recv() {
        // `IOTA_LOG=miner=trace` shows where a stage waits.
        tracing::trace!(ticket, "begins to {task}");
        // A panic is a bug of ours; the swarm must still hear that this work will not come.
        let event = match catch_unwind(AssertUnwindSafe(|| worker.perform(ticket, task))) {
            Ok(Ok(Some(done))) => Event::Done { ticket, done },
            // Told when it is on the disk.
            Ok(Ok(None)) => continue,
            Ok(Err(why)) => {
                if why.is_of_the_device() {
                    // The first is what happened; others follow from it.
                    let _ = lost.set(why.to_string());
                }
                Event::TaskFailed { ticket, why: why.to_string() }
            }
            Err(_) => {
                Event::TaskFailed { ticket, why: "the engine panicked: this is a bug, see the log".into() }
            }
        };
        tracing::trace!(ticket, "done");
        if events.blocking_send(event).is_err() {
            return;
        }
    }
}

/// Why a task could not be done.
#[derive(Debug, thiserror::Error)]
enum TaskError {
    #[error("object {0} is not in this node's table of objects")]
    Missing(Digest),
    #[error("work before the first `Adopt`")]
    NoStage,
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Data(#[from] engine::data::DataError),
    #[error(transparent)]
    Work(#[from] WorkError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Contribution(#[from] ContributionError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("{0}")]
    NoAnswer(String),
    #[error("no contribution has blocks {from} to {to}")]
    NoPiece { from: u64, to: u64 },
}

impl TaskError {
    /// Whether the device has no memory left, or is lost: without it the task might be done.
    fn is_of_the_device(&self) -> bool {
        matches!(
            self,
            Self::Device(_)
                | Self::Work(WorkError::Device(_))
                | Self::Checkpoint(CheckpointError::Device(_))
                | Self::Snapshot(SnapshotError::Device(_))
        )
    }
}

struct Worker {
    objects: Objects,
    /// Where it is told what comes later.
    events: mpsc::Sender<Event>,
    who: NodeId,
    snapshots: Snapshots,
    engine: Box<dyn Engine>,
    hands: Hands,
    device: Device,
    stage: Option<(StageState, Option<TokenShard>)>,
    /// What was encoded last, to cut pieces from.
    committed: Option<Committed>,
}

impl Worker {
    /// What came of a task, unless that is told later.
    fn perform(&mut self, ticket: u64, task: Task) -> Result<Option<Done>, TaskError> {
        Ok(Some(match task {
            Task::Adopt { run, stage, epoch, manifest, weights, momentum } => {
                self.adopt(&run, stage, (epoch, manifest), (weights, momentum))?
            }
            Task::Keep { epoch, manifest } => {
                self.keep(ticket, (epoch, manifest))?;
                return Ok(None);
            }
            Task::Perform { epoch, operation, inputs, state, keep_weights } => {
                self.operate(epoch, &operation, &inputs, state, keep_weights)?
            }
            Task::Cut { blocks } => {
                let piece = self.committed.as_ref().and_then(|committed| committed.piece(&blocks));
                let piece = piece.ok_or(TaskError::NoPiece { from: blocks.start, to: blocks.end })?;
                Done { output: Some(self.objects.put(piece.into())), ..nothing() }
            }
            Task::Explain { run, order, receipt, show } => self.explain(&run, &order, receipt, show)?,
            Task::Open { piece, from, root, blocks } => {
                let bytes = self.object(&piece)?;
                let opened = Piece::from_bytes(self.bits()?, self.state()?.parameters(), &bytes);
                let opens =
                    opened.is_ok_and(|piece| (piece.who, piece.root, piece.leaves) == (from, root, blocks));
                let output = opens.then_some(ObjectRef { digest: piece, bytes: bytes.len() as u64 });
                Done { output, ..nothing() }
            }
        }))
    }

    /// A window again, as it was performed on the day. What the stage held is not needed any more.
    fn explain(
        &mut self,
        run: &Run,
        order: &AuditOrder,
        receipt: Digest,
        show: Option<u32>,
    ) -> Result<Done, TaskError> {
        self.stage = None;
        let objects =
            order.objects().map(|object| self.object(&object.digest)).collect::<Result<Vec<_>, _>>()?;
        // A stage that reads no tokens does not miss them.
        let shard = self.objects.get(&run.data.train).unwrap_or_default();
        let asked = Asked { run, order, receipt, objects: &objects, shard: &shard, show };
        let mut engine = engine_of(self.hands.adversary);
        let mut performer =
            |state: &mut StageState,
             data: Option<&TokenShard>,
             epoch,
             operation: &Operation,
             inputs: &[&[u8]]| { engine.perform(state, data, epoch, operation, inputs) };
        let bytes = self.hands.answerer.answer(&asked, &mut performer).map_err(TaskError::NoAnswer)?;
        Ok(Done { output: Some(self.objects.put(bytes.into())), ..nothing() })
    }

    fn keep(&mut self, ticket: u64, opening: (u32, Digest)) -> Result<(), TaskError> {
        let (state, _) = self.stage.as_ref().ok_or(TaskError::NoStage)?;
        let events = self.events.clone();
        let tell = move |kept: Result<(), SnapshotError>| {
            let event = match kept {
                Ok(()) => Event::Done { ticket, done: nothing() },
                Err(why) => Event::TaskFailed { ticket, why: why.to_string() },
            };
            // Nobody listens any more once the miner has ended.
            let _ = events.blocking_send(event);
        };
        Ok(self.snapshots.write(state, opening, tell)?)
    }

    fn state(&self) -> Result<&StageState, TaskError> {
        self.stage.as_ref().map(|(state, _)| state).ok_or(TaskError::NoStage)
    }

    /// Bits of a code; none where nothing is encoded.
    fn bits(&self) -> Result<u8, TaskError> {
        Ok(match self.state()?.run().outer {
            Outer::None => 0,
            Outer::Nesterov { bits, .. } => bits,
        })
    }

    fn object(&self, digest: &Digest) -> Result<bytes::Bytes, TaskError> {
        self.objects.get(digest).ok_or(TaskError::Missing(*digest))
    }

    /// Stands where an epoch begins: in the state kept when it opened with this manifest, else in the fresh one. What was learnt
    /// besides the weights is kept only where a receipt binds it.
    fn adopt(
        &mut self,
        run: &Run,
        stage: u16,
        opening: (u32, Digest),
        (weights, momentum): (Digest, Option<Digest>),
    ) -> Result<Done, TaskError> {
        let (weights, stage) = (self.object(&weights)?, usize::from(stage));
        let momentum = momentum.map(|momentum| self.object(&momentum)).transpose()?;
        // Whatever was here before gives its memory back first; tokens serve one stage as long as it is held.
        let same = |state: &StageState| state.run() == run && state.stage().shape().index == stage;
        let data = self.stage.take().filter(|(state, _)| same(state)).and_then(|(_, data)| data);
        let state = match self.snapshots.read(run, stage, opening) {
            Some(kept) => kept,
            None => StageState::of_manifest(run, stage, &weights, momentum.as_deref())?,
        };
        let state = state.to_device(&self.device)?;
        let kind = state.stage().shape().kind;
        let reads = kind.embeds() || kind.judges();
        let data = match data {
            None if reads => Some(TokenShard::from_bytes(self.object(&run.data.train)?.into())?),
            data => data,
        };
        self.stage = Some((state, data));
        Ok(nothing())
    }

    fn operate(
        &mut self,
        epoch: u32,
        operation: &Operation,
        inputs: &[Digest],
        after: StateAfter,
        keep_weights: bool,
    ) -> Result<Done, TaskError> {
        let inputs = inputs.iter().map(|digest| self.object(digest)).collect::<Result<Vec<_>, _>>()?;
        let (state, data) = self.stage.as_mut().ok_or(TaskError::NoStage)?;
        let inputs: Vec<&[u8]> = inputs.iter().map(|bytes| &bytes[..]).collect();
        let mut done = self.engine.perform(state, data.as_ref(), epoch, operation, &inputs)?;
        let mut root = None;
        if let (Operation::Encode, Outer::Nesterov { bits, .. }, Some(bytes)) =
            (operation, &state.run().outer, done.output.take_if(|_| *operation == Operation::Encode))
        {
            let contribution = Contribution::from_bytes(*bits, state.parameters(), &bytes)?;
            let committed = Committed::new(contribution, self.who);
            root = Some(committed.root());
            self.committed = Some(committed);
        }
        let output = done.output.take().zip(done.output_digest);
        let mut keep = |bytes: Vec<u8>| self.objects.put(bytes.into());
        let weights = keep_weights.then(|| state.weights_bytes()).transpose()?;
        let momentum = if keep_weights { state.momentum_bytes()? } else { None };
        let (after, file) = match after {
            StateAfter::Untold => (None, None),
            StateAfter::Digest => (Some(state.state_digest()?), None),
            StateAfter::File => {
                let (parts, digest) = state.state_file()?;
                let parts = parts.into_iter().map(bytes::Bytes::from_owner).collect();
                (Some(digest), Some(self.objects.put_parts(digest, parts)))
            }
        };
        Ok(Done {
            output: output.map(|(bytes, digest)| self.objects.put_known(digest, bytes.into())),
            root,
            state: after,
            file,
            weights: weights.map(&mut keep),
            momentum: momentum.map(&mut keep),
            loss_q32: done.loss_q32,
            outcome: done.outcome,
        })
    }
}

fn nothing() -> Done {
    Done {
        output: None,
        root: None,
        state: None,
        file: None,
        weights: None,
        momentum: None,
        loss_q32: None,
        outcome: Outcome::Ok,
    }
}
