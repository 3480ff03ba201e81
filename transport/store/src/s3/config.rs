//! How to reach a bucket, and the SDK client made from it.

use std::{fmt, time::Duration};

use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Config, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
};

use crate::{Error, Result, http};

/// Smallest part that S3 accepts in a multipart upload, in bytes.
const MIN_PART_LEN: u64 = 5 << 20;

/// Where a bucket is, who we are there, and how patient to be.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Config {
    /// `http://host:port` or `https://host[:port]`; buckets are addressed by path below it.
    pub endpoint: String,
    /// Region that goes into signatures; servers of one's own mostly take any.
    pub region: String,
    /// Name of the bucket.
    pub bucket: String,
    /// Public half of the credentials.
    pub access_key: String,
    /// Secret half; never printed.
    pub secret_key: String,
    /// Objects longer than this travel in parts of this length, in bytes; at least 5 MiB.
    pub part_len: u64,
    /// Longest object that will be read, in bytes.
    pub max_object_len: u64,
    /// Time for one HTTP request up to its response's headers.
    pub attempt_timeout: Duration,
    /// Time for one call of [`crate::Store`], retries included.
    pub deadline: Duration,
}

impl S3Config {
    /// Defaults for everything but the place and the credentials: region `us-east-1`, parts of 8 MiB, objects up to
    /// 64 GiB, 30 s an attempt, 5 minutes a call.
    pub fn new(
        endpoint: impl Into<String>,
        bucket: impl Into<String>,
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            region: "us-east-1".to_owned(),
            bucket: bucket.into(),
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            part_len: 8 << 20,
            max_object_len: 64 << 30,
            attempt_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(300),
        }
    }

    /// The SDK's client, and whether payloads may go unsigned.
    pub(super) fn client(&self) -> Result<(Client, bool)> {
        let bad = |field, found: &str, reason: &str| {
            Err(Error::BadConfig { field, found: found.to_owned(), reason: reason.to_owned() })
        };
        let (tls, host) = match self.endpoint.split_once("://") {
            Some(("http", host)) if !host.is_empty() => (false, host),
            Some(("https", host)) if !host.is_empty() => (true, host),
            _ => return bad("endpoint", &self.endpoint, "expected http://host:port or https://host"),
        };
        if self.bucket.is_empty() {
            return bad("bucket", &self.bucket, "expected a name");
        }
        if self.access_key.is_empty() || self.secret_key.is_empty() {
            return bad("access_key", &self.access_key, "expected an access key and a secret key");
        }
        if self.part_len < MIN_PART_LEN {
            return bad("part_len", &self.part_len.to_string(), "expected at least 5 MiB");
        }
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(http::CONNECT_TIMEOUT)
            .operation_attempt_timeout(self.attempt_timeout)
            .build();
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .credentials_provider(Credentials::new(&self.access_key, &self.secret_key, None, None, "config"))
            .region(Region::new(self.region.clone()))
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .http_client(http::client(tls))
            // We retry ourselves: bodies too, and knowing what an unanswered conditional write means.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // Uploads carry a CRC32, for the server to verify before it commits. Downloads are verified by BLAKE3.
            .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Ok((Client::from_conf(config), !tls && is_loopback(host)))
    }
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('/');
    host.parse::<std::net::SocketAddr>().is_ok_and(|addr| addr.ip().is_loopback())
        || host.rsplit_once(':').map_or(host, |(name, _)| name) == "localhost"
}
