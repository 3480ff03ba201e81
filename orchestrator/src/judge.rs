//! The second party that checks what a validator found wrong. It is handed in: an orchestrator makes no tensor.

use crate::shell::{OBJECTS, STORE_PATIENCE};
use bytes::Bytes;
use orchestrator_core::{Confirmation, Event};
use std::path::PathBuf;
use std::sync::Arc;
use store::retry::patiently;
use store::{Error, S3};
use tokio::sync::mpsc;
use wire::ObjectRef;

/// Does again what a validator found wrong.
pub trait Judge: Send + Sync {
    /// The objects that a case (canonical bytes of [`wire::Evidence`] or [`wire::MergeEvidence`]) names.
    ///
    /// # Errors
    /// Why such a case cannot be checked here, in one sentence.
    fn needed(&self, case: &[u8]) -> Result<Vec<ObjectRef>, String>;

    /// Checks a case with those of its objects that the store has. It may take as long as a replay.
    fn decide(&self, case: &[u8], objects: Vec<Bytes>) -> Confirmation;
}

/// Fetches what a case names, long objects into files of `folder`, and has it checked on a thread of its own; what is to be told the core.
pub(crate) async fn check(
    judge: Arc<dyn Judge>,
    store: Arc<S3>,
    folder: PathBuf,
    evidence: spec::Digest,
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
