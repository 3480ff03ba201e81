//! Documents to a folder of a tokenizer and two token shards.
//!
//! ```text
//! train.tokens, validation.tokens    token shards
//! tokenizer.json                     unless the tokenizer is `bytes`
//! data.toml                          what they are, as `Prepared`
//! ```
//!
//! The documents are read once to check them and to draw which go where, once to train a tokenizer if one is asked for,
//! and once to encode them; memory holds a few pieces, whatever their number.

use super::documents::Documents;
use crate::failure::{Failure, Result};
use crate::shards;
use crate::whole::{replace, write};
use engine::data::{ShardWriter, TextTokenizer, TokenShard, Width};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use spec::Digest;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

/// Of every so many documents, one goes to the validation shard.
const VALIDATION_EVERY: u64 = 20;
/// Pieces on their way to the training of a tokenizer.
const PIECES_WAITING: usize = 4;
/// The training shard's file.
pub const TRAIN: &str = "train.tokens";
/// The validation shard's file.
pub const VALIDATION: &str = "validation.tokens";
/// The tokenizer's file.
pub const TOKENIZER: &str = "tokenizer.json";
/// What the folder says of itself.
const ABOUT: &str = "data.toml";

/// Which tokenizer to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A token a byte.
    Bytes,
    /// Byte-level BPE of so many ids, trained on the training documents.
    Train(u32),
    /// A given `tokenizer.json`.
    File(PathBuf),
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.strip_prefix("bpe:")) {
            ("bytes", _) => Ok(Self::Bytes),
            (_, Some(ids)) => ids
                .parse()
                .map(Self::Train)
                .map_err(|_| format!("expected a number of ids after bpe:, such as bpe:4096, found {ids:?}")),
            _ => Ok(Self::File(text.into())),
        }
    }
}

/// What was prepared: the content of `data.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    /// Number of token ids.
    pub vocab: u32,
    /// The tokenizer, as a run names it.
    pub tokenizer: spec::Tokenizer,
    /// Documents to learn from.
    pub train: Part,
    /// Documents held out.
    pub validation: Part,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// BLAKE3 of the shard's file.
    pub digest: Digest,
    /// Tokens in it.
    pub tokens: u64,
    /// Bytes of the text they stand for: bits per byte need it.
    pub bytes: u64,
    /// Documents that end in it.
    pub documents: u64,
}

/// Prepares `documents` in `folder`, which exists and is empty. A tokenizer that is trained is kept in `cache`, under the
/// content it was trained on.
///
/// # Errors
/// Input that cannot be read or holds no text, a tokenizer that cannot be used, a disk that is full.
pub fn prepare(
    documents: &(impl Documents + ?Sized),
    choice: &Choice,
    cache: Option<&Path>,
    folder: &Path,
    bar: &ProgressBar,
) -> Result<(Prepared, TextTokenizer)> {
    bar.set_message("reading");
    let split = Split::draw(documents, bar)?;
    bar.set_length(split.bytes * if matches!(choice, Choice::Train(_)) { 3 } else { 2 });
    let tokenizer = tokenizer(documents, choice, cache, &split, bar)?;
    bar.set_message("encoding");
    let width = Width::of(tokenizer.spec());
    let mut parts =
        [Shard::create(&folder.join(TRAIN), width)?, Shard::create(&folder.join(VALIDATION), width)?];
    split.route(documents, &mut |validates, piece, last| {
        bar.inc(piece.len() as u64);
        parts[usize::from(validates)].push(&tokenizer, piece, last)
    })?;
    let [train, validation] = parts.map(Shard::finish);
    let prepared = Prepared {
        vocab: tokenizer.vocab(),
        tokenizer: tokenizer.spec(),
        train: train?,
        validation: validation?,
    };
    let text = toml::to_string_pretty(&prepared).map_err(|e| Failure::input(e.to_string()))?;
    write(&folder.join(ABOUT), text.as_bytes())?;
    if let Some(json) = tokenizer.json() {
        write(&folder.join(TOKENIZER), json)?;
    }
    Ok((prepared, tokenizer))
}

