//! What outlives a process: the object store and the journals.

use spec::Digest;
use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;
use wire::ObjectRef;

/// Bytes with their name. They are hashed where they are made and shared by whoever has them: nobody here changes any.
#[derive(Debug, Clone)]
pub struct Object {
    /// Digest and length.
    pub name: ObjectRef,
    bytes: Arc<[u8]>,
}

impl Object {
    /// Names `bytes`.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { name: ObjectRef::of(&bytes), bytes: bytes.into() }
    }
}

/// Objects by the digest of their bytes: the store, or a node's object table.
#[derive(Debug, Clone, Default)]
pub struct Objects(BTreeMap<Digest, Arc<[u8]>>);

impl Objects {
    /// Keeps `bytes` and names them.
    pub fn put(&mut self, bytes: Vec<u8>) -> ObjectRef {
        let object = Object::of(bytes);
        let name = object.name;
        self.keep(object);
        name
    }

    /// Keeps an object that has a name already.
    pub fn keep(&mut self, object: Object) {
        self.0.insert(object.name.digest, object.bytes);
    }

    /// The object, if it is here.
    pub fn object(&self, digest: Digest) -> Option<Object> {
        let bytes = self.0.get(&digest)?;
        let name = ObjectRef { digest, bytes: bytes.len() as u64 };
        Some(Object { name, bytes: Arc::clone(bytes) })
    }

    /// The bytes, if they are here.
    pub fn get(&self, digest: Digest) -> Option<&[u8]> {
        self.0.get(&digest).map(|bytes| &**bytes)
    }

    /// Drops an object.
    pub fn forget(&mut self, digest: Digest) {
        self.0.remove(&digest);
    }
}

/// The object store with the run's pointer.
#[derive(Debug, Clone, Default)]
pub struct Store {
    /// What lies in it.
    pub objects: Objects,
    pointer: Option<Digest>,
}

impl Store {
    /// Moves the pointer, if it is where the caller believes; one that is there already was moved before.
    ///
    /// # Errors
    /// Where it is instead.
    pub fn move_pointer(&mut self, from: Option<Digest>, to: Digest) -> Result<(), String> {
        if self.pointer == Some(to) {
            return Ok(());
        }
        if self.pointer != from {
            return Err(format!("the pointer names {:?}, expected {from:?}", self.pointer));
        }
        self.pointer = Some(to);
        Ok(())
    }
}

/// The events of one core: time in milliseconds and postcard of the event, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// One after another: there are many, and they are small.
    bytes: Vec<u8>,
    /// When each was taken in, and where it ends.
    entries: Vec<(u64, usize)>,
}

impl Journal {
    /// Appends an entry.
    pub fn append(&mut self, now_ms: u64, event: &[u8]) {
        self.bytes.extend_from_slice(event);
        self.entries.push((now_ms, self.bytes.len()));
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was taken in yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let begins = iter::once(0).chain(self.entries.iter().map(|(_, end)| *end));
        begins.zip(&self.entries).map(|(begin, (now_ms, end))| (*now_ms, &self.bytes[begin..*end]))
    }
}
