//! One object, one size, a few minutes, written once: what a machine without credentials may do.

mod client;

use serde::{Deserialize, Serialize};

pub use self::client::Client;

/// A grant for one request, made by [`crate::Presign`] and spent by [`Client`].
///
/// Whoever holds it can use it: send it only over an encrypted, authenticated channel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presigned {
    /// What the grant is for.
    pub method: Method,
    /// Absolute URL, with the signature in its query.
    pub url: String,
    /// Names and values that the signature covers: to be sent exactly as they are.
    pub headers: Vec<(String, String)>,
    /// Milliseconds since the Unix epoch after which the store refuses the grant.
    pub expires_ms: u64,
}

/// The two things a grant can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Read the object.
    Get,
    /// Write the object once, with the size that was signed.
    Put,
}

impl Presigned {
    /// Key of the object with the bucket in front, as far as the URL tells: its path without the leading slash.
    pub fn path(&self) -> &str {
        let after_scheme = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let path = after_scheme.split_once('/').map_or("", |(_, path)| path);
        path.split_once('?').map_or(path, |(path, _)| path)
    }
}

/// Without the query, which is as good as a key.
impl std::fmt::Debug for Presigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presigned")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}
