use store::{Faults, Faulty, Memory, conformance::check};

use crate::fixture::Fixture;

#[tokio::test]
async fn memory_conforms() {
    check(&Memory::new(), "try").await.unwrap();
}

#[tokio::test]
async fn faulty_without_faults_conforms() {
    check(&Faulty::new(Memory::new(), 1, Faults::NONE), "try").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_on_the_embedded_server_conforms() {
    let fixture = Fixture::new().await;
    check(&fixture.store, "runs/try").await.unwrap();
}

/// The suite itself must be able to fail.
#[tokio::test]
async fn a_store_that_loses_answers_does_not_conform() {
    let faults = Faults { answer_lost: 1.0, ..Faults::NONE };
    let violation = check(&Faulty::new(Memory::new(), 1, faults), "try").await.unwrap_err();
    assert_eq!(violation.rule, "store under the digest, twice as well");
}