/// Opens what was prepared in `folder`, and checks every file of it.
///
/// # Errors
/// No such folder, or a file that is not the one that `data.toml` names.
pub fn open(folder: &Path) -> Result<(Prepared, TextTokenizer)> {
    let about = folder.join(ABOUT);
    let wrong = |why: String| {
        Failure::input(format!("{}: {why}; expected what `iota data prepare` writes", about.display()))
    };
    let text = std::fs::read_to_string(&about).map_err(|e| wrong(format!("cannot be read ({e})")))?;
    let prepared: Prepared = toml::from_str(&text).map_err(|e| wrong(e.message().replace('\n', " ")))?;
    let (expected, found) = (prepared.tokenizer.vocab(), prepared.vocab);
    if expected != found {
        return Err(wrong(format!("vocab is {found}, the tokenizer has {expected} ids")));
    }
    for (name, part) in [(TRAIN, &prepared.train), (VALIDATION, &prepared.validation)] {
        let path = folder.join(name);
        let bad = |why: &dyn std::fmt::Display| {
            Failure::input(format!("{}: {why}; prepare the data again", path.display()))
        };
        let shard = TokenShard::open(&path).map_err(|e| bad(&e))?;
        if (shard.digest(), shard.count()) != (part.digest, part.tokens) {
            return Err(bad(&format!(
                "its BLAKE3 is {} with {} tokens, {ABOUT} says {} with {}",
                shard.digest(),
                shard.count(),
                part.digest,
                part.tokens
            )));
        }
    }
    let tokenizer = match prepared.tokenizer {
        spec::Tokenizer::Bytes => TextTokenizer::bytes(),
        named => shards::tokenizer_file(named, &folder.join(TOKENIZER))?,
    };
    Ok((prepared, tokenizer))
}

/// Makes the tokenizer of a choice.
fn tokenizer(
    documents: &(impl Documents + ?Sized),
    choice: &Choice,
    cache: Option<&Path>,
    split: &Split,
    bar: &ProgressBar,
) -> Result<TextTokenizer> {
    let ids = match choice {
        Choice::Bytes => return Ok(TextTokenizer::bytes()),
        Choice::File(path) => {
            let named =
                |e: &dyn std::fmt::Display| Failure::input(format!("--tokenizer {}: {e}", path.display()));
            let json = std::fs::read(path).map_err(|e| named(&e))?;
            return TextTokenizer::from_json(&json).map_err(|e| named(&e));
        }
        Choice::Train(ids) => *ids,
    };
    let kept = cache.map(|cache| cache.join(format!("tokenizer-{}", split.key(ids))));
    if let Some(tokenizer) = kept.as_deref().and_then(from_cache) {
        return Ok(tokenizer);
    }
    bar.set_message("tokenizer");
    let trained = std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(PIECES_WAITING);
        let training = scope.spawn(move || TextTokenizer::train(ids, receiver));
        let read = split.route(documents, &mut |validates, piece, _| {
            bar.inc(piece.len() as u64);
            // Nobody listens any more only where the training failed, and then that is what is told.
            if !validates {
                let _ = sender.send(piece.to_owned());
            }
            Ok(())
        });
        drop(sender);
        let trained = training.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        read?;
        trained.map_err(|e| Failure::input(e.to_string()))
    })?;
    if let (Some(path), Some(json)) = (kept, trained.json()) {
        replace(&path, &[Digest::of(json).to_string().as_bytes(), b"\n", json].concat())?;
    }
    Ok(trained)
}

/// A tokenizer that was kept: its digest, a line end, its `tokenizer.json`. One that was spoilt is trained again.
fn from_cache(path: &Path) -> Option<TextTokenizer> {
    let kept = std::fs::read(path).ok()?;
    let at = kept.iter().position(|&byte| byte == b'\n')?;
    let (digest, json) = (&kept[..at], &kept[at + 1..]);
    let whole = Digest::of(json).to_string().as_bytes() == digest;
    whole.then(|| TextTokenizer::from_json(json).ok()).flatten()
}

/// Which documents validate. A document's place depends on its own content alone.
struct Split {
    /// One entry a document.
    validates: Vec<bool>,
    bytes: u64,
    /// Of every document, its digest and its place.
    content: blake3::Hasher,
    /// A corpus of one document, or an unlucky draw: the text from this byte on validates.
    tail: Option<u64>,
}

