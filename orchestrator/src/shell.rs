//! Clock, sockets, disk and store around the core.

use crate::dashboard::{self, Place, Shared};
use crate::disk::{Wait, is_full};
use crate::folder::{FolderError, RunFolder};
use crate::journal::{JOURNAL, Journal, JournalError};
use crate::judge::{self, Judge, Narrower};
use crate::lead::{Lead, LeadError, Settings, listen_again};
use crate::ledger::{LedgerFile, LedgerFileError};
use crate::notice::Notice;
use crate::owner::ADDRESS;
use crate::pointer::{move_pointer, pointer_name};
use crate::pump;
use crate::replayed::{Replayed, case_name, tile_name};
use crate::view::View;
use bytes::Bytes;
use credit::Rule;
use orchestrator_core::{Effect, Ending, Event, Orchestrator, Report};
use spec::{Digest, NodeId, Run};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::retry::patiently;
use store::{Presign, S3, S3Config, Store};
use tokio::sync::{mpsc, watch};
use transport::drive::{Clock, Next, Shell, drive};
use transport::{Hub, Invitation};
use wire::{Ask, Frame, Grant, Key, Message, ObjectRef, Signed, Trace, Verb};

/// Prefix of every content-addressed object.
pub(crate) const OBJECTS: &str = "objects";
/// How long a presigned request holds.
const GRANT_VALID: Duration = Duration::from_secs(300);
/// Silence after which a node counts as lost: a dead miner's work must be elsewhere within 2 s. One that lives calls
/// again and goes on.
const LOST_AFTER: Duration = Duration::from_millis(1400);
/// How long a store that is away is asked again. An epoch that does not come to its end ends the run a little later.
pub(crate) const STORE_PATIENCE: Duration = Duration::from_secs(100);
/// Events that may wait for the core.
const EVENT_QUEUE: usize = 1024;

/// How to run an orchestrator.
pub struct Options {
    /// The run's folder.
    pub folder: RunFolder,
    /// Where to listen for nodes (UDP).
    pub listen: SocketAddr,
    /// The host that invitations name; the listening address when `None`.
    pub advertise: Option<String>,
    /// The store.
    pub store: S3Config,
    /// Validators that must be there before work begins.
    pub validators: u16,
    /// Miners of each stage that must be there before work begins; 0 for as many as run.toml says.
    pub lanes_at_start: u16,
    /// Until a lost node must be back that nobody stands in for.
    pub seat_grace: Duration,
    /// Where to serve the dashboard.
    pub dashboard: Place,
    /// Until a miner that is there must have revealed a drawn window.
    pub reveal_within: Duration,
    /// Bytes/s of the slowest uplink that a miner may have: what a drawn window binds is given time for its bytes besides.
    pub uplink_bytes_per_s: u64,
    /// Once half of the lanes are through an epoch, the others have so many percent of that time more; 0 waits for all.
    pub lane_patience_percent: u16,
    /// Whether the miners of a route are others in every epoch.
    pub mixes_routes: bool,
    /// Whether miners are told where their neighbours can be reached.
    pub direct: bool,
    /// Who checks what a validator found wrong.
    pub judge: Arc<dyn Judge>,
}

