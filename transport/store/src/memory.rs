//! The twin that forgets everything when dropped.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use spec::Digest;
use wire::ObjectRef;

use crate::{
    Error, Pointer, Result, Store, Version,
    key::{check_name, digest_in_key, object_key},
};

/// A store in this process's memory, for simulations and tests of what stands on a store.
#[derive(Debug, Default)]
pub struct Memory {
    /// Objects and pointers by key, as on S3, so that a pointer can shadow nothing there that it does not shadow here.
    values: Mutex<BTreeMap<String, Bytes>>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        // No code below can panic between two writes of one change, so a poisoned map is still whole.
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for Memory {
    async fn put(&self, prefix: &str, bytes: Bytes) -> Result<ObjectRef> {
        let object = ObjectRef::of(&bytes);
        self.values().insert(object_key(prefix, &object.digest)?, bytes);
        Ok(object)
    }

    async fn get(&self, prefix: &str, digest: &Digest) -> Result<Bytes> {
        let key = object_key(prefix, digest)?;
        let bytes = self.values().get(&key).cloned();
        bytes.ok_or(Error::Missing { key })
    }

    async fn exists(&self, prefix: &str, digest: &Digest) -> Result<bool> {
        Ok(self.values().contains_key(&object_key(prefix, digest)?))
    }

    async fn delete(&self, prefix: &str, digest: &Digest) -> Result<()> {
        self.values().remove(&object_key(prefix, digest)?);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectRef>> {
        check_name(prefix)?;
        let values = self.values();
        // '0' follows '/'.
        let under = values.range(format!("{prefix}/")..format!("{prefix}0"));
        Ok(under
            .filter_map(|(key, bytes)| {
                Some(ObjectRef { digest: digest_in_key(prefix, key)?, bytes: bytes.len() as u64 })
            })
            .collect())
    }

    async fn pointer(&self, name: &str) -> Result<Option<Pointer>> {
        check_name(name)?;
        Ok(self.values().get(name).map(|value| Pointer { value: value.clone(), version: version_of(value) }))
    }

    async fn advance(&self, name: &str, expected: Option<&Version>, value: Bytes) -> Result<Version> {
        check_name(name)?;
        Pointer::check_len(name, &value)?;
        let mut values = self.values();
        if values.get(name).map(version_of).as_ref() != expected {
            return Err(Error::LostRace { name: name.to_owned() });
        }
        let version = version_of(&value);
        values.insert(name.to_owned(), value);
        Ok(version)
    }
}

fn version_of(value: &Bytes) -> Version {
    Version(Digest::of(value).to_string())
}