impl Split {
    /// Reads all documents.
    fn draw(documents: &(impl Documents + ?Sized), bar: &ProgressBar) -> Result<Self> {
        let content = blake3::Hasher::new_derive_key("iota tokenizer cache v1");
        let (mut split, mut hasher) =
            (Self { validates: vec![], bytes: 0, content, tail: None }, blake3::Hasher::new());
        documents.pieces(&mut |piece, last| {
            bar.inc(piece.len() as u64);
            split.bytes += piece.len() as u64;
            hasher.update(piece.as_bytes());
            if last {
                let digest = hasher.finalize();
                let draw = u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap_or_default());
                let validates = draw.is_multiple_of(VALIDATION_EVERY);
                split.validates.push(validates);
                split.content.update(digest.as_bytes()).update(&[u8::from(validates)]);
                hasher.reset();
            }
            Ok(())
        })?;
        if split.bytes == 0 {
            return Err(Failure::input("no text: every document is empty; give files with text"));
        }
        if split.validates.iter().all(|&validates| validates == split.validates[0]) {
            split.tail = Some(split.bytes - split.bytes / VALIDATION_EVERY);
        }
        Ok(split)
    }

    /// The name of a tokenizer of so many ids, trained on what does not validate.
    fn key(&self, ids: u32) -> Digest {
        let mut hasher = self.content.clone();
        hasher.update(&ids.to_le_bytes()).update(&self.tail.unwrap_or(u64::MAX).to_le_bytes());
        Digest(*hasher.finalize().as_bytes())
    }

    /// Reads all documents again, and says of each piece whether it validates.
    fn route(
        &self,
        documents: &(impl Documents + ?Sized),
        take: &mut dyn FnMut(bool, &str, bool) -> Result<()>,
    ) -> Result<()> {
        let changed = || {
            Failure::input("the documents changed while they were read: leave the files alone and try again")
        };
        let (mut document, mut at) = (0, 0u64);
        documents.pieces(&mut |piece, last| {
            let &validates = self.validates.get(document).ok_or_else(changed)?;
            match self.tail {
                None => take(validates, piece, last)?,
                Some(tail) => {
                    let room = tail.saturating_sub(at).min(piece.len() as u64) as usize;
                    let (before, after) = piece.split_at(piece.floor_char_boundary(room));
                    if !before.is_empty() {
                        take(false, before, last && after.is_empty())?;
                    }
                    if !after.is_empty() {
                        take(true, after, last)?;
                    }
                }
            }
            at += piece.len() as u64;
            document += usize::from(last);
            Ok(())
        })?;
        if (document, at) == (self.validates.len(), self.bytes) { Ok(()) } else { Err(changed()) }
    }
}

/// A shard being written, with what `data.toml` counts.
struct Shard {
    writer: ShardWriter,
    bytes: u64,
    documents: u64,
}

impl Shard {
    fn create(path: &Path, width: Width) -> Result<Self> {
        let writer = ShardWriter::create(path, width).map_err(|e| Failure::input(e.to_string()))?;
        Ok(Self { writer, bytes: 0, documents: 0 })
    }

    /// Appends a piece; after a document's last, the token that ends it.
    fn push(&mut self, tokenizer: &TextTokenizer, piece: &str, last: bool) -> Result<()> {
        let mut tokens = tokenizer.encode(piece).map_err(|e| Failure::input(e.to_string()))?;
        tokens.extend(tokenizer.end_of_text().filter(|_| last));
        self.bytes += piece.len() as u64;
        self.documents += u64::from(last);
        self.writer.push(&tokens).map_err(|e| Failure::input(e.to_string()))
    }

