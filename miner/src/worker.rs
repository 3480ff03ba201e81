//! The engine's thread: one task after another, in the order they were given.

use crate::adversary::Engine;
use crate::snapshots::{SnapshotError, Snapshots};
use engine::checkpoint::CheckpointError;
use engine::contribution::{Committed, Contribution, ContributionError, Piece};
use engine::data::TokenShard;
use engine::state::StageState;
use engine::work::WorkError;
use engine::{Device, DeviceError};
use miner_core::{Done, Event, Task};
use spec::{Digest, NodeId, Operation, Outcome, Outer, Run};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;
use transport::node::Objects;
use wire::ObjectRef;

/// A ticket and its task.
pub type Ticketed = (u64, Task);

/// Does tasks until the queue's senders are gone; in `lost`, what the device failed with, if it did. Runs on a thread of its own.
pub fn work(
    mut tasks: mpsc::UnboundedReceiver<Ticketed>,
    objects: Objects,
    events: mpsc::Sender<Event>,
    who: NodeId,
    place: PathBuf,
    engine: Box<dyn Engine>,
    (device, lost): (Device, Arc<OnceLock<String>>),
) {
    let snapshots = Snapshots::at(place);
    let mut worker =
        Worker { objects, who, snapshots, engine, device, stage: None, committed: None, begun: None };
    while let Some((ticket, task)) = tasks.blocking_recv() {
        // A panic is a bug of ours; the swarm must still hear that this work will not come.
        let event = match catch_unwind(AssertUnwindSafe(|| worker.perform(task))) {
            Ok(Ok(done)) => Event::Done { ticket, done },
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
    who: NodeId,
    snapshots: Snapshots,
    engine: Box<dyn Engine>,
    device: Device,
    stage: Option<(StageState, Option<TokenShard>)>,
    /// What was encoded last, to cut pieces from.
    committed: Option<Committed>,
    /// The last epoch whose beginning was kept.
    begun: Option<u32>,
}

impl Worker {
    fn perform(&mut self, task: Task) -> Result<Done, TaskError> {
        match task {
            Task::Adopt { run, stage, epoch, weights, momentum } => {
                self.adopt(&run, stage, epoch, &weights, momentum)
            }
            Task::Keep { epoch } => {
                self.begun = Some(epoch);
                self.snapshots.write(self.state()?, epoch)?;
                Ok(nothing())
            }
            Task::Perform { epoch, operation, inputs, keep_state, keep_weights } => {
                self.operate(epoch, &operation, &inputs, keep_state, keep_weights)
            }
            Task::Cut { blocks } => {
                let piece = self.committed.as_ref().and_then(|committed| committed.piece(&blocks));
                let piece = piece.ok_or(TaskError::NoPiece { from: blocks.start, to: blocks.end })?;
                Ok(Done { output: Some(self.objects.put(piece.into())), ..nothing() })
            }
            Task::Open { piece, from, root, blocks } => {
                let bytes = self.object(&piece)?;
                let opened = Piece::from_bytes(self.bits()?, self.state()?.parameters(), &bytes);
                let opens =
                    opened.is_ok_and(|piece| (piece.who, piece.root, piece.leaves) == (from, root, blocks));
                let output = opens.then_some(ObjectRef { digest: piece, bytes: bytes.len() as u64 });
                Ok(Done { output, ..nothing() })
            }
        }
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

    /// Stands where an epoch begins: in the state kept then, else with newer weights of the stage it has, which keeps
    /// its optimizer, else with weights alone: what was learnt in epochs that are undone is not kept.
    fn adopt(
        &mut self,
        run: &Run,
        stage: u16,
        epoch: u32,
        digest: &Digest,
        momentum: Option<Digest>,
    ) -> Result<Done, TaskError> {
        let (weights, stage) = (self.object(digest)?, usize::from(stage));
        let momentum = momentum.map(|momentum| self.object(&momentum)).transpose()?;
        let kept = self.snapshots.read(run, stage, epoch, *digest);
        let back = self.begun.is_some_and(|begun| epoch < begun);
        let same = |state: &StageState| state.run() == run && state.stage().shape().index == stage;
        if let Some((mut state, data)) = self.stage.take_if(|(state, _)| same(state)) {
            if kept.is_none() && !back {
                state.adopt(&weights)?;
            } else {
                // Its memory is what the other takes.
                drop(state);
                let fresh = match kept {
                    Some(kept) => kept,
                    None => StageState::from_weights(run, stage, &weights)?,
                };
                state = fresh.to_device(&self.device)?;
            }
            adopt_momentum(&mut state, momentum.as_deref())?;
            self.stage = Some((state, data));
            return Ok(nothing());
        }
        // Whatever was here before gives its memory back first.
        self.stage = None;
        let state = match kept {
            Some(kept) => kept,
            None => StageState::from_weights(run, stage, &weights)?,
        };
        let mut state = state.to_device(&self.device)?;
        adopt_momentum(&mut state, momentum.as_deref())?;
        let kind = state.stage().shape().kind;
        let data = if kind.embeds() || kind.judges() {
            Some(TokenShard::from_bytes(self.object(&run.data.train)?.into())?)
        } else {
            None
        };
        self.stage = Some((state, data));
        Ok(nothing())
    }

    fn operate(
        &mut self,
        epoch: u32,
        operation: &Operation,
        inputs: &[Digest],
        keep_state: bool,
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
        let mut keep = |bytes: Vec<u8>| self.objects.put(bytes.into());
        let weights = keep_weights.then(|| state.weights_bytes()).transpose()?;
        let momentum = if keep_weights { state.momentum_bytes()? } else { None };
        let file = keep_state.then(|| state.state_bytes()).transpose()?;
        Ok(Done {
            output: done.output.take().map(&mut keep),
            root,
            state: file.map(&mut keep),
            weights: weights.map(&mut keep),
            momentum: momentum.map(&mut keep),
            loss_q32: done.loss_q32,
            outcome: done.outcome,
        })
    }
}

fn adopt_momentum(state: &mut StageState, momentum: Option<&[u8]>) -> Result<(), TaskError> {
    Ok(momentum.map_or(Ok(()), |bytes| state.adopt_momentum(bytes))?)
}

fn nothing() -> Done {
    Done {
        output: None,
        root: None,
        state: None,
        weights: None,
        momentum: None,
        loss_q32: None,
        outcome: Outcome::Ok,
    }
}
