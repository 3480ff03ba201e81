//! Objects that memory should not hold: fetched part by part into a file, and read where they lie.

use super::S3;
use crate::key::object_key;
use crate::retry::within;
use crate::{Error, Result, Store};
use bytes::Bytes;
use memmap2::Mmap;
use spec::Digest;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use wire::ObjectRef;

/// A longer object is spooled, in bytes.
const IN_MEMORY_BYTES_MAX: u64 = 256 << 20;
/// The slowest that a store may be, in bytes/s, besides what a call may take.
const BYTES_PER_S_MIN: u64 = 1 << 20;

impl S3 {
    /// As [`Store::get`]; a long object lies in a file of `folder`, which has no name and goes with the last of its bytes.
    ///
    /// # Errors
    /// As [`Store::get`]; [`Error::Unavailable`] where the file cannot be written.
    pub async fn get_spooled(&self, prefix: &str, object: &ObjectRef, folder: &Path) -> Result<Bytes> {
        if object.bytes <= IN_MEMORY_BYTES_MAX {
            return self.get(prefix, &object.digest).await;
        }
        let deadline = self.config.deadline + Duration::from_secs(object.bytes / BYTES_PER_S_MIN);
        let key = object_key(prefix, &object.digest)?;
        within("get", &key, deadline, self.spool(prefix, &object.digest, folder)).await
    }

    /// The object in a file.
    ///
    /// # Errors
    /// As [`S3::get_spooled`].
    pub async fn spool(&self, prefix: &str, digest: &Digest, folder: &Path) -> Result<Bytes> {
        let key = object_key(prefix, digest)?;
        let failed = |error: std::io::Error| Error::Unavailable {
            operation: "spool",
            key: key.clone(),
            reason: format!("{}: {error}", folder.display()),
        };
        let mut file = tempfile::tempfile_in(folder).map_err(failed)?;
        let mut hasher = blake3::Hasher::new();
        let found_len = self
            .fetch_into(&key, |part| {
                hasher.update(part);
                file.write_all(part).map_err(failed)
            })
            .await?;
        let found = Digest(*hasher.finalize().as_bytes());
        if found != *digest {
            return Err(Error::Corrupt { key, expected: *digest, found, found_len });
        }
        mapped(&file).map_err(failed)
    }
}

fn mapped(file: &File) -> std::io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is only sound while nobody writes to the file. It has no name, and this handle goes with this function.
    unsafe { Mmap::map(file) }.map(Bytes::from_owner)
}
