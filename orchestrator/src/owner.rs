//! What a run's owner does beside its orchestrator: invite, and take the run back to an earlier epoch.

use crate::folder::{FolderError, RunFolder};
use crate::journal::{JOURNAL, Journal, JournalError};
use crate::lead::{Lead, LeadError, Settings};
use crate::pointer::{move_pointer, pointer_name};
use orchestrator_core::{Effect, Event};
use spec::Admission;
use std::time::Duration;
use store::{S3, S3Config};
use transport::invitation::{InvitationError, read_place};
use transport::{Endpoint, Invitation, Received, TransportError};
use wire::{Command, Frame, Machine, Message, Terms};

/// The file of a run's folder that says where nodes call its orchestrator.
pub(crate) const ADDRESS: &str = "address";
/// How long an orchestrator may take to answer a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the owner wants and cannot have.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The run's folder.
    #[error(transparent)]
    Lead(#[from] LeadError),
    /// A file of it.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] InvitationError),
    /// An address that nobody can call.
    #[error(
        "{place} stands for every address of this machine: say with --address at which of them nodes reach it"
    )]
    Unspecified {
        /// The address.
        place: String,
    },
    /// A run that never listened.
    #[error(
        "this run has not been led yet, so nobody knows its address: say with --address HOST:PORT where it will listen"
    )]
    NoAddress,
    /// Terms where no token is looked at.
    #[error("this run admits keys by its list, not invitations: leave --role and --expires out")]
    ByKey,
    /// A run without an event.
    #[error("this run has not begun: there is nothing to go back from")]
    NotBegun,
    /// The connection to the orchestrator.
    #[error("the run's orchestrator: {0}")]
    Transport(#[from] TransportError),
    /// No answer.
    #[error("the run's orchestrator did not answer within {} s: look at what it is doing", ANSWER_TIMEOUT.as_secs())]
    Silent,
    /// The core's refusal.
    #[error("the run does not go back: {0}")]
    Refused(String),
    /// The store.
    #[error("the run goes back when it is led again, but its pointer could not be moved yet: {0}")]
    Store(String),
}

/// An invitation to a run; `address` where it has none yet, or is reached at another.
///
/// # Errors
/// A folder that holds no run, an address that leads nowhere, terms that this run does not look at.
pub fn invite(folder: &RunFolder, address: Option<&str>, terms: Terms) -> Result<Invitation, OwnerError> {
    let lead = Lead::read(folder)?;
    let has_terms = terms != Terms::default();
    let token = match lead.run.admission {
        Admission::Keys(_) if has_terms => return Err(OwnerError::ByKey),
        Admission::Keys(_) => Vec::new(),
        _ if has_terms => terms.token(&lead.secret, &lead.run.id()),
        _ => lead.token,
    };
    let place = match address {
        Some(address) => address.to_owned(),
        None => called_at(folder)?,
    };
    let (host, port) = read_place(&place)?;
    if host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err(OwnerError::Unspecified { place });
    }
    Ok(Invitation { host, port, orchestrator: lead.key.id(), token })
}

/// Takes a run back to the opening of an epoch (`None`: the newest that is stable), whether it is led just now or not;
/// what was done, in one sentence. Where nobody leads it the pointer is moved in `store`, which is not asked for before;
/// what comes with it is kept until then.
///
/// # Errors
/// When there is no such epoch to go back to, or the orchestrator or the store cannot be reached.
pub async fn roll_back<K>(
    folder: &RunFolder,
    to: Option<u32>,
    store: impl AsyncFn() -> Result<(S3Config, K), String>,
) -> Result<String, OwnerError> {
    let lead = Lead::read(folder)?;
    let path = folder.path(JOURNAL);
    if !path.exists() {
        return Err(OwnerError::NotBegun);
    }
    match Journal::open(&path) {
        Err(JournalError::InUse { .. }) => command(folder, &lead, to).await,
        Err(error) => Err(error.into()),
        Ok((journal, history)) if history.is_empty() => {
            drop(journal);
            Err(OwnerError::NotBegun)
        }
        Ok((mut journal, history)) => {
            let replayed = |_, _| Ok::<(), OwnerError>(());
            let (mut core, now_ms) = lead.resume(Settings::noted(folder)?, history, replayed)?;
            let owner = lead.key.id();
            let mut event =
                Event::Message { from: owner, message: Message::Command(Command::RollBack { to }) };
            let mut done = None;
            // What the core wants of its nodes it wants again when it is led again; the pointer can move now.
            loop {
                let effects = core.handle(now_ms, event.clone());
                let answer = effects.iter().find_map(|effect| match effect {
                    Effect::Send { message: Message::Answered(answer), .. } => Some(answer.clone()),
                    _ => None,
                });
                if let Some(answer) = answer {
                    done = Some(answer.map_err(OwnerError::Refused)?);
                }
                journal.append(now_ms, &event)?;
                journal.commit()?;
                let moves = effects.into_iter().find_map(|effect| match effect {
                    Effect::MovePointer { from, to } => Some((from, to)),
                    _ => None,
                });
                let Some((from, to)) = moves else { break };
                let name = pointer_name(&lead.run.id());
                let (store, _kept) = store().await.map_err(OwnerError::Store)?;
                let store = S3::new(store).map_err(|error| OwnerError::Store(error.to_string()))?;
                let moved = move_pointer(&store, &name, from, to).await;
                moved.map_err(|error| OwnerError::Store(error.to_string()))?.map_err(OwnerError::Store)?;
                event = Event::PointerMoved { manifest: to };
            }
            Ok(format!("{}; lead it again with `iota orchestrator`", done.unwrap_or_default()))
        }
    }
}

/// Says it to the orchestrator that leads the run, with its own key.
async fn command(folder: &RunFolder, lead: &Lead, to: Option<u32>) -> Result<String, OwnerError> {
    let (host, port) = read_place(&called_at(folder)?)?;
    let owner = lead.key.id();
    let place = Invitation { host, port, orchestrator: owner, token: Vec::new() }.resolve().await?;
    let connection = Endpoint::connect(place, owner, &lead.key, transport::Config::default()).await?;
    connection.send(Frame::new(owner, Message::Command(Command::RollBack { to }))).await?;
    let answer = async {
        loop {
            if let Received::Frame(Frame { message: Message::Answered(answer), .. }) =
                connection.recv().await?
            {
                return answer.map_err(OwnerError::Refused);
            }
        }
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| OwnerError::Silent)?;
    connection.close("the owner has its answer").await;
    answer
}

/// Where nodes call the run's orchestrator, or did when it was last led.
pub(crate) fn called_at(folder: &RunFolder) -> Result<String, OwnerError> {
    let path = folder.path(ADDRESS);
    match std::fs::read_to_string(&path) {
        Ok(place) => Ok(place.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OwnerError::NoAddress),
        Err(source) => Err(FolderError::Io { path, source }.into()),
    }
}
