//! The real store: any S3 endpoint, through `aws-sdk-s3`.

mod config;
mod failure;
mod multipart;
mod spool;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    operation::{get_object::GetObjectOutput, list_objects_v2::ListObjectsV2Output},
    presigning::{PresignedRequest, PresigningConfig},
    primitives::ByteStream,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use spec::Digest;
use wire::{ObjectRef, Presigned, Verb};

pub use self::config::S3Config;
use self::failure::Failure;
use crate::{
    Error, MAX_POINTER_LEN, Pointer, Presign, Result, Store, Version, http,
    key::{check_name, digest_in_key, object_key},
    retry::{retried, verified, within},
};

/// Requests for parts of one object that are under way at a time.
const PARTS_AT_ONCE: usize = 4;

/// A bucket on an S3 endpoint.
#[derive(Debug, Clone)]
pub struct S3 {
    client: Client,
    config: S3Config,
    /// Whether bodies go out without a SHA-256 in their signature: on loopback nobody is between the two ends.
    unsigned_payload: bool,
}

impl S3 {
    /// A client for `config.bucket`; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::BadConfig`] names the field that is wrong.
    pub fn new(config: S3Config) -> Result<Self> {
        let (client, unsigned_payload) = config.client()?;
        Ok(Self { client, config, unsigned_payload })
    }

    /// Creates the bucket unless it is there.
    pub async fn create_bucket(&self) -> Result<()> {
        let bucket = &self.config.bucket;
        let create = retried(|| async {
            match self.client.create_bucket().bucket(bucket).send().await.map_err(Failure::from) {
                Ok(_) => Ok(()),
                Err(failure) if failure.code == "BucketAlreadyOwnedByYou" => Ok(()),
                Err(failure) => Err(failure.into_error("create", bucket)),
            }
        });
        within("create", bucket, self.config.deadline, create).await
    }

    /// The whole object, in parts when it is long. What it is worth is the caller's to find out.
    async fn fetch(&self, key: &str) -> Result<Bytes> {
        let mut all = BytesMut::new();
        self.fetch_into(key, |part| {
            all.extend_from_slice(part);
            Ok(())
        })
        .await?;
        Ok(all.freeze())
    }

    /// As `fetch`, part by part, in order; how many bytes they are.
    async fn fetch_into(&self, key: &str, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let part_len = self.config.part_len;
        let first = retried(|| self.fetch_part(key, 0, part_len - 1, None)).await?;
        let limit = self.config.max_object_len;
        if first.whole_len > limit {
            return Err(Error::TooLarge { key: key.to_owned(), limit, found: first.whole_len });
        }
        sink(&first.bytes)?;
        if first.whole_len <= part_len {
            return Ok(first.whole_len);
        }
        let starts = (part_len..first.whole_len).step_by(part_len as usize);
        let e_tag = first.e_tag.as_deref();
        let parts = stream::iter(starts).map(|start| {
            let end = first.whole_len.min(start + part_len) - 1;
            // The tag keeps parts of two objects from being joined when one replaces the other in between.
            retried(move || self.fetch_part(key, start, end, e_tag))
        });
        let mut parts = parts.buffered(PARTS_AT_ONCE);
        while let Some(part) = parts.try_next().await? {
            sink(&part.bytes)?;
        }
        Ok(first.whole_len)
    }

    /// One attempt at the bytes from `start` to `end`, both included, or to the object's end.
    async fn fetch_part(&self, key: &str, start: u64, end: u64, e_tag: Option<&str>) -> Result<Fetched> {
        let request = self.client.get_object().bucket(&self.config.bucket).key(key);
        let request = request.range(format!("bytes={start}-{end}")).set_if_match(e_tag.map(str::to_owned));
        match request.send().await.map_err(Failure::from) {
            Ok(output) => read(key, output, end - start + 1).await,
            // No byte satisfies the range: the object is empty.
            Err(failure) if failure.status == 416 => Ok(Fetched::default()),
            Err(failure) => Err(failure.into_error("get", key)),
        }
    }

