use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use bytes::Bytes;
use store::{Error, Presign, S3, Store, conformance};
use wire::ObjectRef;

use crate::fixture::{Fixture, config, noise, relay_losing_answers};

#[tokio::test]
async fn objects_and_pointers_survive_a_restart() {
    let fixture = Fixture::new().await;
    let small = fixture.store.put("weights", noise(1000)).await.unwrap();
    let long = fixture.store.put("weights", noise(9 << 20)).await.unwrap();
    let version = fixture.store.advance("head", None, Bytes::from_static(b"1")).await.unwrap();
    let fixture = fixture.restarted().await;
    assert_eq!(fixture.store.get("weights", &small.digest).await.unwrap(), noise(1000));
    assert_eq!(fixture.store.get("weights", &long.digest).await.unwrap(), noise(9 << 20));
    let mut both = [small, long];
    both.sort();
    assert_eq!(fixture.store.list("weights").await.unwrap(), both);
    fixture.store.advance("head", Some(&version), Bytes::from_static(b"2")).await.unwrap();
    let stale = fixture.store.advance("head", Some(&version), Bytes::from_static(b"3")).await;
    assert_eq!(stale, Err(Error::LostRace { name: "head".to_owned() }));
}

#[tokio::test]
async fn twelve_mebibytes_travel_in_parts() {
    let fixture = Fixture::new().await;
    let bytes = noise(12 << 20);
    let object = fixture.store.put("weights", bytes.clone()).await.unwrap();
    assert_eq!(object, ObjectRef::of(&bytes));
    assert_eq!(fixture.store.get("weights", &object.digest).await.unwrap(), bytes);
    // Again: the upload is given up because the object is there, and neither leaves anything behind.
    fixture.store.put("weights", bytes).await.unwrap();
    assert_eq!((fixture.files("uploads").len(), fixture.files("temp").len()), (0, 0));
    assert_eq!(fixture.files("objects").len(), 1);
}

