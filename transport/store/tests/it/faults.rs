use std::time::{Duration, Instant};

use bytes::Bytes;
use store::{Error, Faults, Faulty, Memory, Store, retry::patiently};
use wire::ObjectRef;

use crate::fixture::noise;

#[tokio::test]
async fn one_seed_one_history() {
    let history = async |seed| {
        let faults =
            Faults { unavailable: 0.3, corrupt: 0.3, missing: 0.2, answer_lost: 0.2, ..Faults::NONE };
        let store = Faulty::new(Memory::new(), seed, faults);
        let mut outcomes = Vec::new();
        for len in 1..60 {
            outcomes.push(store.put("a", noise(len)).await.is_ok());
            let digest = spec::Digest::of(&noise(len));
            outcomes.push(store.get("a", &digest).await.is_ok());
        }
        outcomes
    };
    let first = history(1).await;
    assert_eq!(first, history(1).await);
    assert_ne!(first, history(2).await);
}

#[tokio::test]
async fn each_fault_shows_as_what_it_is() {
    let store = Faulty::new(Memory::new(), 7, Faults::NONE);
    let object = store.put("a", noise(100)).await.unwrap();
    let key = format!("a/{}", object.digest);

    store.set_faults(Faults { unavailable: 1.0, ..Faults::NONE });
    assert!(store.put("a", noise(7)).await.unwrap_err().is_transient());
    assert_eq!(store.inner().list("a").await, Ok(vec![object]));

    store.set_faults(Faults { missing: 1.0, ..Faults::NONE });
    assert_eq!(store.get("a", &object.digest).await, Err(Error::Missing { key }));
    assert_eq!(store.exists("a", &object.digest).await, Ok(false));

    store.set_faults(Faults { corrupt: 1.0, ..Faults::NONE });
    let corrupt = store.get("a", &object.digest).await;
    assert!(
        matches!(corrupt, Err(Error::Corrupt { expected, .. }) if expected == object.digest),
        "{corrupt:?}"
    );

    store.set_faults(Faults { answer_lost: 1.0, ..Faults::NONE });
    assert!(store.advance("p", None, Bytes::from_static(b"1")).await.unwrap_err().is_transient());
    assert_eq!(store.inner().pointer("p").await.unwrap().unwrap().value, Bytes::from_static(b"1"));

    let delay = Duration::from_millis(5);
    store.set_faults(Faults { delayed: 1.0, delay, ..Faults::NONE });
    let start = Instant::now();
    store.get("a", &object.digest).await.unwrap();
    assert!(start.elapsed() >= delay);
}

#[tokio::test]
async fn patience_outlasts_a_store_that_is_away_and_nothing_else() {
    let store = Faulty::new(Memory::new(), 5, Faults { unavailable: 1.0, ..Faults::NONE });
    let mut said = 0;
    let put = |_| store.put("a", noise(9));
    let outcome = patiently(Duration::from_secs(20), put, |error, _| {
        assert!(error.is_transient(), "{error}");
        said += 1;
        if said == 2 {
            store.set_faults(Faults::NONE);
        }
    });
    assert_eq!(outcome.await.unwrap(), ObjectRef::of(&noise(9)));
    assert_eq!(said, 2);

    let get = |_| store.get("a", &spec::Digest([7; 32]));
    let outcome = patiently(Duration::from_secs(20), get, |error, _| {
        panic!("what is missing does not come by waiting: {error}");
    });
    assert!(matches!(outcome.await, Err(Error::Missing { .. })));
    store.set_faults(Faults { unavailable: 1.0, ..Faults::NONE });
    let (began, patience) = (Instant::now(), Duration::from_millis(400));
    let outcome = patiently(patience, |_| store.put("a", noise(7)), |_, _| {}).await;
    assert!(outcome.is_err_and(|error| error.is_transient()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn corruption_on_the_way_is_cured_by_the_second_fetch() {
    let store = Faulty::new(Memory::new(), 3, Faults { corrupt: 0.5, ..Faults::NONE });
    let object = store.put("a", noise(100)).await.unwrap();
    let mut corrupt = 0;
    for _ in 0..400 {
        match store.get("a", &object.digest).await {
            Ok(bytes) => assert_eq!(bytes, noise(100)),
            Err(Error::Corrupt { .. }) => corrupt += 1,
            other => panic!("{other:?}"),
        }
    }
    // Once in two transfers, twice in a row one time in four: 100 of 400, give or take five standard deviations.
    assert!((57..=143).contains(&corrupt), "{corrupt}");
}