    /// One attempt to find out whether the key is taken.
    async fn is_there(&self, key: &str) -> Result<bool> {
        let request = self.client.head_object().bucket(&self.config.bucket).key(key);
        match request.send().await.map_err(Failure::from) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_missing_object() => Ok(false),
            Err(failure) => Err(failure.into_error("find", key)),
        }
    }

    /// Writes the object unless its key is taken, as by an earlier put of the same bytes.
    async fn write_once(&self, key: &str, bytes: Bytes) -> Result<()> {
        if bytes.len() as u64 > self.config.part_len {
            self.put_parts(key, bytes).await
        } else {
            retried(|| self.put_whole(key, bytes.clone())).await
        }
    }

    async fn put_whole(&self, key: &str, bytes: Bytes) -> Result<()> {
        let request = self.client.put_object().bucket(&self.config.bucket).key(key);
        let request = request.if_none_match("*").body(ByteStream::from(bytes)).customize();
        let request = if self.unsigned_payload { request.disable_payload_signing() } else { request };
        match request.send().await.map_err(Failure::from) {
            Ok(_) => Ok(()),
            Err(failure) if failure.status == 412 => Ok(()),
            Err(failure) => Err(failure.into_error("put", key)),
        }
    }

    /// A conditional write whose outcome is known even when an answer was lost on the way.
    async fn advance_surely(&self, name: &str, expected: Option<&Version>, value: Bytes) -> Result<Version> {
        // An attempt went unanswered: it may have moved the pointer.
        let in_doubt = AtomicBool::new(false);
        retried(|| async {
            let failure = match self.try_advance(name, expected, value.clone()).await {
                Ok(Some(version)) => return Ok(version),
                Ok(None) => return Err(no_tag("put", name)),
                Err(failure) => failure,
            };
            // 409: another conditional write was under way, nothing happened. 404: there is nothing to match.
            let lost = failure.status == 412 || (expected.is_some() && failure.is_missing_object());
            if lost && in_doubt.load(Ordering::Relaxed) {
                match self.read_pointer(name).await? {
                    Some(now) if now.value == value => return Ok(now.version),
                    _ => return Err(Error::LostRace { name: name.to_owned() }),
                }
            }
            if lost {
                return Err(Error::LostRace { name: name.to_owned() });
            }
            if failure.is_transient() {
                in_doubt.store(true, Ordering::Relaxed);
            }
            Err(failure.into_error("put", name))
        })
        .await
    }

    /// One attempt to move a pointer.
    async fn try_advance(
        &self,
        name: &str,
        expected: Option<&Version>,
        value: Bytes,
    ) -> Result<Option<Version>, Failure> {
        let request = self.client.put_object().bucket(&self.config.bucket).key(name);
        let request = match expected {
            None => request.if_none_match("*"),
            Some(Version(e_tag)) => request.if_match(e_tag),
        };
        let output = request.body(ByteStream::from(value)).send().await.map_err(Failure::from)?;
        Ok(output.e_tag.map(Version))
    }

    async fn read_pointer(&self, name: &str) -> Result<Option<Pointer>> {
        let request = self.client.get_object().bucket(&self.config.bucket).key(name);
        let output = match request.send().await.map_err(Failure::from) {
            Ok(output) => output,
            Err(failure) if failure.is_missing_object() => return Ok(None),
            Err(failure) => return Err(failure.into_error("get", name)),
        };
        let fetched = read(name, output, MAX_POINTER_LEN).await?;
        let version = Version(fetched.e_tag.ok_or_else(|| no_tag("get", name))?);
        Ok(Some(Pointer { value: fetched.bytes, version }))
    }

    async fn list_all(&self, prefix: &str) -> Result<Vec<ObjectRef>> {
        let mut listed = Vec::new();
        let mut token = None;
        loop {
            let page = retried(|| self.list_page(prefix, token.clone())).await?;
            listed.extend(page.contents().iter().filter_map(|object| {
                let digest = digest_in_key(prefix, object.key()?)?;
                Some(ObjectRef { digest, bytes: u64::try_from(object.size()?).ok()? })
            }));
            token = page.next_continuation_token;
            if token.is_none() {
                listed.sort_unstable();
                return Ok(listed);
            }
        }
    }

    async fn list_page(&self, prefix: &str, token: Option<String>) -> Result<ListObjectsV2Output> {
        let request = self.client.list_objects_v2().bucket(&self.config.bucket).delimiter("/");
        let request = request.prefix(format!("{prefix}/")).set_continuation_token(token);
        request.send().await.map_err(|error| Failure::from(error).into_error("list", prefix))
    }

    async fn try_delete(&self, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.config.bucket).key(key);
        match request.send().await.map_err(Failure::from) {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_missing_object() => Ok(()),
            Err(failure) => Err(failure.into_error("delete", key)),
        }
    }
}

#[async_trait]
impl Store for S3 {
    async fn put(&self, prefix: &str, bytes: Bytes) -> Result<ObjectRef> {
        let object = ObjectRef::of(&bytes);
        let key = object_key(prefix, &object.digest)?;
        within("put", &key, self.config.deadline, self.write_once(&key, bytes)).await?;
        Ok(object)
    }

