//! What every store owes, as a function that finds out.

use bytes::Bytes;
use futures::future::join_all;
use spec::Digest;
use wire::ObjectRef;

use crate::{Error, MAX_POINTER_LEN, Result, Store, Version};

/// Writers that race for one pointer at a time.
const WRITERS: usize = 16;
/// Races run one after the other.
const ROUNDS: usize = 8;

/// A store did not do what it owes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a store must {rule}, but: {found}")]
pub struct Violation {
    /// The rule, to be read after "a store must".
    pub rule: &'static str,
    /// What happened instead.
    pub found: String,
}

/// Tries all rules below `prefix`, which must hold nothing yet. What it writes there stays.
pub async fn check(store: &dyn Store, prefix: &str) -> Result<(), Violation> {
    objects(store, &format!("{prefix}/objects")).await?;
    listing(store, &format!("{prefix}/listing")).await?;
    names(store).await?;
    pointers(store, &format!("{prefix}/pointer")).await?;
    races(store, &format!("{prefix}/raced")).await
}

async fn objects(store: &dyn Store, prefix: &str) -> Result<(), Violation> {
    for len in [0, 1, 1000, (1 << 16) + 1] {
        let bytes = pattern(len);
        let digest = Digest::of(&bytes);
        expect("say that an unwritten object is not there", store.exists(prefix, &digest).await, Ok(false))?;
        let missing = Error::Missing { key: format!("{prefix}/{digest}") };
        expect("name the object that is missing", store.get(prefix, &digest).await, Err(missing.clone()))?;
        for _ in 0..2 {
            expect(
                "store under the digest, twice as well",
                store.put(prefix, bytes.clone()).await,
                Ok(ObjectRef::of(&bytes)),
            )?;
        }
        expect("say that a written object is there", store.exists(prefix, &digest).await, Ok(true))?;
        expect("return what was written", store.get(prefix, &digest).await, Ok(bytes))?;
        for _ in 0..2 {
            expect("delete, twice as well", store.delete(prefix, &digest).await, Ok(()))?;
        }
        expect("forget a deleted object", store.get(prefix, &digest).await, Err(missing))?;
    }
    Ok(())
}

async fn listing(store: &dyn Store, prefix: &str) -> Result<(), Violation> {
    expect("list nothing where nothing is", store.list(prefix).await, Ok(vec![]))?;
    let mut written = Vec::new();
    for len in 0..20 {
        let bytes = pattern(len);
        let object = ObjectRef::of(&bytes);
        expect("store under the digest", store.put(prefix, bytes).await, Ok(object))?;
        written.push(object);
    }
    written.sort_unstable();
    let neighbour = pattern(21);
    for elsewhere in [format!("{prefix}/below"), format!("{prefix}-beside")] {
        let put = store.put(&elsewhere, neighbour.clone()).await;
        expect("store under the digest", put, Ok(ObjectRef::of(&neighbour)))?;
    }
    let pointer = store.advance(&format!("{prefix}/pointer"), None, Bytes::from_static(b"x")).await;
    expect("create a pointer", pointer.map(drop), Ok(()))?;
    expect("list the objects directly below, in order", store.list(prefix).await, Ok(written))
}

async fn names(store: &dyn Store) -> Result<(), Violation> {
    for name in ["", "/", "..", "a/../b", "a//b", "A", "a b", "a?b", "a%2fb"] {
        let refused = Error::BadName { name: name.to_owned() };
        let digest = Digest::of(b"");
        expect("refuse a bad prefix", store.put(name, Bytes::new()).await, Err(refused.clone()))?;
        expect("refuse a bad prefix", store.get(name, &digest).await, Err(refused.clone()))?;
        expect("refuse a bad pointer name", store.pointer(name).await, Err(refused.clone()))?;
        expect("refuse a bad pointer name", store.advance(name, None, Bytes::new()).await, Err(refused))?;
    }
    Ok(())
}

async fn pointers(store: &dyn Store, name: &str) -> Result<(), Violation> {
    let value = |text: &'static str| Bytes::from_static(text.as_bytes());
    let lost = || Err(Error::LostRace { name: name.to_owned() });
    expect("know no pointer before it is written", store.pointer(name).await, Ok(None))?;
    let nowhere = Version("\"no such version\"".to_owned());
    let moved = store.advance(name, Some(&nowhere), value("0")).await;
    expect("not move a pointer that is not there", moved, lost())?;
    let first = require("create a pointer", store.advance(name, None, value("1")).await)?;
    let read = |value, version: &Version| Ok(Some(crate::Pointer { value, version: version.clone() }));
    expect("return the pointer written", store.pointer(name).await, read(value("1"), &first))?;
    expect("create a pointer once", store.advance(name, None, value("2")).await, lost())?;
    let second = require("move a pointer", store.advance(name, Some(&first), value("2")).await)?;
    let moved = store.advance(name, Some(&first), value("3")).await;
    expect("not move a pointer from an old version", moved, lost())?;
    expect("keep what the winner wrote", store.pointer(name).await, read(value("2"), &second))?;
    let long = store.advance(name, Some(&second), pattern(MAX_POINTER_LEN as usize + 1)).await;
    let limit = MAX_POINTER_LEN;
    let refused = Error::TooLarge { key: name.to_owned(), limit, found: limit + 1 };
    expect("refuse a long pointer", long, Err(refused))
}

/// Many writers, each round from the version that all of them know: one wins.
async fn races(store: &dyn Store, name: &str) -> Result<(), Violation> {
    let rule = "let exactly one of several writers win";
    let mut version = None;
    for round in 0..ROUNDS {
        let values: Vec<Bytes> =
            (0..WRITERS).map(|writer| Bytes::from(format!("round {round}, writer {writer}"))).collect();
        let writes = values.iter().map(|value| store.advance(name, version.as_ref(), value.clone()));
        let mut winner = None;
        for (outcome, value) in join_all(writes).await.into_iter().zip(&values) {
            match outcome {
                Ok(won) if winner.is_none() => winner = Some((won, value)),
                Ok(_) => return Err(Violation { rule, found: format!("two won round {round}") }),
                Err(Error::LostRace { .. }) => {}
                Err(error) => return Err(Violation { rule, found: error.to_string() }),
            }
        }
        let Some((won, value)) = winner else {
            return Err(Violation { rule, found: format!("nobody won round {round}") });
        };
        let pointer = crate::Pointer { value: value.clone(), version: won.clone() };
        expect("keep what the winner wrote", store.pointer(name).await, Ok(Some(pointer)))?;
        version = Some(won);
    }
    Ok(())
}

/// Bytes without a short period.
fn pattern(len: usize) -> Bytes {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn require<T>(rule: &'static str, outcome: Result<T>) -> Result<T, Violation> {
    outcome.map_err(|error| Violation { rule, found: error.to_string() })
}

fn expect<T: PartialEq + std::fmt::Debug>(
    rule: &'static str,
    found: Result<T>,
    expected: Result<T>,
) -> Result<(), Violation> {
    if found == expected {
        return Ok(());
    }
    let mut found = format!("expected {expected:?}, found {found:?}");
    if found.len() > 600 {
        let cut = (0..=600).rev().find(|&i| found.is_char_boundary(i)).unwrap_or(0);
        found.truncate(cut);
    }
    Err(Violation { rule, found })
}