/// An orchestrator that could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum OrchestratorError {
    /// The run's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store.
    #[error("the store at {endpoint}: {source}")]
    Store {
        /// Where.
        endpoint: String,
        /// What it said.
        source: store::Error,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerFileError),
    /// The socket.
    #[error(transparent)]
    Transport(#[from] transport::TransportError),
    /// A disk that stayed full.
    #[error(
        "{path}: the disk is full; make room, then start the orchestrator again: it goes on where it stands"
    )]
    Full {
        /// What could not be written there.
        path: PathBuf,
    },
    /// A run that has ended.
    #[error(
        "{path}: this run has ended; `iota rollback` takes it back to an earlier epoch, `iota run new` makes a new one"
    )]
    Over {
        /// The journal.
        path: PathBuf,
    },
    /// A run that this version cannot lead.
    #[error(transparent)]
    Lead(#[from] LeadError),
    /// The dashboard's address.
    #[error("{0}")]
    Dashboard(String),
    /// The metrics file.
    #[error("{path}: {source}")]
    Metrics {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl OrchestratorError {
    /// What could not be written, if that is for want of room.
    pub(crate) fn lacks_room(&self) -> Option<&Path> {
        match self {
            Self::Journal(JournalError::Full { path }) => Some(path),
            Self::Ledger(LedgerFileError::Io { path, source })
            | Self::Folder(FolderError::Io { path, source })
                if is_full(source) =>
            {
                Some(path)
            }
            _ => None,
        }
    }
}

/// Runs an orchestrator until the run ends or `stop` completes; `tell` gets every notice.
///
/// # Errors
/// When it cannot start, or its journal can no longer be written.
pub async fn run(
    options: Options,
    stop: impl Future<Output = ()> + Send + 'static,
    tell: impl FnMut(&Notice) + Send + 'static,
) -> Result<Ending, OrchestratorError> {
    let folder = options.folder;
    let lead = Lead::read(&folder)?;
    let (run, key, manifest) = (lead.run.clone(), lead.key.clone(), lead.manifest.clone());
    let journal_path = folder.path(JOURNAL);
    let (journal, history) = Journal::open(&journal_path)?;
    let settings = Settings {
        validators: options.validators,
        lanes_at_start: options.lanes_at_start,
        mixes_routes: options.mixes_routes,
        direct: options.direct,
        seat_grace_ms: milliseconds(options.seat_grace),
        reveal_ms: milliseconds(options.reveal_within),
        uplink_bytes_per_s: options.uplink_bytes_per_s,
        lane_patience_percent: options.lane_patience_percent,
    };
    let (began, resumes) = (Instant::now(), !history.is_empty());
    let settings = settings.of_run(&folder, resumes)?;
    let mut ledger = LedgerFile::open(&folder.path("ledger"), credit_rule(&folder)?)?;
    let (events_before, replayed) = (history.events(), history.entries.len());
    let passed_over = history.passed_over.clone();
    let mut view =
        history.standing.as_ref().map_or_else(|| View::new(&run), |standing| standing.view.clone());
    let mut replay =
        Replayed { folder: &folder, key: &key, run: run.id(), ledger: &mut ledger, view: &mut view };
    let (core, now_ms) = lead.resume(settings, history, |ms, effect| replay.take(ms, effect))?;
    if core.is_over() {
        return Err(OrchestratorError::Over { path: journal_path });
    }

    // The store comes before the socket: whoever joins can be served.
    let endpoint = options.store.endpoint.clone();
    let needed = manifest.body.stages.iter().map(|stage| stage.weights.digest);
    let needed: Vec<Digest> = needed.chain([run.data.train, run.data.validation]).collect();
    let objects = folder.objects(&needed)?;
    let store = open_store(options.store, &objects, &run).await?;
    let liveness = transport::Config { lost_after: LOST_AFTER, ..transport::Config::default() };
    let hub = Arc::new(listen_again(&folder, options.listen, &key, liveness)?);
    let address = hub.local_addr();
    let invitation = Invitation {
        host: options.advertise.unwrap_or_else(|| address.ip().to_string()),
        port: address.port(),
        orchestrator: key.id(),
        token: lead.token,
    };
    folder.write(ADDRESS, invitation.place().as_bytes(), false)?;

    let metrics_path = folder.path("metrics.jsonl");
    let metrics = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&metrics_path)
        .map_err(|source| OrchestratorError::Metrics { path: metrics_path, source })?;
    let view = Shared::new(view);
    let dashboard =
        dashboard::serve(options.dashboard, view.clone()).await.map_err(OrchestratorError::Dashboard)?;
    let (events, queue) = mpsc::channel(EVENT_QUEUE);
    let (stop_asked, stop_heard) = watch::channel(false);
    let clock = Clock::starting_at(now_ms);
    let store = Arc::new(store);
    let mut shell = OrchestratorShell {
        hub: hub.clone(),
        narrower: Narrower::new(options.judge.clone(), store.clone(), folder.path("evidence")),
        store,
        judge: options.judge,
        pointer: pointer_name(&run.id()),
        folder,
        journal,
        ledger,
        key,
        run: run.id(),
        events: events.clone(),
        clock,
        metrics,
        view,
        tell: Box::new(tell),
        ending: Ending::Stopped,
        stop: stop_heard,
        committed: false,
    };
    shell.notice(Notice::Listening { invitation: invitation.to_string(), store: endpoint });
    if let Some(dashboard) = &dashboard {
        shell.notice(Notice::Dashboard { url: dashboard.url.clone() });
    }
    if resumes {
        for why in passed_over {
            shell.note(format!("the journal passes over {why}; it goes on from what came before that"));
        }
        let took_ms = began.elapsed().as_millis() as u64;
        shell.notice(Notice::Resumed { entries: events_before, replayed, took_ms });
    }
    // Before anything that nodes say, which are calling already: who came earlier would count as lost with the rest.
    let _ = events.send(if resumes { Event::Resumed } else { Event::Started }).await;
    // The pumps end with the drive: they hold the queue's senders and are aborted below.
    let pump = tokio::spawn(pump::pump(hub.clone(), events.clone()));
    let stopper = tokio::spawn({
        let events = events.clone();
        async move {
            stop.await;
            // Heard also while the disk is waited for and no event is.
            let _ = stop_asked.send(true);
            let _ = events.send(Event::Stop).await;
        }
    });
    let driven = drive(core, queue, &mut shell, clock).await;
    pump.abort();
    stopper.abort();
    hub.shut_down("the run ended").await;
    driven?;
    let ending = shell.ending.clone();
    shell.notice(Notice::Ended { ending: ending.clone() });
    Ok(ending)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How work is valued: `credit.toml` in the run's folder, or the default.
fn credit_rule(folder: &RunFolder) -> Result<Rule, OrchestratorError> {
    let path = folder.path("credit.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Rule::default()),
        Err(source) => return Err(FolderError::Io { path, source }.into()),
    };
    let bad = |why: String| FolderError::Bad { path: path.clone(), why };
    let rule: Rule = toml::from_str(&text).map_err(|error| {
        // What the parser says is one line here, not an excerpt of the file.
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        bad(format!("line {line}: {}", error.message().replace('\n', " ")))
    })?;
    rule.check().map_err(|error| bad(error.to_string()))?;
    Ok(rule)
}

/// Connects to the store, makes the bucket and puts the initial objects.
async fn open_store(config: S3Config, objects: &[PathBuf], run: &Run) -> Result<S3, OrchestratorError> {
    let endpoint = config.endpoint.clone();
    let failed = |source| OrchestratorError::Store { endpoint: endpoint.clone(), source };
    let store = S3::new(config).map_err(failed)?;
    store.create_bucket().await.map_err(failed)?;
    // One after another: together they are as large as the model.
    for path in objects {
        store.put(OBJECTS, RunFolder::object(path)?.into()).await.map_err(failed)?;
    }
    // What the run is lies beside its objects, for whoever has only the bucket.
    store.put("runs", run.to_toml().into_bytes().into()).await.map_err(failed)?;
    Ok(store)
}

struct OrchestratorShell {
    hub: Arc<Hub>,
    store: Arc<S3>,
    judge: Arc<dyn Judge>,
    narrower: Narrower,
    pointer: String,
    folder: RunFolder,
    journal: Journal,
    ledger: LedgerFile,
    key: Key,
    run: Digest,
    events: mpsc::Sender<Event>,
    clock: Clock,
    metrics: std::fs::File,
    view: Shared,
    tell: Box<dyn FnMut(&Notice) + Send>,
    ending: Ending,
    /// Whether the owner asked for the end.
    stop: watch::Receiver<bool>,
    /// Whether an epoch was committed since the journal was told where the run stands.
    committed: bool,
}

impl Shell<Orchestrator> for OrchestratorShell {
    type Error = OrchestratorError;

    fn journal(&mut self, now_ms: u64, event: &Event) -> Result<(), OrchestratorError> {
        Ok(self.journal.append(now_ms, event)?)
    }

    async fn commit(&mut self) -> Result<(), OrchestratorError> {
        // Nothing may follow from what is not written. Heartbeats are on threads of their own, and miners work on.
        self.with_room(|shell| Ok(shell.journal.commit()?)).await
    }

    fn settled(&mut self, core: &Orchestrator) -> Result<(), OrchestratorError> {
        if std::mem::take(&mut self.committed) {
            let view = self.view.read(View::clone);
            self.journal.keep(self.clock.now_ms(), core.snapshot(), view)?;
        }
        Ok(())
    }

    async fn perform(&mut self, _now_ms: u64, effect: Effect) -> Result<Next, OrchestratorError> {
        match effect {
            Effect::Send { to, message } => send(&self.hub, to, message).await,
            Effect::Grant { to, ask } => self.grant(to, ask),
            Effect::Put { object, bytes } => self.put(object.digest, bytes.into()),
            Effect::MovePointer { from, to } => self.move_pointer(from, to),
            Effect::Confirm { evidence, case } => self.confirm(evidence, case),
            Effect::KeepEvidence { miner, bytes } => self.keep_evidence(miner, bytes).await?,
            Effect::Credit { epoch, manifest, work, struck } => {
                self.with_room(|shell| {
                    let (key, what) = (&shell.key, (shell.run, epoch, manifest));
                    Ok(shell.ledger.enter(key, what, work.clone(), struck.clone())?)
                })
                .await?;
            }
            Effect::Disconnect { peer, why } => {
                // In the background: closing waits for the peer to take what was sent.
                let hub = self.hub.clone();
                tokio::spawn(async move { hub.close(peer, &why).await });
            }
            Effect::Confine { peer } => self.hub.confine(peer),
            Effect::Compare { miner, case, trace } => self.compare(miner, case, trace),
            Effect::Narrow { miner, case, trace, value, output } => {
                self.narrow(miner, case, trace, (value, output));
            }
            Effect::WakeAt(at_ms) => return Ok(Next::WakeAt(at_ms)),
            Effect::Report(report) => self.report(report),
            Effect::Finish(ending) => {
                self.ending = ending;
                return Ok(Next::Stop);
            }
        }
        Ok(Next::Continue)
    }

    fn woken(&mut self) -> Event {
        Event::Woke
    }
}

impl OrchestratorShell {
    fn grant(&self, to: NodeId, ask: Ask) {
        let (hub, store) = (self.hub.clone(), self.store.clone());
        tokio::spawn(async move {
            let presigned = match ask.verb {
                Verb::Get => store.presign_get(OBJECTS, &ask.object.digest, GRANT_VALID).await,
                Verb::Put => store.presign_put(OBJECTS, &ask.object, GRANT_VALID).await,
            };
            let answer = presigned.map_err(|error| error.to_string());
            send(&hub, to, Message::Grant(Grant { ask, answer })).await;
        });
    }

    fn put(&self, digest: Digest, bytes: Bytes) {
        let (store, events) = (self.store.clone(), self.events.clone());
        tokio::spawn(async move {
            let what = format!("put {digest}");
            let put = |_| store.put(OBJECTS, bytes.clone());
            let event = match patiently(STORE_PATIENCE, put, waiting(&events, &what)).await {
                Ok(stored) if stored.digest == digest => Event::Stored { digest },
                Ok(stored) => {
                    let why = format!("the bytes given for it are {}", stored.digest);
                    Event::StoreFailed { what, why }
                }
                Err(error) => Event::StoreFailed { what, why: error.to_string() },
            };
            let _ = events.send(event).await;
        });
    }

    fn move_pointer(&self, from: Option<Digest>, to: Digest) {
        let (store, events, name) = (self.store.clone(), self.events.clone(), self.pointer.clone());
        tokio::spawn(async move {
            let what = format!("move the pointer {name}");
            let moving = |_| move_pointer(&*store, &name, from, to);
            let event = match patiently(STORE_PATIENCE, moving, waiting(&events, &what)).await {
                Ok(Ok(())) => Event::PointerMoved { manifest: to },
                Ok(Err(why)) => Event::StoreFailed { what, why },
                Err(error) => Event::StoreFailed { what, why: error.to_string() },
            };
            let _ = events.send(event).await;
        });
    }

    fn confirm(&self, evidence: Digest, case: Vec<u8>) {
        let (judge, store, events) = (self.judge.clone(), self.store.clone(), self.events.clone());
        let folder = self.folder.path("evidence");
        tokio::spawn(async move {
            let event = judge::check(judge, store, folder, evidence, case, &events).await;
            let _ = events.send(event).await;
        });
    }

    fn compare(&self, miner: NodeId, case: Vec<u8>, trace: Signed<Trace>) {
        let (narrower, events) = (self.narrower.clone(), self.events.clone());
        tokio::spawn(async move {
            let doubt = narrower.compare(case, trace).await;
            let _ = events.send(Event::Compared { miner, doubt }).await;
        });
    }

    fn narrow(&self, miner: NodeId, case: Vec<u8>, trace: Signed<Trace>, doubt: (u32, ObjectRef)) {
        let (narrower, events) = (self.narrower.clone(), self.events.clone());
        let (folder, store) = (self.folder.clone(), self.store.clone());
        tokio::spawn(async move {
            let evidence = match narrower.narrow(case, trace, doubt).await {
                Ok((evidence, file)) => {
                    let written = folder.write(&tile_name(miner), &file, false);
                    // Who has only the bucket finds it beside the case.
                    if let Err(error) = store.put("evidence", file.into()).await {
                        tracing::warn!(%error, "the evidence of one tile is not in the store");
                    }
                    written.map(|()| evidence).map_err(|error| error.to_string())
                }
                Err(why) => Err(why),
            };
            let _ = events.send(Event::Narrowed { miner, evidence }).await;
        });
    }

    async fn keep_evidence(&mut self, miner: NodeId, bytes: Vec<u8>) -> Result<(), OrchestratorError> {
        self.with_room(|shell| Ok(shell.folder.write(&case_name(miner), &bytes, false)?)).await?;
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.put("evidence", bytes.into()).await {
                tracing::warn!(%error, "the evidence is on disk but not in the store");
            }
        });
        Ok(())
    }

    /// Writes something down; a full disk is waited for, and that is said.
    async fn with_room(
        &mut self,
        mut write: impl FnMut(&mut Self) -> Result<(), OrchestratorError> + Send,
    ) -> Result<(), OrchestratorError> {
        let mut wait = None;
        loop {
            let written = write(self);
            let path = written.as_ref().err().and_then(OrchestratorError::lacks_room);
            let Some(path) = path.map(Path::to_path_buf) else { return written };
            if wait.is_none() {
                self.note(format!("{}: the disk is full: the run waits until there is room", path.display()));
            }
            if !wait.get_or_insert_with(Wait::begin).goes_on(&mut self.stop).await {
                return Err(OrchestratorError::Full { path });
            }
        }
    }

    fn note(&mut self, text: String) {
        self.notice(Notice::Report { ms: self.clock.now_ms(), report: Report::Note { text } });
    }

    fn report(&mut self, report: Report) {
        self.committed |= matches!(report, Report::Committed { .. });
        let stepped = matches!(report, Report::Stepped { .. });
        self.notice(Notice::Report { ms: self.clock.now_ms(), report });
        if stepped {
            let relay = self.hub.relay_statistics();
            self.notice(Notice::Wire {
                frames: relay.frames_forwarded,
                bytes_plain: relay.body_bytes_forwarded,
                bytes_sent: relay.packed_bytes_forwarded,
            });
        }
    }

    fn notice(&mut self, notice: Notice) {
        // A full disk must not end a run for the sake of its metrics.
        let line = serde_json::to_string(&notice).unwrap_or_default();
        if let Err(error) = writeln!(self.metrics, "{line}") {
            tracing::warn!(%error, "metrics.jsonl cannot be written");
        }
        self.view.change(|view| view.take(&notice));
        (self.tell)(&notice);
    }
}

/// Tells the core, once, that the store is waited for.
pub(crate) fn waiting(
    events: &mpsc::Sender<Event>,
    what: &str,
) -> impl FnMut(&store::Error, Duration) + use<> {
    let (events, mut what) = (events.clone(), Some(what.to_owned()));
    move |error, _| {
        if let Some(what) = what.take() {
            // Where the queue is full there is more to do than to say this.
            let _ = events.try_send(Event::StoreWaits { what, why: error.to_string() });
        }
    }
}

/// Sends a message. A failure is told by the hub as the node's loss, and the core decides what that means.
async fn send(hub: &Hub, to: NodeId, message: Message) {
    if let Err(error) = hub.send(Frame::new(to, message)).await {
        tracing::debug!(to = %to.short(), %error, "message not sent");
    }
}
