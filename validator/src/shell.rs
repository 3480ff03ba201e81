//! Clock, connection and engine around the core.

use crate::adversary::{Adversary, Deceitful};
use crate::replay::{Window, Workplace, fresh_state};
use crate::sums;
use spec::Digest;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use transport::Invitation;
use transport::drive::{Guest, Next, Shell};
use transport::node::{Arrival, JoinError, Node};
use validator_core::{Addition, Config, Effect, Event, Validator};
use wire::Key;
use wire::guest::GuestError;

/// How to run a validator.
pub struct Options {
    /// The invitation.
    pub invitation: Invitation,
    /// The node's key.
    pub key: Key,
    /// Where the engine computes.
    pub device: engine::Device,
    /// Whether the CPU takes its place once it fails.
    pub falls_back: bool,
    /// How it lies, in trials.
    pub adversary: Option<Adversary>,
}

/// A validator that could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ValidatorError {
    /// The orchestrator.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// What the core ended with.
    #[error("{0}")]
    Ended(GuestError),
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
    let Options { invitation, key, device, falls_back, adversary } = options;
    let stop = (stop, Event::Leave);
    let guest = Guest::join(&invitation, None, &key, translate, Event::Connected, stop).await?;
    let software = concat!("iota ", env!("CARGO_PKG_VERSION"));
    let core = Validator::new(Config::new(key.clone(), invitation.orchestrator, invitation.token, software));
    let (node, events) = (guest.node.clone(), guest.events.clone());
    let workplace = Arc::new(Workplace::new(device, falls_back));
    let tell = Arc::new(Mutex::new(tell));
    let mut shell = ValidatorShell { node, events, workplace, tell, exit: Ok(String::new()) };
    let Some(adversary) = adversary else {
        guest.drive(core, &mut shell, "the validator ended").await;
        return shell.exit.map_err(ValidatorError::Ended);
    };
    let mut shell = Deceitful { honest: shell, adversary, key, asked: VecDeque::new() };
    guest.drive(core, &mut shell, "the validator ended").await;
    shell.honest.exit.map_err(ValidatorError::Ended)
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
        Arrival::Payload { .. } | Arrival::Part { .. } | Arrival::Uploaded(_) | Arrival::RouteLost(_) => {
            return None;
        }
    })
}

/// Hears notes for the owner, from replays too.
type Tell = Arc<Mutex<dyn FnMut(&str) + Send>>;

fn say(tell: &Tell, text: &str) {
    (*tell.lock().unwrap_or_else(PoisonError::into_inner))(text);
}

struct ValidatorShell {
    node: Node<Event>,
    events: mpsc::Sender<Event>,
    workplace: Arc<Workplace>,
    tell: Tell,
    exit: Result<String, GuestError>,
}

impl Shell<Validator> for ValidatorShell {
    // No journal: what a validator found is signed and with the orchestrator; nothing of it must outlive the process.
    type Error = Infallible;

    async fn perform(&mut self, _now_ms: u64, effect: Effect) -> Result<Next, Infallible> {
        match effect {
            Effect::Send(message) => self.node.send(message).await,
            Effect::Fetch { object, request } => self.node.fetch(object, request),
            Effect::Replay { run, stage, epoch, state, weights, miner, anchor, operations } => {
                let (objects, events) = (self.node.objects().clone(), self.events.clone());
                let (workplace, tell) = (self.workplace.clone(), self.tell.clone());
                let window = Window { run, stage, epoch, state, weights, miner, anchor, operations };
                tokio::spawn(async move {
                    // Off the runtime's threads, which other tasks need.
                    let replayed = tokio::task::spawn_blocking(move || {
                        workplace.replay(&window, &objects, |note| say(&tell, note))
                    })
                    .await;
                    let event = replayed.unwrap_or_else(|panic| {
                        let why = format!("the replay panicked, which is a bug: {panic}");
                        Event::StoreFailed { digest: state, missing: false, why }
                    });
                    let _ = events.send(event).await;
                });
            }
            Effect::Build { run, stage, weights, momentum } => {
                let (objects, events) = (self.node.objects().clone(), self.events.clone());
                let object = move |digest: &Digest| {
                    objects.get(digest).ok_or_else(|| "it is not in this node's table of objects".to_owned())
                };
                let build = move || {
                    let momentum = momentum.as_ref().map(&object).transpose()?;
                    let built = fresh_state(&run, stage, &object(&weights)?, momentum.as_deref());
                    built.map_err(|error| error.to_string())
                };
                tokio::spawn(async move {
                    let built = tokio::task::spawn_blocking(build).await;
                    let event = match built.unwrap_or_else(|panic| Err(format!("a bug: {panic}"))) {
                        Ok(state) => Event::Built { state },
                        // What a manifest names is nobody's claim: trouble of this machine or of the store.
                        Err(why) => Event::StoreFailed { digest: weights, missing: false, why },
                    };
                    let _ = events.send(event).await;
                });
            }
            Effect::AddUp { run, stage, blocks, roots, pieces } => {
                let (objects, events) = (self.node.objects().clone(), self.events.clone());
                tokio::spawn(async move {
                    let addition = Addition { blocks, roots };
                    let pieces: Option<Vec<_>> = pieces.iter().map(|piece| objects.get(piece)).collect();
                    let added = tokio::task::spawn_blocking(move || {
                        pieces.and_then(|pieces| sums::add_up(&run, stage, &addition, &pieces))
                    });
                    // A panic is a bug of this program, and convicts nobody: the pieces of somebody else may do.
                    let sum = added.await.unwrap_or_default();
                    let _ = events.send(Event::AddedUp { sum }).await;
                });
            }
            Effect::Forget(digest) => self.node.objects().forget(&digest),
            Effect::CallAgain { after_ms } => self.node.call_again(Duration::from_millis(after_ms)),
            Effect::WakeAt(at_ms) => return Ok(Next::WakeAt(at_ms)),
            Effect::Note(text) => say(&self.tell, &text),
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