    fn finish(self) -> Result<Part> {
        let file = self.writer.finish().map_err(|e| Failure::input(e.to_string()))?;
        Ok(Part { digest: file.digest, tokens: file.tokens, bytes: self.bytes, documents: self.documents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::data::TokenShard;

    /// What was prepared, and the text of both shards.
    fn prepared(documents: &[String], choice: &Choice) -> (Prepared, [Vec<u8>; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let (prepared, _) = prepare(documents, choice, None, folder.path(), &ProgressBar::hidden()).unwrap();
        let (opened, tokenizer) = open(folder.path()).unwrap();
        assert_eq!(opened, prepared);
        let text = [(TRAIN, &prepared.train), (VALIDATION, &prepared.validation)].map(|(name, part)| {
            let shard = TokenShard::open(&folder.path().join(name)).unwrap();
            assert_eq!((shard.digest(), shard.count()), (part.digest, part.tokens));
            let tokens: Vec<u32> = (0..shard.count()).map(|at| shard.token(at)).collect();
            tokenizer.decode(&tokens).unwrap()
        });
        (prepared, text)
    }

    fn documents(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("document {i} says {}", i * i)).collect()
    }

    #[test]
    fn a_document_goes_to_one_shard_and_none_is_lost() {
        let all = documents(200);
        let size: usize = all.iter().map(|document| document.len() + 1).sum();
        let (data, [train, validation]) = prepared(&all, &Choice::Bytes);
        assert_eq!(train.len() + validation.len(), size);
        assert_eq!(data.train.documents + data.validation.documents, 200);
        assert_eq!((data.train.bytes + data.validation.bytes) as usize, size - 200);
        assert!(!validation.is_empty() && validation.len() < size / 5);
        // Adding documents moves none of the old ones.
        let (_, fewer) = prepared(&all[..100], &Choice::Bytes);
        assert!(train.starts_with(&fewer[0]) && validation.starts_with(&fewer[1]));
    }

    #[test]
    fn bpe_is_trained_and_says_the_same_text() {
        let all = documents(500);
        let (bytes, [train, validation]) = prepared(&all, &Choice::Bytes);
        let (bpe, parts) = prepared(&all, &Choice::Train(300));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(text(&parts[0]), text(&train).replace('\0', "<|endoftext|>"));
        assert_eq!(text(&parts[1]), text(&validation).replace('\0', "<|endoftext|>"));
        assert_eq!((bpe.train.bytes, bpe.train.documents), (bytes.train.bytes, bytes.train.documents));
        assert!(bpe.train.tokens * 2 < bytes.train.tokens && bpe.vocab <= 300);
    }

    #[test]
    fn a_trained_tokenizer_is_kept_for_its_content_alone() {
        let cache = tempfile::tempdir().unwrap();
        let train = |documents: &[String], ids| {
            let folder = tempfile::tempdir().unwrap();
            let (choice, bar) = (Choice::Train(ids), ProgressBar::hidden());
            prepare(documents, &choice, Some(cache.path()), folder.path(), &bar).unwrap().0.tokenizer
        };
        let kept = || cache.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let first = train(&documents(300), 300);
        let path = kept().remove(0);
        // What lies there is taken, to tell from training again by another tokenizer under the same name.
        let other = prepare(
            &documents(9)[..],
            &Choice::Train(270),
            None,
            tempfile::tempdir().unwrap().path(),
            &ProgressBar::hidden(),
        );
        let json = other.unwrap().1.json().unwrap().to_vec();
        std::fs::write(&path, [Digest::of(&json).to_string().as_bytes(), b"\n", &json].concat()).unwrap();
        assert_ne!(train(&documents(300), 300), first);
        // Spoilt, it is trained anew.
        std::fs::write(&path, [Digest::of(b"").to_string().as_bytes(), b"\n", &json].concat()).unwrap();
        assert_eq!(train(&documents(300), 300), first);
        assert_eq!(kept().len(), 1);
        train(&documents(300), 301);
        train(&documents(301), 300);
        assert_eq!(kept().len(), 3);
    }

    #[test]
    fn a_prepared_folder_that_was_changed_is_refused_by_file() {
        let folder = tempfile::tempdir().unwrap();
        let bar = ProgressBar::hidden();
        prepare(&documents(100)[..], &Choice::Train(300), None, folder.path(), &bar).unwrap();
        let refused = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let path = folder.path().join(name);
            let good = std::fs::read(&path).unwrap();
            let mut bad = good.clone();
            change(&mut bad);
            std::fs::write(&path, bad).unwrap();
            let said = open(folder.path()).err().map(|e| e.to_string()).unwrap_or_default();
            std::fs::write(&path, good).unwrap();
            assert!(said.contains(name), "{said}");
            said
        };
        let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
        for name in [TRAIN, VALIDATION] {
            assert!(refused(name, &flip).contains("its BLAKE3 is"));
            assert!(refused(name, &|bytes| bytes.truncate(20)).contains("bytes of tokens is 4"));
        }
        assert!(refused(TOKENIZER, &flip).contains("expected the tokenizer.json"));
        assert!(refused(ABOUT, &|text| text.extend(b"more = 1\n")).contains("unknown field `more`"));
        std::fs::remove_file(folder.path().join(ABOUT)).unwrap();
        assert!(
            open(folder.path())
                .err()
                .unwrap()
                .to_string()
                .contains("expected what `iota data prepare` writes")
        );
    }

    #[test]
    fn one_document_is_cut() {
        let (data, [train, validation]) = prepared(&["x".repeat(10_000)], &Choice::Bytes);
        assert_eq!((train.len(), validation.len()), (9_500, 501));
        assert_eq!((data.train.bytes, data.validation.bytes), (9_500, 500));
    }

    #[test]
    fn nothing_to_read_and_tokenizers_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |documents: &[String], choice: &Choice| {
            prepare(documents, choice, None, folder.path(), &ProgressBar::hidden()).err().unwrap().to_string()
        };
        assert!(refused(&[String::new()], &Choice::Bytes).contains("no text"));
        assert!(refused(&documents(3), &Choice::Train(7)).contains("bpe of 7 ids"));
        assert!(refused(&documents(3), &Choice::File("none.json".into())).contains("--tokenizer none.json"));
        assert!("bpe:many".parse::<Choice>().unwrap_err().contains("\"many\""));
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
