//! Compiled modules on disk.
//!
//! An entry's name is a BLAKE3 over everything that decides its content: source, options, target, compiler version. Its
//! bytes are `IOTAMOD1`, two u64 little-endian lengths, PTX, CUBIN, and a BLAKE3 of all before. An entry that does not
//! hold together is no entry: it is compiled again and replaced. Entries appear by rename, so that processes may share a
//! folder. A folder that cannot be written costs time, never correctness.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::compile::{Image, OPTIONS};

/// Names the folder that compiled kernels are kept in.
pub const CACHE_VARIABLE: &str = "IOTA_KERNEL_CACHE";

const MAGIC: &[u8; 8] = b"IOTAMOD1";
const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + 16;

/// A folder of compiled modules.
#[derive(Clone, Debug)]
pub struct ModuleCache {
    folder: Option<PathBuf>,
}

/// Names one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(blake3::Hash);

impl Key {
    /// The key of `source` compiled for `target` by NVRTC `version` under the contract's options.
    pub fn new(source: &str, target: &str, version: (u32, u32)) -> Self {
        let mut hasher = blake3::Hasher::new();
        let version = format!("{}.{}", version.0, version.1);
        // Lengths go before the parts: no two lists of parts run into the same bytes.
        for part in [source, target, &version].into_iter().chain(OPTIONS) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.finalize())
    }
}

impl ModuleCache {
    /// A cache in `folder`, which is made when the first entry is written.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()) }
    }

    /// The user's cache: `$IOTA_KERNEL_CACHE`, else `iota/kernels` under the platform's cache folder; without any of
    /// these nothing is kept.
    pub fn of_user() -> Self {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = named(CACHE_VARIABLE).or_else(|| {
            let caches = named("XDG_CACHE_HOME").or_else(|| named("LOCALAPPDATA"));
            let caches = caches.or_else(|| named("HOME").map(|home| home.join(".cache")));
            caches.map(|caches| caches.join("iota").join("kernels"))
        });
        Self { folder }
    }

    /// The entry of `key`, if there is one and it is whole.
    pub fn get(&self, key: &Key) -> Option<Image> {
        decode(&std::fs::read(self.path(key)?).ok()?)
    }

    /// Keeps `image` under `key`. Whether that succeeds shows only in the time the next start takes.
    pub fn put(&self, key: &Key, image: &Image) {
        if let Some(path) = self.path(key) {
            // A full or read-only disk is no reason not to train.
            let _ = write_whole(&path, &encode(image));
        }
    }

    /// Where the entry of `key` lies, if entries are kept.
    pub fn path(&self, key: &Key) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{}.module", key.0.to_hex())))
    }
}

fn encode(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + image.ptx.len() + image.cubin.len() + HASH_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(image.ptx.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(image.cubin.len() as u64).to_le_bytes());
    bytes.extend_from_slice(image.ptx.as_bytes());
    bytes.extend_from_slice(&image.cubin);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Image> {
    let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>()?;
    if blake3::hash(body) != *hash {
        return None;
    }
    let (ptx_bytes, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    let (cubin_bytes, rest) = rest.split_first_chunk::<8>()?;
    let (ptx, cubin) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*ptx_bytes)).ok()?)?;
    if cubin.len() as u64 != u64::from_le_bytes(*cubin_bytes) {
        return None;
    }
    Some(Image { ptx: std::str::from_utf8(ptx).ok()?.to_owned(), cubin: cubin.to_owned() })
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let unique = format!("{}-{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let part = folder.join(unique);
    let written = std::fs::File::create(&part)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image { ptx: ".version 8.8".to_owned(), cubin: vec![0x7f, b'E', b'L', b'F', 0] }
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let key = Key::new("source", "sm_86", (12, 9));
        assert_eq!(key, Key::new("source", "sm_86", (12, 9)));
        assert_ne!(key, Key::new("source ", "sm_86", (12, 9)));
        assert_ne!(key, Key::new("source", "sm_89", (12, 9)));
        assert_ne!(key, Key::new("source", "sm_86", (12, 8)));
        assert_ne!(key, Key::new("sourc", "esm_86", (12, 9)));
    }

    #[test]
    fn damage_at_any_byte_is_no_entry() {
        let bytes = encode(&image());
        assert_eq!(decode(&bytes), Some(image()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged), None, "a flipped bit in byte {at} passed");
            assert_eq!(decode(&bytes[..at]), None, "{at} of {} bytes passed", bytes.len());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_failure() {
        let file = std::env::temp_dir().join(format!("iota-cache-{}", std::process::id()));
        std::fs::write(&file, b"a file, not a folder").unwrap();
        let cache = ModuleCache::in_folder(&file);
        let key = Key::new("source", "sm_86", (12, 9));
        cache.put(&key, &image());
        assert_eq!(cache.get(&key), None);
        std::fs::remove_file(file).unwrap();
    }
}
