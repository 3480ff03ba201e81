use std::time::Duration;

use bucket::Credentials;
use store::{Error, S3, S3Config, Store};

use crate::fixture::{Fixture, config, noise};

#[tokio::test]
async fn a_taken_port_and_a_taken_folder_are_clear_errors() {
    let fixture = Fixture::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let credentials = fixture.credentials.clone();
    let error =
        bucket::serve(elsewhere.path(), fixture.server.addr(), credentials.clone()).await.unwrap_err();
    assert!(matches!(error, bucket::Error::PortTaken { addr } if addr == fixture.server.addr()), "{error}");
    let error = bucket::serve(fixture.dir.path(), ([127, 0, 0, 1], 0).into(), credentials).await.unwrap_err();
    assert!(matches!(&error, bucket::Error::InUse { dir } if dir == fixture.dir.path()), "{error}");
}

#[tokio::test]
async fn a_port_is_free_after_shutdown() {
    let fixture = Fixture::new().await;
    fixture.store.put("weights", noise(10)).await.unwrap();
    let addr = fixture.server.addr();
    // The client's connection is still open and idle.
    fixture.server.shutdown().await;
    bucket::serve(fixture.dir.path(), addr, fixture.credentials).await.unwrap();
}

#[tokio::test]
async fn strangers_are_refused() {
    let fixture = Fixture::new().await;
    let object = fixture.store.put("weights", noise(10)).await.unwrap();
    let mut known_name = Credentials::generate().unwrap();
    known_name.access_key.clone_from(&fixture.credentials.access_key);
    for credentials in [Credentials::generate().unwrap(), known_name] {
        let stranger = S3::new(config(&fixture.server.endpoint(), &credentials)).unwrap();
        for outcome in [
            stranger.put("weights", noise(11)).await.map(drop),
            stranger.get("weights", &object.digest).await.map(drop),
            stranger.list("weights").await.map(drop),
            stranger.delete("weights", &object.digest).await,
        ] {
            assert!(matches!(outcome, Err(Error::Refused { status: 403, .. })), "{outcome:?}");
        }
    }
    assert_eq!(fixture.store.list("weights").await, Ok(vec![object]));
}

#[tokio::test]
async fn a_missing_bucket_is_no_missing_object() {
    let fixture = Fixture::new().await;
    let mut config = config(&fixture.server.endpoint(), &fixture.credentials);
    config.bucket = "elsewhere".to_owned();
    let store = S3::new(config).unwrap();
    match store.get("weights", &spec::Digest::of(b"")).await {
        Err(Error::Refused { status: 404, reason, .. }) => {
            assert!(reason.contains("no bucket elsewhere"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_unreachable_store_is_transient_and_bounded() {
    let fixture = Fixture::new().await;
    let endpoint = fixture.server.endpoint();
    fixture.server.shutdown().await;
    let store = S3::new(config(&endpoint, &fixture.credentials)).unwrap();
    let error = store.put("weights", noise(10)).await.unwrap_err();
    assert!(error.is_transient() && matches!(error, Error::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_silent_store_is_given_up_at_the_deadline() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut config = config(&endpoint, &Credentials::generate().unwrap());
    config.deadline = Duration::from_millis(200);
    let error = S3::new(config).unwrap().put("weights", noise(10)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { after_ms: 200, .. }), "{error:?}");
}

#[test]
fn a_configuration_that_cannot_work_names_its_field() {
    let good = S3Config::new("http://127.0.0.1:9", "b", "key", "secret");
    assert!(S3::new(good.clone()).is_ok());
    let with = |change: &dyn Fn(&mut S3Config)| {
        let mut config = good.clone();
        change(&mut config);
        match S3::new(config) {
            Err(Error::BadConfig { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(with(&|config| config.endpoint = "127.0.0.1:9".to_owned()), "endpoint");
    assert_eq!(with(&|config| config.endpoint = "http://".to_owned()), "endpoint");
    assert_eq!(with(&|config| config.bucket.clear()), "bucket");
    assert_eq!(with(&|config| config.secret_key.clear()), "access_key");
    assert_eq!(with(&|config| config.part_len = 1), "part_len");
}

#[test]
fn secrets_are_not_printed() {
    let config = S3Config::new("http://127.0.0.1:9", "b", "key", "hush");
    assert!(!format!("{config:?} {:?}", S3::new(config.clone()).unwrap()).contains("hush"));
    let credentials = Credentials { access_key: "key".to_owned(), secret_key: "hush".to_owned() };
    assert!(!format!("{credentials:?}").contains("hush"));
}
