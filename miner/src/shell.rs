//! Clock, connection and engine around the core.

use crate::adversary::{Adversary, Deceitful};
use crate::answerer::Answerer;
use crate::worker::{self, Hands, Ticketed};
use miner_core::{Config, Effect, Event, Miner};
use spec::Operation;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;
use transport::Invitation;
use transport::drive::{Guest, Next, Shell};
use transport::node::{Arrival, JoinError, Node};
use wire::guest::GuestError;
use wire::{Carried, Key, Message};

/// How to run a miner.
pub struct Options {
    /// The invitation.
    pub invitation: Invitation,
    /// The node's key.
    pub key: Key,
    /// Where the state at the start of an epoch is kept, so that it outlives the process.
    pub state: PathBuf,
    /// Where it calls from and neighbours call; any free port when `None`.
    pub listen: Option<SocketAddr>,
    /// Where neighbours reach it; as far as it can find out where empty.
    pub reach: Vec<SocketAddr>,
    /// Where the engine computes.
    pub device: engine::Device,
    /// How it lies, in trials.
    pub adversary: Option<Adversary>,
    /// Who answers for it, should it be convicted.
    pub answerer: Arc<dyn Answerer>,
}

/// A miner that could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum MinerError {
    /// The orchestrator.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The engine's thread.
    #[error("the engine's thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// The device that it computed on: it has left the swarm, and may come back with another.
    #[error("{0}")]
    Device(String),
    /// What the core ended with.
    #[error("{0}")]
    Ended(GuestError),
}

/// Runs a miner until the run ends or `stop` completes; `tell` gets notes for its owner. Returns why it
/// ended.
///
/// # Errors
/// When it cannot join, is refused, or loses the orchestrator or its device.
pub async fn run(
    options: Options,
    stop: impl Future<Output = ()> + Send + 'static,
    tell: impl FnMut(&str) + Send + 'static,
) -> Result<String, MinerError> {
    let Options { invitation, key, state, listen, reach, device, adversary, answerer } = options;
    let stop = (stop, Event::Leave);
    let guest = Guest::join(&invitation, listen, &key, translate, Event::Connected, stop).await?;
    let (tasks, todo) = mpsc::unbounded_channel();
    let lost = Arc::new(OnceLock::new());
    let ended = |exit: Result<String, GuestError>| match lost.get() {
        // What it said to the swarm is the same, in the core's words.
        Some(why) if exit.is_err() => Err(MinerError::Device(String::clone(why))),
        _ => exit.map_err(MinerError::Ended),
    };
    std::thread::Builder::new()
        .name("engine".into())
        .spawn({
            let (objects, events, who) = (guest.node.objects().clone(), guest.events.clone(), key.id());
            let lost = lost.clone();
            let hands = Hands { adversary, answerer };
            move || worker::work(todo, objects, events, who, state, hands, (device, lost))
        })
        .map_err(MinerError::Thread)?;
    let software = concat!("iota ", env!("CARGO_PKG_VERSION"));
    let node = guest.node.clone();
    let config = Config::new(key.clone(), invitation.orchestrator, invitation.token, software);
    let reachable = Some(if reach.is_empty() { node.addresses() } else { reach });
    let core = Miner::new(Config { reachable, ..config });
    let mut shell = MinerShell { node, tasks, tell: Box::new(tell), exit: Ok(String::new()) };
    let Some(adversary) = adversary else {
        guest.drive(core, &mut shell, "the miner ended").await;
        return ended(shell.exit);
    };
    let mut shell = Deceitful { honest: shell, adversary, key };
    guest.drive(core, &mut shell, "the miner ended").await;
    ended(shell.honest.exit)
}

/// What happens to a node, as the core says it.
fn translate(arrival: Arrival) -> Option<Event> {
    Some(match arrival {
        Arrival::Message(message) => Event::Message(message),
        Arrival::Payload { head, block } => {
            tracing::trace!("got {head}");
            Event::Payload { head, block }
        }
        Arrival::Part { head, block } => Event::Part { head, block },
        Arrival::Fetched(digest) => Event::Fetched { digest },
        Arrival::Uploaded(digest) => Event::Uploaded { digest },
        Arrival::StoreFailed { digest, why, .. } => Event::StoreFailed { digest, why },
        Arrival::Connected => Event::Connected,
        Arrival::Disconnected { why } => Event::Disconnected { why },
        Arrival::RouteLost(node) => Event::RouteLost(node),
    })
}

struct MinerShell {
    node: Node<Event>,
    tasks: mpsc::UnboundedSender<Ticketed>,
    tell: Box<dyn FnMut(&str) + Send>,
    exit: Result<String, GuestError>,
}

impl MinerShell {
    /// Says something to the orchestrator; with every inner step and merge, what went past it.
    async fn say(&mut self, message: Message) {
        let counts = match &message {
            Message::Merged(_) => true,
            Message::Receipt(receipt) => matches!(receipt.body.operation, Operation::Step { .. }),
            _ => false,
        };
        self.node.send(message).await;
        let carried = if counts { self.node.carried() } else { Carried::default() };
        if carried != Carried::default() {
            self.node.send(Message::Carried(carried)).await;
        }
    }
}

impl Shell<Miner> for MinerShell {
    // No journal: a miner's journal is its receipts, which the orchestrator holds; its own comes with restarts.
    type Error = Infallible;

    async fn perform(&mut self, _now_ms: u64, effect: Effect) -> Result<Next, Infallible> {
        match effect {
            Effect::Send(message) => self.say(message).await,
            Effect::SendPayload { to, head, block } => {
                // Packing it here would hold up the engine, whose next task is among the effects that follow.
                self.node.post_object(to, Message::Payload(head), &block).await;
            }
            Effect::SendPart { to, head, block } => {
                self.node.send_object(to, Message::Part(head), &block).await;
            }
            Effect::Fetch { object, request } => self.node.fetch(object, request),
            Effect::Upload { object, request } => self.node.upload(object, request),
            Effect::Compute { ticket, task } => {
                // The queue's other end lives as long as the engine's thread, which only a send can end.
                let _ = self.tasks.send((ticket, task));
            }
            Effect::Forget(digest) => self.node.objects().forget(&digest),
            Effect::Neighbours(neighbours) => self.node.set_neighbours(neighbours),
            Effect::CallAgain { after_ms } => self.node.call_again(Duration::from_millis(after_ms)),
            Effect::WakeAt(at_ms) => return Ok(Next::WakeAt(at_ms)),
            Effect::Note(text) => (self.tell)(&text),
            Effect::Exit(exit) => {
                self.exit = exit;
                return Ok(Next::Stop);
            }
        }
        Ok(Next::Continue)
    }

    fn woken(&mut self) -> Event {
        Event::Woke
    }
}
