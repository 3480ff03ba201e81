//! Training data: a token shard file, the tokenizer that made it, and which tokens a microbatch holds.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "ITOK"
//!      4     1  version, 1
//!      5     1  bytes per token: 1, 2 or 4
//!      6     2  zero
//!      8     8  count of tokens, u64 LE
//!     16     -  tokens, unsigned LE
//! ```
//!
//! A shard's digest is the BLAKE3 of the file. *Window* `i` is the `context + 1` tokens from `i * context` on: `context`
//! inputs, and the targets one token later. In an epoch, sequence number `n` (microbatch times sequences per microbatch,
//! plus row) is window `permutation(seed, epoch, n / windows)[n mod windows]`: every window once per pass, in an order
//! of the pass's own. So the tokens of a microbatch are a pure function of (run, epoch, microbatch), and nobody sends
//! tokens to anybody.

mod order;
mod tokenizer;
mod writer;

pub use crate::tensor::Tokens;
use order::Permutation;
pub use tokenizer::{TextTokenizer, TokenizerError};
pub use writer::{ShardFile, ShardWriter};

use memmap2::Mmap;
use spec::{Digest, Run};
use std::fs::File;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"ITOK";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 16;

/// A token shard, checked on opening; tokens are read from where they lie.
#[derive(Debug)]
pub struct TokenShard {
    bytes: Bytes,
    width: Width,
    count: u64,
    digest: Digest,
}

/// Inputs and targets of one microbatch, `sequences` rows of `context` tokens each.
#[derive(Debug, PartialEq, Eq)]
pub struct Microbatch {
    /// What the head reads.
    pub inputs: Tokens,
    /// What the tail is judged by: the inputs one token later.
    pub targets: Tokens,
}

/// Bytes of one token in a shard file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Token ids below 2^8.
    One = 1,
    /// Token ids below 2^16.
    Two = 2,
    /// Token ids below 2^32.
    Four = 4,
}

impl Width {
    /// The width in which a tokenizer's shards are written.
    pub fn of(tokenizer: spec::Tokenizer) -> Self {
        match tokenizer.bytes_per_token() {
            1 => Self::One,
            2 => Self::Two,
            _ => Self::Four,
        }
    }
}

/// A shard that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be read.
    #[error("token shard {path}: {source}")]
    Read {
        /// Where it should lie.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("token shard {path}: cannot be written ({source}); free the disk or choose another folder")]
    Write {
        /// Where it should lie.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are no token shard of this version.
    #[error(
        "token shard: {what} is {found}, expected {expected}; prepare the data again or fetch it by its digest"
    )]
    Format {
        /// The field.
        what: &'static str,
        /// What stood there.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A token id beyond the model's vocabulary.
    #[error("token shard {digest}: token {position} is {found}, the model's vocabulary ends at {vocab}")]
    Vocabulary {
        /// The shard.
        digest: Digest,
        /// Index of the token.
        position: u64,
        /// The token.
        found: u32,
        /// Number of token ids.
        vocab: u32,
    },
    /// Too few tokens for one window.
    #[error("token shard {digest}: {count} tokens hold no window of {context} + 1 tokens")]
    TooShort {
        /// The shard.
        digest: Digest,
        /// Tokens in it.
        count: u64,
        /// Tokens of a sequence.
        context: u32,
    },
}

