//! The server by itself, as any S3 client meets it.

use std::collections::HashMap;

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region, retry::RetryConfig},
    error::ProvideErrorMetadata,
    primitives::ByteStream,
    types::{
        ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, Delete, MetadataDirective,
        ObjectIdentifier,
    },
};
use aws_smithy_http_client::Builder;

use crate::fixture::{BUCKET, Fixture, noise};

/// The error code of a request that must fail.
macro_rules! code_of {
    ($request:expr) => {{
        let error = $request.send().await.unwrap_err();
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        (status, error.code().unwrap_or_default().to_owned())
    }};
}

fn client(fixture: &Fixture) -> Client {
    let keys = &fixture.credentials;
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(Credentials::new(&keys.access_key, &keys.secret_key, None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(fixture.server.endpoint())
        .force_path_style(true)
        .http_client(Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn every_checksum_is_verified_before_anything_is_visible() {
    let fixture = Fixture::new().await;
    let client = client(&fixture);
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        let put = client.put_object().bucket(BUCKET).key("right").body(ByteStream::from(noise(1000)));
        put.checksum_algorithm(algorithm).send().await.unwrap();
    }
    let wrong = || client.put_object().bucket(BUCKET).key("wrong").body(ByteStream::from(noise(1000)));
    let bad = refused(400, "BadDigest");
    assert_eq!(code_of!(wrong().checksum_crc32("AAAAAA==")), bad);
    assert_eq!(code_of!(wrong().checksum_crc32_c("AAAAAA==")), bad);
    assert_eq!(code_of!(wrong().checksum_crc64_nvme("AAAAAAAAAAA=")), bad);
    assert_eq!(code_of!(wrong().checksum_sha1("AAAAAAAAAAAAAAAAAAAAAAAAAAA=")), bad);
    assert_eq!(code_of!(wrong().checksum_sha256("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")), bad);
    assert_eq!(code_of!(wrong().content_md5("AAAAAAAAAAAAAAAAAAAAAA==")), bad);
    let head = code_of!(client.head_object().bucket(BUCKET).key("wrong"));
    assert_eq!(head.0, 404);
    assert_eq!(fixture.files("temp").len(), 0);
    // MD5 of nothing, from RFC 1321.
    let right = client.put_object().bucket(BUCKET).key("empty").content_md5("1B2M2Y8AsgTpgAmY7PhCfg==");
    right.send().await.unwrap();
}

#[tokio::test]
async fn any_key_is_a_key() {
    let fixture = Fixture::new().await;
    let client = client(&fixture);
    let long = "k".repeat(1024);
    let keys = ["../../escape", "a b+c&d=e", "ünï/코드", "a/", "a//b", ".", long.as_str()];
    for (len, key) in keys.iter().enumerate() {
        let put = client.put_object().bucket(BUCKET).key(*key).body(ByteStream::from(noise(len)));
        put.send().await.unwrap();
    }
    for (len, key) in keys.iter().enumerate() {
        let object = client.get_object().bucket(BUCKET).key(*key).send().await.unwrap();
        assert_eq!(object.body.collect().await.unwrap().into_bytes(), noise(len), "{key}");
    }
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    let listed: Vec<&str> = listed.contents().iter().map(|object| object.key().unwrap()).collect();
    let mut sorted = keys;
    sorted.sort_unstable();
    assert_eq!(listed, sorted);
    assert_eq!(code_of!(client.put_object().bucket(BUCKET).key("k".repeat(1025))).1, "KeyTooLongError");
}

#[tokio::test]
async fn pages_hold_each_entry_once() {
    let fixture = Fixture::new().await;
    let client = client(&fixture);
    let keys = ["a", "b/1", "b/2", "b/3", "c", "d/1", "e"];
    for key in keys {
        client.put_object().bucket(BUCKET).key(key).send().await.unwrap();
    }
    for page_len in 1..=8 {
        for (delimiter, expected) in [(None, keys.to_vec()), (Some("/"), vec!["a", "b/", "c", "d/", "e"])] {
            let list = client.list_objects_v2().bucket(BUCKET).max_keys(page_len);
            let mut pages = list.set_delimiter(delimiter.map(str::to_owned)).into_paginator().send();
            let mut found = Vec::new();
            while let Some(page) = pages.next().await {
                let page = page.unwrap();
                assert!(page.key_count().unwrap() <= page_len);
                found.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
                found.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
            }
            found.sort();
            assert_eq!(found, expected, "{page_len} a page, delimiter {delimiter:?}");
        }
    }
    let list = client.list_objects_v2().bucket(BUCKET).prefix("b/").start_after("b/1");
    let listed = list.send().await.unwrap();
    assert_eq!(
        listed.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(),
        ["b/2", "b/3"]
    );
}

#[tokio::test]
async fn descriptions_are_kept_and_copied() {
    let fixture = Fixture::new().await;
    let client = client(&fixture);
    let put = client.put_object().bucket(BUCKET).key("from/a b").body(ByteStream::from(noise(1000)));
    put.content_type("text/plain").metadata("colour", "red").send().await.unwrap();
    let copy = |key: &str| {
        client.copy_object().bucket(BUCKET).key(key).copy_source(format!("{BUCKET}/from%2Fa%20b"))
    };
    copy("kept").send().await.unwrap();
    let replaced = copy("replaced").metadata_directive(MetadataDirective::Replace);
    replaced.content_type("text/html").send().await.unwrap();
    for (key, content_type, colour) in [("kept", "text/plain", Some("red")), ("replaced", "text/html", None)]
    {
        let object = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(object.content_type(), Some(content_type));
        let expected = colour.map(|colour| HashMap::from([("colour".to_owned(), colour.to_owned())]));
        assert_eq!(object.metadata().cloned().filter(|user| !user.is_empty()), expected);
        assert_eq!(object.body.collect().await.unwrap().into_bytes(), noise(1000));
    }
    let missing = client.copy_object().bucket(BUCKET).key("x").copy_source(format!("{BUCKET}/nothing"));
    assert_eq!(code_of!(missing), refused(404, "NoSuchKey"));
}

#[tokio::test]
async fn many_are_deleted_at_once() {
    let fixture = Fixture::new().await;
    let client = client(&fixture);
    for key in ["a", "b", "c"] {
        client.put_object().bucket(BUCKET).key(key).send().await.unwrap();
    }
    let name = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let delete =
        Delete::builder().objects(name("a")).objects(name("c")).objects(name("never")).build().unwrap();
    let output = client.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    assert_eq!((output.deleted().len(), output.errors().len()), (3, 0));
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(listed.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(fixture.files("objects").len(), 1);
}

#[tokio::test]
async fn conditions_hold_for_reads_and_writes() {
    let fixture = Fixture::new().await;
    let client = client(&fixture);
    let put = || client.put_object().bucket(BUCKET).key("k");
    let get = || client.get_object().bucket(BUCKET).key("k");
    let failed = refused(412, "PreconditionFailed");
    assert_eq!(code_of!(put().if_match("\"other\"")), refused(404, "NoSuchKey"));
    let first = put().if_none_match("*").send().await.unwrap().e_tag.unwrap();
    assert_eq!(code_of!(put().if_none_match("*")), failed);
    assert_eq!(code_of!(put().if_match("\"other\"")), failed);
    assert_eq!(code_of!(get().if_match("\"other\"")), failed);
    assert_eq!(code_of!(get().if_none_match(&first)).0, 304);
    get().if_match(&first).send().await.unwrap();
    let second = put().if_match(&first).body(ByteStream::from(noise(1))).send().await.unwrap().e_tag.unwrap();
    assert_ne!(first, second);
    assert_eq!(code_of!(put().if_match(&first)), failed);
    assert_eq!(code_of!(client.delete_object().bucket(BUCKET).key("k").if_match(&first)), failed);
    client.delete_object().bucket(BUCKET).key("k").if_match(&second).send().await.unwrap();
    assert_eq!(code_of!(get()), refused(404, "NoSuchKey"));
    assert_eq!(code_of!(client.create_bucket().bucket(BUCKET)), refused(409, "BucketAlreadyOwnedByYou"));
    client.head_bucket().bucket(BUCKET).send().await.unwrap();
    assert_eq!(code_of!(client.head_bucket().bucket("elsewhere")).0, 404);
}

#[tokio::test]
async fn uploads_complete_from_the_parts_they_name() {
    let fixture = Fixture::new().await;
    let client = client(&fixture);
    let created = client.create_multipart_upload().bucket(BUCKET).key("k").metadata("colour", "red");
    let id = created.send().await.unwrap().upload_id.unwrap();
    let part_len = 5 << 20;
    let mut tags = Vec::new();
    for (number, len) in [(1, part_len), (2, 10), (3, part_len + 1)] {
        let part = client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(number);
        tags.push(part.body(ByteStream::from(noise(len))).send().await.unwrap().e_tag.unwrap());
    }
    let part = |number: i32, tag: &str| CompletedPart::builder().part_number(number).e_tag(tag).build();
    let complete = |parts: &[CompletedPart]| {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
        client.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id).multipart_upload(parts)
    };
    let [first, second, third] = [part(1, &tags[0]), part(2, &tags[1]), part(3, &tags[2])];
    let forged = part(1, &tags[1]);
    let never = part(4, &tags[1]);
    assert_eq!(code_of!(complete(&[second.clone(), first.clone()])).1, "InvalidPartOrder");
    assert_eq!(code_of!(complete(&[first.clone(), second, third.clone()])).1, "EntityTooSmall");
    assert_eq!(code_of!(complete(&[forged])).1, "InvalidPart");
    assert_eq!(code_of!(complete(&[never])).1, "InvalidPart");

    let fixture = fixture.restarted().await;
    let client = self::client(&fixture);
    let listed = client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    assert_eq!(listed.uploads()[0].upload_id(), Some(id.as_str()));
    let parts = client.list_parts().bucket(BUCKET).key("k").upload_id(&id).send().await.unwrap();
    let found: Vec<_> =
        parts.parts().iter().map(|part| (part.part_number().unwrap(), part.size().unwrap())).collect();
    assert_eq!(found, [(1, part_len as i64), (2, 10), (3, part_len as i64 + 1)]);
    let parts = CompletedMultipartUpload::builder().set_parts(Some(vec![first, third])).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id);
    complete.multipart_upload(parts).send().await.unwrap();
    let object = client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(object.metadata().unwrap()["colour"], "red");
    let bytes = object.body.collect().await.unwrap().into_bytes();
    assert!(bytes == [noise(part_len), noise(part_len + 1)].concat());
    assert_eq!(fixture.files("uploads").len(), 0);
    let again = client.list_parts().bucket(BUCKET).key("k").upload_id(&id);
    assert_eq!(code_of!(again), refused(404, "NoSuchUpload"));
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let fixture = Fixture::new().await;
    let client = client(&fixture);
    let id =
        client.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap().upload_id.unwrap();
    let part = client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(1);
    part.body(ByteStream::from(noise(10))).send().await.unwrap();
    assert_eq!(fixture.files("uploads").len(), 2);
    let abort = |id: &str| client.abort_multipart_upload().bucket(BUCKET).key("k").upload_id(id);
    for stranger in ["../../lock", "0123456789abcdef", ""] {
        assert_ne!(code_of!(abort(stranger)).0, 200, "{stranger}");
    }
    abort(&id).send().await.unwrap();
    assert_eq!(fixture.files("uploads").len(), 0);
    assert_eq!(code_of!(abort(&id)), refused(404, "NoSuchUpload"));
    assert_eq!(code_of!(client.head_object().bucket(BUCKET).key("k")).0, 404);
}
