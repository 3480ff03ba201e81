//! One file, one object: body, then a footer that says what it is.
//!
//! ```text
//! body                     meta.len bytes
//! meta                     JSON, meta_len bytes
//! check                    8 bytes: head of the BLAKE3 of the JSON
//! meta_len                 4 bytes, little-endian
//! magic                    8 bytes: "iotaobj1"
//! ```
//! The footer comes last because length and digest are known last; so a file cut short has none.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"iotaobj1";
const CHECK_LEN: usize = 8;
const TAIL_LEN: u64 = (CHECK_LEN + 4 + MAGIC.len()) as u64;
/// Headers of a request are bounded by much less.
const MAX_META_LEN: u64 = 1 << 20;

/// What is known of an object besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Key within the bucket; for a part of an upload, the key it will go to.
    pub key: String,
    /// Length of the body, in bytes.
    pub len: u64,
    /// BLAKE3 of the body, in hexadecimal.
    pub e_tag: String,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// What the client said.
    #[serde(flatten)]
    pub described: Described,
}

/// What a client says of an object, kept and given back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// MIME type.
    pub content_type: Option<String>,
    /// `x-amz-meta-…`.
    pub user: BTreeMap<String, String>,
}

impl Meta {
    /// Time of the last change.
    pub fn modified(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.modified_ms)
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The footer's bytes.
pub fn footer(meta: &Meta) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(meta)?;
    let meta_len = bytes.len() as u32;
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..CHECK_LEN]);
    bytes.extend_from_slice(&meta_len.to_le_bytes());
    bytes.extend_from_slice(MAGIC);
    Ok(bytes)
}

/// Opens an object's file and reads its footer.
///
/// # Errors
/// `InvalidData`, with the path, when the file is not what [`footer`] closed.
pub fn open(path: &Path) -> io::Result<(File, Meta)> {
    let file = File::open(path)?;
    let damaged = |what: &str| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {what}", path.display()))
    };
    let file_len = file.metadata()?.len();
    let tail_at = file_len.checked_sub(TAIL_LEN).ok_or_else(|| damaged("it is too short for a footer"))?;
    let mut tail = [0; TAIL_LEN as usize];
    file.read_exact_at(&mut tail, tail_at)?;
    let (check, rest) = tail.split_at(CHECK_LEN);
    let (meta_len, magic) = rest.split_at(4);
    if magic != MAGIC {
        return Err(damaged("it does not end as an object does"));
    }
    let meta_len = u64::from(meta_len.iter().rev().fold(0u32, |len, &byte| len << 8 | u32::from(byte)));
    let body_len = tail_at.checked_sub(meta_len).filter(|_| meta_len <= MAX_META_LEN);
    let body_len = body_len.ok_or_else(|| damaged("its footer has an impossible length"))?;
    let mut json = vec![0; meta_len as usize];
    file.read_exact_at(&mut json, body_len)?;
    if blake3::hash(&json).as_bytes()[..CHECK_LEN] != *check {
        return Err(damaged("its footer does not match its check"));
    }
    let meta: Meta = serde_json::from_slice(&json).map_err(|error| damaged(&error.to_string()))?;
    if meta.len != body_len {
        return Err(damaged(&format!("its body has {body_len} bytes, {} were written", meta.len)));
    }
    Ok((file, meta))
}

/// Makes renames, creations and removals in `dir` last.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A file that disappears unless it is put in its place.
#[derive(Debug)]
pub struct TempPath(PathBuf);

impl TempPath {
    /// Owns the file that is to be at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Renames it to `place`, over what is there; lasts after [`sync_dir`] of the new parent.
    pub fn persist(mut self, place: &Path) -> io::Result<()> {
        fs::rename(&self.0, place)?;
        self.0 = PathBuf::new();
        Ok(())
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = fs::remove_file(&self.0) {
            // The next start clears the folder.
            tracing::debug!(path = %self.0.display(), %error, "could not remove a temporary file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(body: &[u8]) -> (tempfile::TempDir, PathBuf, Meta) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("object");
        let meta = Meta {
            key: "a/ü".to_owned(),
            len: body.len() as u64,
            e_tag: blake3::hash(body).to_hex().to_string(),
            modified_ms: 7,
            described: Described { content_type: Some("text/plain".to_owned()), ..Described::default() },
        };
        fs::write(&path, [body, &footer(&meta).unwrap()].concat()).unwrap();
        (dir, path, meta)
    }

    #[test]
    fn footer_round_trips() {
        for body in [&b""[..], b"some bytes", MAGIC] {
            let (_dir, path, meta) = written(body);
            assert_eq!(open(&path).unwrap().1, meta);
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let (_dir, path, _) = written(b"some bytes");
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let error = open(&path).unwrap_err();
            assert!(error.to_string().contains("object is damaged"), "{len}: {error}");
        }
    }

    #[test]
    fn every_turned_bit_of_the_footer_is_noticed() {
        let (_dir, path, meta) = written(b"some bytes");
        let whole = fs::read(&path).unwrap();
        for bit in meta.len as usize * 8..whole.len() * 8 {
            let mut turned = whole.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, turned).unwrap();
            assert!(open(&path).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_temporary_file_goes_unless_it_is_placed() {
        let dir = tempfile::tempdir().unwrap();
        let (temp, place) = (dir.path().join("temp"), dir.path().join("place"));
        fs::write(&temp, "x").unwrap();
        drop(TempPath::new(temp.clone()));
        assert!(!temp.exists());
        fs::write(&temp, "y").unwrap();
        TempPath::new(temp.clone()).persist(&place).unwrap();
        assert_eq!((temp.exists(), fs::read(&place).unwrap()), (false, b"y".to_vec()));
    }
}
