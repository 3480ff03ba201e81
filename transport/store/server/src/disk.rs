//! The server's folder: a lock, and one folder for each bucket.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use s3s::{S3Result, s3_error};

use crate::{Error, bucket::Bucket, file::sync_dir};

/// All buckets of a server.
#[derive(Debug)]
pub struct Disk {
    buckets_dir: PathBuf,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
    /// Held as long as this lives: a second server would not know of our index.
    _lock: File,
}

impl Disk {
    /// Opens `dir`, created if absent, and all buckets in it. Blocks on the disk.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| Error::Disk { path, source }
        };
        let buckets_dir = dir.join("buckets");
        fs::create_dir_all(&buckets_dir).map_err(failed(&buckets_dir))?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::InUse { dir: dir.to_owned() },
            TryLockError::Error(source) => Error::Disk { path: lock_path.clone(), source },
        })?;
        let mut buckets = BTreeMap::new();
        for entry in fs::read_dir(&buckets_dir).map_err(failed(&buckets_dir))? {
            let path = entry.map_err(failed(&buckets_dir))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            buckets.insert(name.to_owned(), Arc::new(Bucket::open(&path).map_err(failed(&path))?));
        }
        Ok(Self { buckets_dir, buckets: RwLock::new(buckets), _lock: lock })
    }

    /// The bucket of that name.
    pub fn bucket(&self, name: &str) -> S3Result<Arc<Bucket>> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets.get(name).cloned().ok_or_else(|| s3_error!(NoSuchBucket, "there is no bucket {name}"))
    }

    /// Makes a bucket. `name` has passed the rules for bucket names, so it is a plain file name. Blocks on the disk.
    pub fn create_bucket(&self, name: &str) -> S3Result<()> {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        if buckets.contains_key(name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou, "bucket {name} is there already"));
        }
        let opened = Bucket::open(&self.buckets_dir.join(name))
            .and_then(|bucket| sync_dir(&self.buckets_dir).map(|()| bucket))
            .map_err(|error| s3_error!(InternalError, "bucket {name} could not be made: {error}"))?;
        buckets.insert(name.to_owned(), Arc::new(opened));
        Ok(())
    }
}
