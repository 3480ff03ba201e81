//! Clock, connection and engine around the core.

use crate::replay::{Window, replay};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use transport::Invitation;
use transport::drive::{Clock, Next, Shell, drive};
use transport::node::{Arrival, JoinError, Node};
use validator_core::{Config, Effect, Event, Validator};
use wire::Key;

/// Events that may wait for the core.
const EVENT_QUEUE: usize = 1024;

/// How to run a validator.
pub struct Options {
    /// The invitation.
    pub invitation: Invitation,
    /// The node's key.
    pub key: Key,
}

/// A validator that could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ValidatorError {
    /// The orchestrator.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// What the core ended with.
    #[error("{0}")]
    Ended(String),
}

/// Runs a validator until the run ends or `stop` completes; `tell` gets notes for its owner. Returns why
/// it ended.
///
/// # Errors
/// When it cannot join, is refused, or loses the orchestrator.
pub async fn run(
    options: Options,
    stop: impl Future<Output = ()> + Send + 'static,
    tell: impl FnMut(&str) + Send + 'static,
) -> Result<String, ValidatorError> {
    let (events, queue) = mpsc::channel(EVENT_QUEUE);
    let config = transport::Config::default();
    let node = Node::join(&options.invitation, &options.key, config, events.clone(), translate).await?;
    let stopper = tokio::spawn({
        let events = events.clone();
        async move {
            stop.await;
            let _ = events.send(Event::Leave).await;
        }
    });
    let core = Validator::new(Config::new(
        options.key,
        options.invitation.orchestrator,
        options.invitation.token,
        concat!("iota ", env!("CARGO_PKG_VERSION")),
    ));
    let _ = events.send(Event::Connected).await;
    let mut shell =
        ValidatorShell { node: node.clone(), events, tell: Box::new(tell), exit: Ok(String::new()) };
    let driven = drive(core, queue, &mut shell, Clock::starting_at(0)).await;
    stopper.abort();
    node.leave("the validator ended").await;
    match driven {
        Ok(_) => shell.exit.map_err(ValidatorError::Ended),
        Err(never) => match never {},
    }
}

/// What happens to a node, as the core says it.
fn translate(arrival: Arrival) -> Option<Event> {
    Some(match arrival {
        Arrival::Message(message) => Event::Message(message),
        Arrival::Fetched(digest) => Event::Fetched { digest },
        Arrival::StoreFailed { digest, missing, why } => Event::StoreFailed { digest, missing, why },
        Arrival::Connected => Event::Connected,
        Arrival::Disconnected { why } => Event::Disconnected { why },
        // A validator's inputs come from the store, and it uploads nothing.
        Arrival::Payload { .. } | Arrival::Part { .. } | Arrival::Uploaded(_) => return None,
    })
}

struct ValidatorShell {
    node: Node<Event>,
    events: mpsc::Sender<Event>,
    tell: Box<dyn FnMut(&str) + Send>,
    exit: Result<String, String>,
}

impl Shell<Validator> for ValidatorShell {
    // No journal: what a validator found is signed and with the orchestrator; nothing of it must outlive the process.
    type Error = Infallible;

    async fn perform(&mut self, _now_ms: u64, effect: Effect) -> Result<Next, Infallible> {
        match effect {
            Effect::Send(message) => self.node.send(message).await,
            Effect::Fetch { object, request } => self.node.fetch(object, request),
            Effect::Replay { run, stage, epoch, state, operations } => {
                let (objects, events) = (self.node.objects().clone(), self.events.clone());
                let window = Window { run, stage, epoch, state, operations };
                tokio::spawn(async move {
                    // Off the runtime's threads, which other tasks need.
                    let replayed = tokio::task::spawn_blocking(move || replay(&window, &objects)).await;
                    let event = replayed.unwrap_or_else(|panic| {
                        let why = format!("the replay panicked, which is a bug: {panic}");
                        Event::StoreFailed { digest: state, missing: false, why }
                    });
                    let _ = events.send(event).await;
                });
            }
            Effect::Forget(digest) => self.node.objects().forget(&digest),
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