#[tokio::test]
async fn a_long_object_is_read_from_a_file_that_has_no_name() {
    let (fixture, folder) = (Fixture::new().await, tempfile::tempdir().unwrap());
    let bytes = noise(12 << 20);
    for bytes in [bytes.clone(), bytes.slice(..100), bytes.slice(..0)] {
        let object = fixture.store.put("weights", bytes.clone()).await.unwrap();
        assert_eq!(fixture.store.spool("weights", &object.digest, folder.path()).await.unwrap(), bytes);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    // Damaged, and where no file can be made.
    let object = ObjectRef::of(&bytes);
    let file =
        fixture.files("objects").into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let mut damaged = fs::read(&file).unwrap();
    damaged[9 << 20] ^= 1;
    fs::write(&file, &damaged).unwrap();
    let read = fixture.store.spool("weights", &object.digest, folder.path()).await;
    assert!(matches!(&read, Err(Error::Corrupt { expected, .. }) if *expected == object.digest), "{read:?}");
    let nowhere = folder.path().join("nowhere");
    let read = fixture.store.spool("weights", &object.digest, &nowhere).await;
    assert!(
        matches!(&read, Err(error @ Error::Unavailable { .. }) if error.to_string().contains("nowhere")),
        "{read:?}"
    );
}

#[tokio::test]
async fn half_an_upload_leaves_nothing() {
    let fixture = Fixture::new().await;
    let bytes = noise(2 << 20);
    let object = ObjectRef::of(&bytes);
    let grant = fixture.store.presign_put("weights", &object, Duration::from_secs(60)).await.unwrap();
    let path = grant.url.strip_prefix(&fixture.server.endpoint()).unwrap();
    let mut request = format!("PUT {path} HTTP/1.1\r\nhost: {}\r\n", fixture.server.addr());
    for (name, value) in grant.headers.iter().filter(|(name, _)| name != "host") {
        request += &format!("{name}: {value}\r\n");
    }
    let mut connection = TcpStream::connect(fixture.server.addr()).unwrap();
    connection.write_all(format!("{request}\r\n").as_bytes()).unwrap();
    connection.write_all(&bytes[..1 << 20]).unwrap();
    until("the server holds half of it", || !fixture.files("temp").is_empty()).await;
    assert_eq!(fixture.store.exists("weights", &object.digest).await, Ok(false));
    drop(connection);
    until("the server gave it up", || fixture.files("temp").is_empty()).await;
    assert_eq!(fixture.store.exists("weights", &object.digest).await, Ok(false));
    assert_eq!(fixture.store.list("weights").await, Ok(vec![]));
    assert_eq!(fixture.files("objects").len(), 0);
}

#[tokio::test]
async fn a_crash_between_write_and_rename_leaves_nothing() {
    let fixture = Fixture::new().await;
    let folder = fixture.dir.path().join("buckets").join(crate::fixture::BUCKET);
    fs::write(folder.join("temp/0"), "half an object").unwrap();
    fs::write(folder.join("uploads/0123.00001"), "a part of no upload").unwrap();
    let fixture = fixture.restarted().await;
    assert_eq!((fixture.files("uploads").len(), fixture.files("temp").len()), (0, 0));
    let object = fixture.store.put("weights", noise(10)).await.unwrap();
    assert_eq!(fixture.store.list("weights").await, Ok(vec![object]));
}

#[tokio::test]
async fn a_corrupt_file_is_an_error_that_names_the_object() {
    let fixture = Fixture::new().await;
    let object = fixture.store.put("weights", noise(1000)).await.unwrap();
    let key = format!("weights/{}", object.digest);
    let file = fixture.files("objects").remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[500] ^= 1;
    fs::write(&file, &bytes).unwrap();
    match fixture.store.get("weights", &object.digest).await {
        Err(Error::Corrupt { key: named, expected, found, found_len: 1000 }) => {
            assert_eq!((named, expected), (key.clone(), object.digest));
            assert_ne!(found, expected);
        }
        other => panic!("{other:?}"),
    }
    // Cut short, it is no object any more: the server says so, and at the next start leaves it out.
    fs::write(&file, &bytes[..900]).unwrap();
    match fixture.store.get("weights", &object.digest).await {
        Err(Error::Unavailable { key: named, reason, .. }) => {
            assert_eq!(named, key);
            assert!(reason.contains(&key) && reason.contains("is damaged"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let fixture = fixture.restarted().await;
    assert_eq!(fixture.store.get("weights", &object.digest).await, Err(Error::Missing { key }));
    // It is mended by writing it again.
    fixture.store.put("weights", noise(1000)).await.unwrap();
    assert_eq!(fixture.store.get("weights", &object.digest).await.unwrap(), noise(1000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lost_answer_does_not_turn_the_winner_into_a_loser() {
    let fixture = Fixture::new().await;
    let endpoint = relay_losing_answers(&fixture.server, 1).await;
    let behind = S3::new(config(&endpoint, &fixture.credentials)).unwrap();
    let version = behind.advance("head", None, Bytes::from_static(b"1")).await.unwrap();
    let pointer = fixture.store.pointer("head").await.unwrap().unwrap();
    assert_eq!((pointer.value, pointer.version), (Bytes::from_static(b"1"), version));
    let endpoint = relay_losing_answers(&fixture.server, 1).await;
    let behind = S3::new(config(&endpoint, &fixture.credentials)).unwrap();
    conformance::check(&behind, "try").await.unwrap();
}

#[tokio::test]
async fn ranges_are_served_as_ranges() {
    let fixture = Fixture::new().await;
    let bytes = noise(1000);
    let object = fixture.store.put("weights", bytes.clone()).await.unwrap();
    let grant = fixture.store.presign_get("weights", &object.digest, Duration::from_secs(60)).await.unwrap();
    let path = grant.url.strip_prefix(&fixture.server.endpoint()).unwrap();
    for (range, status, expected) in [
        ("bytes=10-19", "206", &bytes[10..20]),
        ("bytes=990-", "206", &bytes[990..]),
        ("bytes=-5", "206", &bytes[995..]),
    ] {
        let mut connection = TcpStream::connect(fixture.server.addr()).unwrap();
        let host = fixture.server.addr();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nrange: {range}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            let mut answer = Vec::new();
            connection.read_to_end(&mut answer).map(|_| answer)
        });
        let answer = answer.await.unwrap().unwrap();
        let head_len = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&answer[..head_len]).into_owned();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{range}: {head}");
        assert_eq!(&answer[head_len..], expected, "{range}");
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < crate::fixture::DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
