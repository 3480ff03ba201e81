//! The HTTP stack below both the S3 client and the grants: HTTP/1.1 on loopback, rustls with ring elsewhere.

use std::time::Duration;

use aws_sdk_s3::{config::SharedHttpClient, primitives::ByteStream};
use aws_smithy_http_client::{
    Builder, Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpConnector};
use bytes::{Bytes, BytesMut};

use crate::Error;

/// A dead host shows itself by this, long before the deadline of a call.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most that is allocated on the word of a `Content-Length` before any byte has come, in bytes.
const MAX_TRUSTED_RESERVE: u64 = 1 << 20;

/// A client for the SDK. Loading the system's root certificates costs milliseconds, so plain HTTP goes without.
pub(crate) fn client(tls: bool) -> SharedHttpClient {
    if tls { Builder::new().tls_provider(tls_provider()).build_https() } else { Builder::new().build_http() }
}

/// The same without the SDK on top.
pub(crate) fn connector(tls: bool) -> SharedHttpConnector {
    let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build();
    let builder = Connector::builder().connector_settings(settings);
    SharedHttpConnector::new(if tls {
        builder.tls_provider(tls_provider()).build()
    } else {
        builder.build_http()
    })
}

/// Why a body could not be read to its end.
pub(crate) enum BodyError {
    /// It is longer than `limit`; the rest was not read.
    TooLong {
        /// Bytes read when that became clear.
        read: u64,
    },
    /// The connection broke.
    Broken(String),
}

impl BodyError {
    pub(crate) fn into_error(self, key: &str, limit: u64) -> Error {
        let key = key.to_owned();
        match self {
            Self::TooLong { read } => Error::TooLarge { key, limit, found: read },
            Self::Broken(reason) => Error::Unavailable { operation: "get", key, reason },
        }
    }
}

/// Reads a body of at most `limit` bytes. `announced` is what the other side says of its length.
pub(crate) async fn read_body(mut body: ByteStream, announced: u64, limit: u64) -> Result<Bytes, BodyError> {
    if announced > limit {
        return Err(BodyError::TooLong { read: announced });
    }
    let mut all = BytesMut::with_capacity(announced.min(MAX_TRUSTED_RESERVE) as usize);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| BodyError::Broken(chain(&error)))?;
        let read = (all.len() + chunk.len()) as u64;
        if read > limit {
            return Err(BodyError::TooLong { read });
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// An error and all its causes in one line: the outer ones of this stack say little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn tls_provider() -> Provider {
    Provider::Rustls(CryptoMode::Ring)
}
