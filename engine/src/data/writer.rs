//! A token shard's file, written piece by piece: memory does not grow with the text.

use super::{DataError, Width, append_tokens, header};
use spec::Digest;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A shard being written. Until [`ShardWriter::finish`] its header says that it holds no tokens, so that what a crash
/// leaves behind is refused by whoever opens it.
#[derive(Debug)]
pub struct ShardWriter {
    file: BufWriter<File>,
    path: PathBuf,
    width: Width,
    tokens: u64,
    piece: Vec<u8>,
}

/// A shard's file that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardFile {
    /// BLAKE3 of the file.
    pub digest: Digest,
    /// Tokens in it.
    pub tokens: u64,
}

impl ShardWriter {
    /// Begins the file at `path`, which must not be there yet.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path, width: Width) -> Result<Self, DataError> {
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let mut writer = options
            .open(path)
            .map(|file| Self {
                file: BufWriter::new(file),
                path: path.into(),
                width,
                tokens: 0,
                piece: vec![],
            })
            .map_err(|source| DataError::Write { path: path.into(), source })?;
        let begun = writer.file.write_all(&header(0, width));
        begun.map_err(|source| writer.failed(source))?;
        Ok(writer)
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// A token that does not fit the width (then nothing is appended), or what the system says.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        self.piece.clear();
        append_tokens(&mut self.piece, tokens, self.width)?;
        let written = self.file.write_all(&self.piece);
        written.map_err(|source| self.failed(source))?;
        self.tokens += tokens.len() as u64;
        Ok(())
    }

    /// Writes the count into the header, syncs the file and takes its digest. The count stands before the tokens, so
    /// the digest needs a second reading.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(mut self) -> Result<ShardFile, DataError> {
        let digest = self.seal().map_err(|source| self.failed(source))?;
        Ok(ShardFile { digest, tokens: self.tokens })
    }

    fn seal(&mut self) -> std::io::Result<Digest> {
        self.file.flush()?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header(self.tokens, self.width))?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    fn failed(&self, source: std::io::Error) -> DataError {
        DataError::Write { path: self.path.clone(), source }
    }
}
