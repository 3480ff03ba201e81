//! One bucket on disk: its objects, and who may change which when.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use s3s::{
    S3Result,
    dto::{ETag, ETagCondition},
    s3_error,
};

use crate::{
    file::{self, Meta, sync_dir},
    multipart::remove_left_over,
    staging::{Staged, Staging},
};

/// Locks that the keys share; two keys on one lock wait for each other's fsync, no more.
const KEY_LOCKS: usize = 64;

/// What must hold of an object for a request to go on.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// `If-Match`: it is there, as this.
    pub matches: Option<ETagCondition>,
    /// `If-None-Match`: it is not there, or not as this.
    pub none_match: Option<ETagCondition>,
}

/// A bucket's folder, and in memory what its objects' footers say.
#[derive(Debug)]
pub struct Bucket {
    objects: PathBuf,
    uploads: PathBuf,
    temp: PathBuf,
    index: RwLock<BTreeMap<String, Arc<Meta>>>,
    key_locks: [Mutex<()>; KEY_LOCKS],
    next_temp: AtomicU64,
}

impl Bucket {
    /// Opens the bucket in `dir`, created if absent, and reads every footer. What a crash left half-done goes.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let [objects, uploads, temp] = ["objects", "uploads", "temp"].map(|name| dir.join(name));
        if temp.exists() {
            fs::remove_dir_all(&temp)?;
        }
        for folder in [&objects, &uploads, &temp] {
            fs::create_dir_all(folder)?;
        }
        sync_dir(dir)?;
        remove_left_over(&uploads)?;
        let mut index = BTreeMap::new();
        for entry in fs::read_dir(&objects)? {
            let path = entry?.path();
            match file::open(&path) {
                Ok((_, meta)) if path == objects.join(name_of(&meta.key)) => {
                    index.insert(meta.key.clone(), Arc::new(meta));
                }
                Ok((_, meta)) => {
                    tracing::error!(path = %path.display(), key = meta.key, "left out: this file has another key's name");
                }
                // Kept on disk for whoever can mend it; to readers it is missing.
                Err(error) => tracing::error!(%error, "left out an object that cannot be read"),
            }
        }
        Ok(Self {
            objects,
            uploads,
            temp,
            index: RwLock::new(index),
            key_locks: std::array::from_fn(|_| Mutex::new(())),
            next_temp: AtomicU64::new(0),
        })
    }

    /// Folder of the multipart uploads under way.
    pub fn uploads(&self) -> &Path {
        &self.uploads
    }

    /// A temporary file to write an object into.
    pub async fn stage(&self) -> S3Result<Staging> {
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let staging = Staging::create(self.temp.join(number.to_string())).await;
        staging.map_err(|error| s3_error!(InternalError, "no temporary file could be made: {error}"))
    }

    /// What is known of an object without opening its file.
    pub fn head(&self, key: &str) -> Option<Arc<Meta>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// The object's file, and its own footer, which may be newer than what [`Bucket::head`] just said.
    pub fn open_object(&self, key: &str) -> S3Result<(File, Meta)> {
        if self.head(key).is_none() {
            return Err(missing(key));
        }
        file::open(&self.objects.join(name_of(key))).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(key),
            _ => s3_error!(InternalError, "object {key} cannot be read: {error}"),
        })
    }

    /// Up to `limit` objects with keys in `prefix` that come after `after`, in order of key.
    pub fn list(&self, prefix: &str, after: &str, limit: usize) -> Vec<Arc<Meta>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = if after < prefix { Included(prefix) } else { Excluded(after) };
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let within = index.range::<str, _>((from, Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
        within.take(limit).map(|(_, meta)| Arc::clone(meta)).collect()
    }

    /// Puts a staged object in its place if `condition` holds of what is there. Blocks on the disk.
    ///
    /// Once it returns, the object survives the power going off; until the rename nobody sees it.
    pub fn commit(&self, staged: Staged, condition: &Condition) -> S3Result<Arc<Meta>> {
        let Staged { temp, file, meta } = staged;
        let failed =
            |error: io::Error| s3_error!(InternalError, "object {} could not be stored: {error}", meta.key);
        // Losers of a race need not wait for the disk; the winner is told below.
        condition.check(&meta.key, self.head(&meta.key).as_deref())?;
        file.sync_data().map_err(failed)?;
        let _lock = self.lock(&meta.key);
        condition.check(&meta.key, self.head(&meta.key).as_deref())?;
        temp.persist(&self.objects.join(name_of(&meta.key))).map_err(failed)?;
        let meta = Arc::new(meta);
        self.index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(meta.key.clone(), Arc::clone(&meta));
        let synced = sync_dir(&self.objects);
        synced.map_err(|error| s3_error!(InternalError, "object {} may not last: {error}", meta.key))?;
        Ok(meta)
    }

    /// Removes an object if it is there and `condition` holds. Blocks on the disk.
    pub fn delete(&self, key: &str, condition: &Condition) -> S3Result<()> {
        let _lock = self.lock(key);
        let there = self.head(key);
        condition.check(key, there.as_deref())?;
        if there.is_none() {
            return Ok(());
        }
        let failed =
            |error: io::Error| s3_error!(InternalError, "object {key} could not be deleted: {error}");
        match fs::remove_file(self.objects.join(name_of(key))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        self.index.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        sync_dir(&self.objects).map_err(failed)
    }

    fn lock(&self, key: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        // The lock guards no value that a panic could have left half-changed.
        self.key_locks[hasher.finish() as usize % KEY_LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// For reads and writes alike, but a read answers [`Condition::none_match`] with 304; see `objects`.
    pub fn check(&self, key: &str, there: Option<&Meta>) -> S3Result<()> {
        let is = |condition: &ETagCondition, meta: &Meta| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(e_tag) => *e_tag == ETag::Strong(meta.e_tag.clone()),
        };
        if let Some(condition) = &self.matches {
            let Some(meta) = there else { return Err(missing(key)) };
            if !is(condition, meta) {
                return Err(s3_error!(
                    PreconditionFailed,
                    "object {key} has changed: it is {} now",
                    meta.e_tag
                ));
            }
        }
        if let (Some(condition), Some(meta)) = (&self.none_match, there)
            && is(condition, meta)
        {
            return Err(s3_error!(PreconditionFailed, "object {key} is there already"));
        }
        Ok(())
    }
}

/// The error that names what is not there.
pub fn missing(key: &str) -> s3s::S3Error {
    s3_error!(NoSuchKey, "there is no object {key}")
}

/// File name of a key, whatever is in it and however long it is.
fn name_of(key: &str) -> String {
    blake3::hash(key.as_bytes()).to_hex().to_string()
}
