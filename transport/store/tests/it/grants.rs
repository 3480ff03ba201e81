use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use store::{Error, Presign, Store, presigned::Client};
use wire::ObjectRef;

use crate::fixture::{DEADLINE, Fixture, noise};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_grant_carries_an_object_there_and_back() {
    let fixture = Fixture::new().await;
    let client = Client::new();
    for len in [0, 1, 100_000, 9 << 20] {
        let bytes = noise(len);
        let object = ObjectRef::of(&bytes);
        let put = fixture.store.presign_put("acts", &object, MINUTE).await.unwrap();
        assert_eq!(client.put(&put, bytes.clone(), DEADLINE).await, Ok(object), "{len}");
        // The answer may have been lost: the same bytes again are the same success.
        assert_eq!(client.put(&put, bytes.clone(), DEADLINE).await, Ok(object), "{len}");
        let get = fixture.store.presign_get("acts", &object.digest, MINUTE).await.unwrap();
        assert_eq!(client.get(&get, &object, DEADLINE).await.unwrap(), bytes, "{len}");
        assert_eq!(fixture.store.get("acts", &object.digest).await.unwrap(), bytes, "{len}");
    }
}

#[tokio::test]
async fn another_size_is_refused() {
    let fixture = Fixture::new().await;
    let bytes = noise(1000);
    let claimed = ObjectRef { bytes: 999, ..ObjectRef::of(&bytes) };
    let mut grant = fixture.store.presign_put("acts", &claimed, MINUTE).await.unwrap();
    // A client that sends more than was signed, and says so.
    set_header(&mut grant.headers, "content-length", "1000");
    match Client::new().put(&grant, bytes, DEADLINE).await {
        Err(Error::Refused { status: 403, reason, .. }) => assert!(reason.contains("Signature"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.store.list("acts").await, Ok(vec![]));
}

#[tokio::test]
async fn overwriting_is_refused() {
    let fixture = Fixture::new().await;
    let honest = fixture.store.put("acts", noise(1000)).await.unwrap();
    // Other bytes of the same length, under a grant for the honest name.
    let mut grant = fixture.store.presign_put("acts", &honest, MINUTE).await.unwrap();
    let forged = Bytes::from(vec![7; 1000]);
    match Client::new().put(&grant, forged.clone(), DEADLINE).await {
        Err(Error::BadGrant { reason, .. }) => assert!(reason.contains("not for the object"), "{reason}"),
        other => panic!("{other:?}"),
    }
    // Without the condition the signature is another; with it, the server says that the object is there.
    assert_eq!(raw_put(&fixture, &grant, &forged).await, 412);
    grant.headers.retain(|(name, _)| name != "if-none-match");
    assert_eq!(raw_put(&fixture, &grant, &forged).await, 403);
    assert_eq!(fixture.store.get("acts", &honest.digest).await.unwrap(), noise(1000));
}

#[tokio::test]
async fn an_expired_or_altered_grant_is_refused() {
    let fixture = Fixture::new().await;
    let object = fixture.store.put("acts", noise(10)).await.unwrap();
    let other = fixture.store.put("acts", noise(11)).await.unwrap();
    let grant = fixture.store.presign_get("acts", &object.digest, MINUTE).await.unwrap();
    let mut altered = grant.clone();
    altered.url = altered.url.replace(&object.digest.to_string(), &other.digest.to_string());
    match Client::new().get(&altered, &other, DEADLINE).await {
        Err(Error::Refused { status: 403, reason, .. }) => assert!(reason.contains("Signature"), "{reason}"),
        outcome => panic!("{outcome:?}"),
    }
    let brief = fixture.store.presign_get("acts", &object.digest, Duration::from_secs(1)).await.unwrap();
    let start = std::time::Instant::now();
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let (earliest, latest) = (now_ms() - 1000, now_ms() + 1000);
    assert!(
        (earliest..=latest).contains(&brief.expires_ms),
        "{} not within {earliest}..={latest}",
        brief.expires_ms
    );
    let reason = loop {
        assert!(start.elapsed() < DEADLINE, "the grant never expired");
        match Client::new().get(&brief, &object, DEADLINE).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(Error::Refused { status: 403, reason, .. }) => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reason.contains("expired") && now_ms() >= brief.expires_ms, "{reason}");
}

#[tokio::test]
async fn a_grant_serves_its_object_and_method_only() {
    let fixture = Fixture::new().await;
    let client = Client::new();
    let object = fixture.store.put("acts", noise(10)).await.unwrap();
    let get = fixture.store.presign_get("acts", &object.digest, MINUTE).await.unwrap();
    let put = client.put(&get, noise(10), DEADLINE).await;
    assert!(matches!(put, Err(Error::BadGrant { operation: "put", .. })), "{put:?}");
    let other = client.get(&get, &ObjectRef::of(b"other"), DEADLINE).await;
    assert!(matches!(other, Err(Error::BadGrant { operation: "get", .. })), "{other:?}");
    let shorter = ObjectRef { bytes: 9, ..object };
    let key = format!("{}/acts/{}", crate::fixture::BUCKET, object.digest);
    let long = client.get(&get, &shorter, DEADLINE).await;
    assert_eq!(long, Err(Error::TooLarge { key: key.clone(), limit: 9, found: 10 }));
    fixture.store.delete("acts", &object.digest).await.unwrap();
    assert_eq!(client.get(&get, &object, DEADLINE).await, Err(Error::Missing { key }));
}

#[tokio::test]
async fn corruption_is_found_by_who_reads_through_a_grant() {
    let fixture = Fixture::new().await;
    let object = fixture.store.put("acts", noise(10)).await.unwrap();
    let file = fixture.files("objects").remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[3] ^= 0x80;
    std::fs::write(&file, bytes).unwrap();
    let get = fixture.store.presign_get("acts", &object.digest, MINUTE).await.unwrap();
    match Client::new().get(&get, &object, DEADLINE).await {
        Err(error @ Error::Corrupt { .. }) => assert!(error.to_string().contains(&object.digest.to_string())),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_silent_server_does_not_hold_the_client() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let object = ObjectRef::of(b"x");
    let url = format!("http://{}/b/acts/{}", listener.local_addr().unwrap(), object.digest);
    let grant = wire::Presigned { verb: wire::Verb::Get, url, headers: vec![], expires_ms: 0 };
    let outcome = Client::new().get(&grant, &object, Duration::from_millis(100)).await;
    assert!(matches!(outcome, Err(Error::Timeout { after_ms: 100, .. })), "{outcome:?}");
    // Nobody listens at all.
    drop(listener);
    let outcome = Client::new().get(&grant, &object, DEADLINE).await;
    assert!(matches!(outcome, Err(Error::Unavailable { .. })), "{outcome:?}");
}

fn set_header(headers: &mut Vec<(String, String)>, name: &str, value: &str) {
    headers.retain(|(there, _)| there != name);
    headers.push((name.to_owned(), value.to_owned()));
}

/// The status that a client gets which checks nothing by itself.
async fn raw_put(fixture: &Fixture, grant: &wire::Presigned, bytes: &[u8]) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let path = grant.url.strip_prefix(&fixture.server.endpoint()).unwrap();
    let mut request =
        format!("PUT {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", fixture.server.addr());
    for (name, value) in grant.headers.iter().filter(|(name, _)| name != "host") {
        request += &format!("{name}: {value}\r\n");
    }
    let mut connection = tokio::net::TcpStream::connect(fixture.server.addr()).await.unwrap();
    connection.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, connection.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap().parse().unwrap()
}
