//! The second party that checks what a validator found wrong. It is handed in: an orchestrator makes no tensor.

use crate::shell::{OBJECTS, STORE_PATIENCE};
use bytes::Bytes;
use orchestrator_core::{Confirmation, Event};
use spec::Digest;
use std::path::PathBuf;
use std::sync::Arc;
use store::retry::patiently;
use store::{Error, S3};
use tokio::sync::{Semaphore, mpsc};
use wire::{ObjectRef, Signed, Trace};

/// Does again what a validator found wrong.
pub trait Judge: Send + Sync {
    /// The objects that a case (canonical bytes of [`wire::Evidence`] or [`wire::MergeEvidence`]) names.
    ///
    /// # Errors
    /// Why such a case cannot be checked here, in one sentence.
    fn needed(&self, case: &[u8]) -> Result<Vec<ObjectRef>, String>;

    /// Checks a case with those of its objects that the store has. It may take as long as a replay.
    fn decide(&self, case: &[u8], objects: Vec<Bytes>) -> Confirmation;

    /// The first output that a convict's trace has wrong: its number, and what was signed of it. It may take as long as a replay.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    fn doubt(&self, answer: &Answer) -> Result<(u32, ObjectRef), String>;

    /// The evidence of one tile of that output: its name and its file, which holds. It may take as long as a few replays.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    fn narrow(
        &self,
        answer: &Answer,
        doubt: (u32, ObjectRef),
        output: &[u8],
    ) -> Result<(Digest, Vec<u8>), String>;
}

/// What a convict said of its window, with all that this takes.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Canonical bytes of the [`wire::Evidence`] that convicted it.
    pub case: Vec<u8>,
    /// Those of the case's objects that the store has.
    pub objects: Vec<Bytes>,
    /// What it says of every op.
    pub trace: Signed<Trace>,
    /// The file of the digests that are said to be the trace's.
    pub digests: Bytes,
}

/// Who looks at what convicts answer: one at a time, so that however many are asked, no more than one window is performed here for them.
#[derive(Clone)]
pub(crate) struct Narrower {
    judge: Arc<dyn Judge>,
    store: Arc<S3>,
    /// Where long objects lie meanwhile.
    folder: PathBuf,
    turn: Arc<Semaphore>,
}

impl Narrower {
    pub fn new(judge: Arc<dyn Judge>, store: Arc<S3>, folder: PathBuf) -> Self {
        Self { judge, store, folder, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The output in doubt.
    pub async fn compare(&self, case: Vec<u8>, trace: Signed<Trace>) -> Result<(u32, ObjectRef), String> {
        let _turn = self.turn.acquire().await;
        let answer = self.answer(case, trace).await?;
        let judge = self.judge.clone();
        beside(move || judge.doubt(&answer)).await
    }

    /// The evidence of one tile of it: its name, and its file.
    pub async fn narrow(
        &self,
        case: Vec<u8>,
        trace: Signed<Trace>,
        doubt: (u32, ObjectRef),
    ) -> Result<(Digest, Vec<u8>), String> {
        let _turn = self.turn.acquire().await;
        let answer = self.answer(case, trace).await?;
        let output = self.shown(&doubt.1).await?;
        let judge = self.judge.clone();
        beside(move || judge.narrow(&answer, doubt, &output)).await
    }

    async fn answer(&self, case: Vec<u8>, trace: Signed<Trace>) -> Result<Answer, String> {
        let mut objects = Vec::new();
        for object in self.judge.needed(&case)? {
            let got = self.store.get_spooled(OBJECTS, &object, &self.folder).await;
            objects.push(got.map_err(|error| error.to_string())?);
        }
        let digests = self.shown(&trace.body.digests()).await?;
        Ok(Answer { case, objects, trace, digests })
    }

    /// What a convict put into the store. Whatever length it names, under that digest there may lie something longer: a file holds it.
    async fn shown(&self, object: &ObjectRef) -> Result<Bytes, String> {
        let got = self.store.spool(OBJECTS, &object.digest, &self.folder).await;
        let bytes = got.map_err(|error| error.to_string())?;
        if bytes.len() as u64 == object.bytes {
            return Ok(bytes);
        }
        Err(format!("what it shows has {} bytes, it named {}", bytes.len(), object.bytes))
    }
}

/// Work of minutes, on a thread of its own.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(format!("a bug: {panic}")))
}

/// Fetches what a case names, long objects into files of `folder`, and has it checked on a thread of its own; what is to be told the core.
pub(crate) async fn check(
    judge: Arc<dyn Judge>,
    store: Arc<S3>,
    folder: PathBuf,
    evidence: Digest,
    case: Vec<u8>,
    events: &mpsc::Sender<Event>,
) -> Event {
    let confirmed = |confirmation| Event::Confirmed { evidence, confirmation };
    let needed = match judge.needed(&case) {
        Ok(needed) => needed,
        Err(why) => return confirmed(Confirmation::Unable { why }),
    };
    let mut objects = Vec::new();
    for object in needed {
        let what = format!("get {}", object.digest);
        let get = |_| store.get_spooled(OBJECTS, &object, &folder);
        match patiently(STORE_PATIENCE, get, crate::shell::waiting(events, &what)).await {
            Ok(bytes) => objects.push(bytes),
            // That it is not there may be what somebody is accused of.
            Err(Error::Missing { .. }) => {}
            Err(error) => return Event::StoreFailed { what, why: error.to_string() },
        }
    }
    let decided = tokio::task::spawn_blocking(move || judge.decide(&case, objects)).await;
    confirmed(decided.unwrap_or_else(|panic| Confirmation::Unable { why: format!("a bug: {panic}") }))
}
