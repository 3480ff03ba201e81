//! One object, one size, a few minutes, written once: what a machine without credentials may do.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
};
use bytes::Bytes;
use spec::Digest;
use wire::{ObjectRef, Presigned, Verb};

use crate::{
    Error, Result, http,
    retry::{retried, verified, within},
};

/// Most of an error page that is kept as the reason, in bytes.
const MAX_REASON_LEN: u64 = 4096;

/// Spends grants. Keeps connections open between calls, so make one and share its clones.
#[derive(Debug, Clone)]
pub struct Client {
    plain: SharedHttpConnector,
    /// Built on first use: it loads the system's root certificates.
    tls: Arc<OnceLock<SharedHttpConnector>>,
}

impl Default for Client {
    fn default() -> Self {
        Self { plain: http::connector(false), tls: Arc::default() }
    }
}

impl Client {
    /// A client without open connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the object and verifies it, done or failed when `deadline` has passed; no more is read than the object
    /// is long.
    ///
    /// Corrupt bytes are fetched once more; failures of the network or the store are retried.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Corrupt`], [`Error::TooLarge`]; [`Error::Refused`] for an expired or altered
    /// grant, [`Error::BadGrant`] for one that is not to read this object; [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn get(&self, grant: &Presigned, object: &ObjectRef, deadline: Duration) -> Result<Bytes> {
        let key = check("get", grant, Verb::Get, &object.digest)?;
        let fetch = || async {
            let response = self.send("get", key, grant, Bytes::new()).await?;
            match response.status().as_u16() {
                200 => read(key, response, object.bytes).await,
                404 => Err(Error::Missing { key: key.to_owned() }),
                _ => Err(refusal("get", key, response).await),
            }
        };
        within("get", key, deadline, verified(key, &object.digest, || retried(fetch))).await
    }

    /// Writes the object of which `bytes` is the content. That it is there already is success: its name is the
    /// digest of `bytes`, and readers hold it to that.
    ///
    /// # Errors
    /// [`Error::BadGrant`] when the grant is not to write these bytes; [`Error::Refused`] when it has expired, was
    /// altered or is for another size; [`Error::Unavailable`], [`Error::Timeout`].
    pub async fn put(&self, grant: &Presigned, bytes: Bytes, deadline: Duration) -> Result<ObjectRef> {
        let object = ObjectRef::of(&bytes);
        let key = check("put", grant, Verb::Put, &object.digest)?;
        let store = || async {
            let response = self.send("put", key, grant, bytes.clone()).await?;
            match response.status().as_u16() {
                200 | 412 => Ok(object),
                _ => Err(refusal("put", key, response).await),
            }
        };
        within("put", key, deadline, retried(store)).await
    }

    async fn send(
        &self,
        operation: &'static str,
        key: &str,
        grant: &Presigned,
        body: Bytes,
    ) -> Result<HttpResponse> {
        let bad = |reason: String| Error::BadGrant { operation, key: key.to_owned(), reason };
        let mut request = HttpRequest::new(SdkBody::from(body));
        let method = match grant.verb {
            Verb::Get => "GET",
            Verb::Put => "PUT",
        };
        request.set_method(method).map_err(|error| bad(http::chain(&error)))?;
        request.set_uri(grant.url.as_str()).map_err(|error| bad(http::chain(&error)))?;
        for (name, value) in &grant.headers {
            let inserted = request.headers_mut().try_insert(name.clone(), value.clone());
            inserted.map_err(|error| bad(http::chain(&error)))?;
        }
        let connector = if grant.url.starts_with("https://") {
            self.tls.get_or_init(|| http::connector(true))
        } else {
            &self.plain
        };
        connector.call(request).await.map_err(|error| Error::Unavailable {
            operation,
            key: key.to_owned(),
            reason: http::chain(&error),
        })
    }
}

/// The grant's key, if it is for this method and object.
fn check<'a>(operation: &'static str, grant: &'a Presigned, verb: Verb, digest: &Digest) -> Result<&'a str> {
    let key = grant.path();
    let bad = |reason: String| Err(Error::BadGrant { operation, key: key.to_owned(), reason });
    if grant.verb != verb {
        return bad(format!("it allows {:?} only", grant.verb));
    }
    match key.rsplit_once('/') {
        Some((_, name)) if name == digest.to_string() => Ok(key),
        _ => bad(format!("it is not for the object {digest}")),
    }
}

async fn read(key: &str, response: HttpResponse, limit: u64) -> Result<Bytes> {
    let announced = response.headers().get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    http::read_body(ByteStream::new(response.into_body()), announced, limit)
        .await
        .map_err(|error| error.into_error(key, limit))
}

async fn refusal(operation: &'static str, key: &str, response: HttpResponse) -> Error {
    let status = response.status().as_u16();
    let body = http::read_body(ByteStream::new(response.into_body()), 0, MAX_REASON_LEN).await;
    let page = body.unwrap_or_default();
    let page = String::from_utf8_lossy(&page);
    let field = |name: &str| {
        let (_, rest) = page.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(value, _)| value.to_owned())
    };
    let words: Vec<String> = ["Code", "Message"].into_iter().filter_map(field).collect();
    let reason = if words.is_empty() { "no reason given".to_owned() } else { words.join(": ") };
    Error::from_status(operation, key, status, reason)
}
