//! The bytes of a file, which may be more than memory has.

use memmap2::Mmap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A longer file is mapped, in bytes.
const READ_BYTES_MAX: u64 = 64 << 20;

/// The bytes of a file: in memory, or where they lie.
#[derive(Debug)]
pub enum FileBytes {
    /// Of a short one.
    Read(Vec<u8>),
    /// Of a long one: the system reads pages of it as they are looked at, and drops them again.
    Mapped(Mmap),
}

impl FileBytes {
    /// Those of the file at `path`.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        if len <= READ_BYTES_MAX {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            return Ok(Self::Read(bytes));
        }
        // SAFETY: the map is only sound while nobody writes to the file. Evidence is written under another name and renamed once it
        // is whole, and nobody of us opens it for writing again; who edits a file of tens of gigabytes while it is checked spoils
        // the check of that file.
        unsafe { Mmap::map(&file) }.map(Self::Mapped)
    }
}

impl std::ops::Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}
