//! The SDK's error type, one per operation, reduced to what decides.

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use crate::{Error, http};

/// A failed request.
pub(super) struct Failure {
    /// HTTP status, 0 when there was no answer.
    pub status: u16,
    /// S3 error code, such as `NoSuchKey`; empty when there was none.
    pub code: String,
    reason: String,
}

impl Failure {
    /// The object is absent, in a bucket that is there.
    pub fn is_missing_object(&self) -> bool {
        self.status == 404 && self.code != "NoSuchBucket"
    }

    /// No answer, or one that says nothing about whether the request had an effect.
    pub fn is_transient(&self) -> bool {
        self.status == 0 || matches!(self.status, 429 | 500..)
    }

    /// In the words of this crate.
    pub fn into_error(self, operation: &'static str, key: &str) -> Error {
        if self.is_missing_object() {
            return Error::Missing { key: key.to_owned() };
        }
        match self.status {
            0 => Error::Unavailable { operation, key: key.to_owned(), reason: self.reason },
            status => Error::from_status(operation, key, status, self.reason),
        }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        match error.as_service_error().map(|error| (error.code(), error.message())) {
            Some((code, message)) => {
                let code = code.unwrap_or_default().to_owned();
                let reason = format!("{code}: {}", message.unwrap_or("no reason given"));
                Self { status, code, reason }
            }
            None => Self { status, code: String::new(), reason: http::chain(&error) },
        }
    }
}
