//! A run's pointer in the store: it names the last committed manifest.

use spec::Digest;
use store::Store;

/// Moves the pointer from one manifest to another by conditional write. Its value counts its moves, so that
/// none ever returns: a writer who saw an older one always loses.
///
/// # Errors
/// The store's; the inner one where the pointer names something else: another orchestrator wrote it.
pub(crate) async fn move_pointer(
    store: &impl Store,
    name: &str,
    from: Option<Digest>,
    to: Digest,
) -> store::Result<Result<(), String>> {
    let now = store.pointer(name).await?;
    let value = now.as_ref().map(|pointer| String::from_utf8_lossy(&pointer.value).into_owned());
    let (moves, found) = match value.as_deref().map(parse_pointer) {
        None => (0, None),
        Some(Some((moves, digest))) => (moves, Some(digest)),
        Some(None) => return Ok(Err(format!("it holds {value:?}, expected a number and a digest"))),
    };
    if found == Some(to) {
        return Ok(Ok(()));
    }
    if found != from {
        let name = |digest: Option<Digest>| digest.map_or("nothing".into(), |digest| digest.to_string());
        let (found, from) = (name(found), name(from));
        return Ok(Err(format!("it names {found}, expected {from}: another orchestrator wrote it")));
    }
    let version = now.map(|pointer| pointer.version);
    let value = format!("{} {to}", moves + 1);
    store.advance(name, version.as_ref(), value.into()).await.map(|_| Ok(()))
}

/// Name of a run's pointer in the store.
pub fn pointer_name(run: &Digest) -> String {
    format!("runs/{run}/latest")
}

/// A pointer's value: the number of its moves, and the manifest object that it names.
pub fn parse_pointer(value: &str) -> Option<(u64, Digest)> {
    let (moves, digest) = value.split_once(' ')?;
    Some((moves.parse().ok()?, digest.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use store::retry::patiently;
    use store::{Error, Faults, Faulty, Memory};

    #[tokio::test]
    async fn a_pointer_moves_once_though_answers_are_lost() {
        let [first, second, third] = [1, 2, 3].map(|byte| Digest([byte; 32]));
        let store = Faulty::new(Memory::new(), 1, Faults { answer_lost: 1.0, ..Faults::NONE });
        let moved = async |from, to| {
            let moving = |_| move_pointer(&store, "runs/a/latest", from, to);
            patiently(Duration::from_secs(20), moving, |error: &Error, _| {
                assert!(error.is_transient(), "{error}");
            })
            .await
            .unwrap()
        };
        assert_eq!(moved(None, first).await, Ok(()));
        assert_eq!(moved(Some(first), second).await, Ok(()));
        let why = moved(Some(first), third).await.unwrap_err();
        assert!(why.contains(&second.to_string()) && why.contains("another orchestrator wrote it"), "{why}");
        let value = store.inner().pointer("runs/a/latest").await.unwrap().unwrap().value;
        assert_eq!(parse_pointer(&String::from_utf8_lossy(&value)), Some((2, second)));
    }
}