impl TokenShard {
    /// Maps the file at `path` into memory, checks it and takes its digest.
    ///
    /// # Errors
    /// The file cannot be read or is no token shard.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let read = |source| DataError::Read { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(read)?;
        // SAFETY: the map is only sound while nobody writes to the file. Shards are content-addressed: a store writes
        // one under a temporary name, renames it to its digest and never opens it for writing again.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        Self::check(Bytes::Mapped(map))
    }

    /// The shard in `bytes`.
    ///
    /// # Errors
    /// The bytes are no token shard.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, DataError> {
        Self::check(Bytes::Owned(bytes))
    }

    /// BLAKE3 of the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Number of tokens.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of windows of `context` tokens and their targets.
    pub fn windows(&self, context: u32) -> u64 {
        self.count.saturating_sub(1) / u64::from(context)
    }

    /// Inputs and targets of microbatch `microbatch` of `epoch`.
    ///
    /// # Errors
    /// The shard is shorter than a window or holds a token beyond the vocabulary.
    pub fn microbatch(&self, run: &Run, epoch: u32, microbatch: u64) -> Result<Microbatch, DataError> {
        let windows = self.windows(run.model.context);
        if windows == 0 {
            return Err(self.too_short(run));
        }
        let (sequences, context) = (u64::from(run.data.sequences), u64::from(run.model.context));
        // Positions of a sequence follow one another: its window is drawn once.
        let mut drawn = None;
        self.batch(run, (sequences * context) as usize, |index| {
            let (row, offset) = (index as u64 / context, index as u64 % context);
            let window = match drawn {
                Some((of, window)) if of == row => window,
                _ => window_of(run, windows, epoch, microbatch, row),
            };
            drawn = Some((row, window));
            window * context + offset
        })
    }

    /// Window `window` as a microbatch of one sequence, in the order of the file: what validation reads.
    ///
    /// # Errors
    /// There is no such window, or it holds a token beyond the vocabulary.
    pub fn window(&self, run: &Run, window: u64) -> Result<Microbatch, DataError> {
        if window >= self.windows(run.model.context) {
            return Err(self.too_short(run));
        }
        let context = u64::from(run.model.context);
        self.batch(run, context as usize, |index| window * context + index as u64)
    }

    /// The tokens at `len` positions, and those that follow them.
    fn batch(
        &self,
        run: &Run,
        len: usize,
        mut position: impl FnMut(usize) -> u64,
    ) -> Result<Microbatch, DataError> {
        let vocab = run.model.vocab;
        let token = |position: u64| match self.token(position) {
            found if found < vocab => Ok(found),
            found => Err(DataError::Vocabulary { digest: self.digest, position, found, vocab }),
        };
        let inputs = Tokens::try_from_fn(len, |index| token(position(index)))?;
        let targets = Tokens::try_from_fn(len, |index| token(position(index) + 1))?;
        Ok(Microbatch { inputs, targets })
    }

    /// The token at `position`, below [`TokenShard::count`].
    ///
    /// # Panics
    /// Beyond the end.
    pub fn token(&self, position: u64) -> u32 {
        let width = self.width as usize;
        let bytes = &self.bytes.as_slice()[HEADER_LEN + position as usize * width..][..width];
        bytes.iter().rev().fold(0, |token, &byte| token << 8 | u32::from(byte))
    }

    fn too_short(&self, run: &Run) -> DataError {
        DataError::TooShort { digest: self.digest, count: self.count, context: run.model.context }
    }

    fn check(bytes: Bytes) -> Result<Self, DataError> {
        let wrong = |what, found: String, expected: String| Err(DataError::Format { what, found, expected });
        let slice = bytes.as_slice();
        let Some((header, body)) = slice.split_first_chunk::<HEADER_LEN>() else {
            return wrong("length", slice.len().to_string(), format!("at least {HEADER_LEN} bytes"));
        };
        if header[..4] != MAGIC {
            return wrong("magic", format!("{:02x?}", &header[..4]), "\"ITOK\"".into());
        }
        if header[4] != VERSION {
            return wrong("version", header[4].to_string(), VERSION.to_string());
        }
        let width = match header[5] {
            1 => Width::One,
            2 => Width::Two,
            4 => Width::Four,
            other => return wrong("bytes per token", other.to_string(), "1, 2 or 4".into()),
        };
        if header[6..8] != [0, 0] {
            return wrong("reserved field", format!("{:02x?}", &header[6..8]), "zero".into());
        }
        let count = header[8..].iter().rev().fold(0, |n: u64, &byte| n << 8 | u64::from(byte));
        if count.checked_mul(width as u64) != Some(body.len() as u64) {
            return wrong(
                "bytes of tokens",
                body.len().to_string(),
                format!("{count} tokens of {}", width as u8),
            );
        }
        let digest = Digest::of(slice);
        Ok(Self { bytes, width, count, digest })
    }
}

/// The window, of so many, that row `row` of a microbatch is.
fn window_of(run: &Run, windows: u64, epoch: u32, microbatch: u64, row: u64) -> u64 {
    // Wraps only beyond 2^64 sequences, where it is still a pure function.
    let sequence = microbatch.wrapping_mul(u64::from(run.data.sequences)).wrapping_add(row);
    let (pass, slot) = (sequence / windows, sequence % windows);
    Permutation::new(run.seed, epoch, pass, windows).at(slot)
}

/// Where in the file of the run's training shard the inputs of row `row` of a microbatch begin, and bytes of a token; the
/// targets begin one token later. `None` if the shard holds no window.
pub(crate) fn place_in_shard(run: &Run, epoch: u32, microbatch: u64, row: u64) -> Option<(u64, u64)> {
    let (context, width) = (u64::from(run.model.context), Width::of(run.data.tokenizer) as u64);
    let windows = run.data.train_tokens.saturating_sub(1) / context;
    if windows == 0 {
        return None;
    }
    let token = window_of(run, windows, epoch, microbatch, row) * context;
    Some((HEADER_LEN as u64 + token * width, width))
}

/// The bytes of a shard file that holds `tokens`.
///
/// # Errors
/// A token does not fit `width`.
pub fn shard_bytes(tokens: &[u32], width: Width) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + tokens.len() * width as usize);
    bytes.extend_from_slice(&header(tokens.len() as u64, width));
    append_tokens(&mut bytes, tokens, width)?;
    Ok(bytes)
}

fn header(count: u64, width: Width) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&[VERSION, width as u8]);
    header[8..].copy_from_slice(&count.to_le_bytes());
    header
}

fn append_tokens(bytes: &mut Vec<u8>, tokens: &[u32], width: Width) -> Result<(), DataError> {
    for token in tokens {
        let le = token.to_le_bytes();
        let (kept, dropped) = le.split_at(width as usize);
        if dropped.iter().any(|&byte| byte != 0) {
            return Err(DataError::Format {
                what: "token",
                found: token.to_string(),
                expected: format!("a number of {} bytes", width as u8),
            });
        }
        bytes.extend_from_slice(kept);
    }
    Ok(())
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests;