    async fn get(&self, prefix: &str, digest: &Digest) -> Result<Bytes> {
        let key = object_key(prefix, digest)?;
        within("get", &key, self.config.deadline, verified(&key, digest, || self.fetch(&key))).await
    }

    async fn exists(&self, prefix: &str, digest: &Digest) -> Result<bool> {
        let key = object_key(prefix, digest)?;
        within("find", &key, self.config.deadline, retried(|| self.is_there(&key))).await
    }

    async fn delete(&self, prefix: &str, digest: &Digest) -> Result<()> {
        let key = object_key(prefix, digest)?;
        within("delete", &key, self.config.deadline, retried(|| self.try_delete(&key))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectRef>> {
        check_name(prefix)?;
        within("list", prefix, self.config.deadline, self.list_all(prefix)).await
    }

    async fn pointer(&self, name: &str) -> Result<Option<Pointer>> {
        check_name(name)?;
        within("get", name, self.config.deadline, retried(|| self.read_pointer(name))).await
    }

    async fn advance(&self, name: &str, expected: Option<&Version>, value: Bytes) -> Result<Version> {
        check_name(name)?;
        Pointer::check_len(name, &value)?;
        within("put", name, self.config.deadline, self.advance_surely(name, expected, value)).await
    }
}

#[async_trait]
impl Presign for S3 {
    async fn presign_get(&self, prefix: &str, digest: &Digest, valid: Duration) -> Result<Presigned> {
        let key = object_key(prefix, digest)?;
        let (window, expires_ms) = window("get", &key, valid)?;
        let request = self.client.get_object().bucket(&self.config.bucket).key(&key);
        let signed =
            request.presigned(window).await.map_err(|error| Failure::from(error).into_error("get", &key))?;
        Ok(grant(Verb::Get, signed, expires_ms))
    }

    async fn presign_put(&self, prefix: &str, object: &ObjectRef, valid: Duration) -> Result<Presigned> {
        let key = object_key(prefix, &object.digest)?;
        let (window, expires_ms) = window("put", &key, valid)?;
        let Ok(len) = i64::try_from(object.bytes) else {
            return Err(Error::TooLarge { key, limit: i64::MAX as u64, found: object.bytes });
        };
        let request = self.client.put_object().bucket(&self.config.bucket).key(&key);
        let request = request.content_length(len).if_none_match("*");
        let signed =
            request.presigned(window).await.map_err(|error| Failure::from(error).into_error("put", &key))?;
        Ok(grant(Verb::Put, signed, expires_ms))
    }
}

/// From now until `valid` later; also that end, in milliseconds since the Unix epoch.
fn window(operation: &'static str, key: &str, valid: Duration) -> Result<(PresigningConfig, u64)> {
    // Signatures count in whole seconds, rounded down; so must what we promise.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (start, valid) = (Duration::from_secs(now.as_secs()), Duration::from_secs(valid.as_secs()));
    let config = PresigningConfig::builder().start_time(UNIX_EPOCH + start).expires_in(valid).build();
    let bad = |reason| Error::BadGrant { operation, key: key.to_owned(), reason };
    Ok((config.map_err(|error| bad(http::chain(&error)))?, (start + valid).as_millis() as u64))
}

fn grant(verb: Verb, signed: PresignedRequest, expires_ms: u64) -> Presigned {
    let headers = signed.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Presigned { verb, url: signed.uri().to_owned(), headers, expires_ms }
}

/// What a request for bytes brought.
#[derive(Default)]
struct Fetched {
    bytes: Bytes,
    /// Length of the object of which they may be a part, in bytes.
    whole_len: u64,
    e_tag: Option<String>,
}

async fn read(key: &str, output: GetObjectOutput, limit: u64) -> Result<Fetched> {
    let announced = output.content_length().and_then(|len| u64::try_from(len).ok()).unwrap_or(0);
    let range = output.content_range().and_then(|range| range.rsplit_once('/'));
    let whole_len = range.and_then(|(_, len)| len.parse().ok()).unwrap_or(announced);
    let bytes = http::read_body(output.body, announced, limit).await;
    let bytes = bytes.map_err(|error| error.into_error(key, limit))?;
    Ok(Fetched { bytes, whole_len, e_tag: output.e_tag })
}

fn no_tag(operation: &'static str, name: &str) -> Error {
    let reason = "the endpoint sent no entity tag, without which pointers cannot be moved safely".to_owned();
    Error::Unavailable { operation, key: name.to_owned(), reason }
}
