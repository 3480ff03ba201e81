//! Text to tokens and back: plain bytes, or a `tokenizer.json`, given or trained here as byte-level BPE.

use spec::Digest;
use std::sync::mpsc::Receiver;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, Tokenizer};

/// Ends a document in a tokenizer trained here; its id is 0.
const END_OF_TEXT: &str = "<|endoftext|>";
/// What other tokenizers call the end of a document.
const ENDS: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"];
/// Ids that byte-level BPE has before its first merge: every byte and the end of a document.
const BASE_IDS: u32 = 257;
/// Most ids that training is asked for.
const IDS_MAX: u32 = 1 << 20;

/// A tokenizer, ready for use.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Bytes,
    File { tokenizer: Box<Tokenizer>, json: Vec<u8>, vocab: u32, end: Option<u32> },
}

/// A tokenizer that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The bytes are no `tokenizer.json`.
    #[error("tokenizer: not a tokenizer.json ({0}); give a file in Hugging Face's format")]
    Format(String),
    /// A run names another file, or none.
    #[error("tokenizer: expected the tokenizer.json {expected}, found {found}; fetch it by its digest")]
    Other {
        /// Digest and ids that the run names.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A size that byte-level BPE cannot have.
    #[error("tokenizer: bpe of {found} ids, expected {BASE_IDS} to {IDS_MAX}")]
    Ids {
        /// What was asked for.
        found: u32,
    },
    /// Training, encoding or decoding failed inside the library.
    #[error("tokenizer: {what} failed: {why}")]
    Failed {
        /// Which of the three.
        what: &'static str,
        /// What the library says.
        why: String,
    },
}

impl TextTokenizer {
    /// One token per byte, 256 ids, nothing to train and nothing to fetch. Byte 0 ends a document.
    pub fn bytes() -> Self {
        Self { kind: Kind::Bytes }
    }

    /// The tokenizer of a `tokenizer.json`.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn from_json(json: &[u8]) -> Result<Self, TokenizerError> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|e| TokenizerError::Format(e.to_string()))?;
        // What a document says is text, also where it spells a special token.
        tokenizer.set_encode_special_tokens(true);
        let Some(last) = tokenizer.get_vocab(true).into_values().max() else {
            return Err(TokenizerError::Format("it holds no tokens".into()));
        };
        let end = ENDS.iter().find_map(|name| tokenizer.token_to_id(name));
        let vocab = last.saturating_add(1);
        Ok(Self { kind: Kind::File { tokenizer: Box::new(tokenizer), json: json.into(), vocab, end } })
    }

    /// The tokenizer that a run names; `json` is the object of that digest, which `bytes` does without.
    ///
    /// # Errors
    /// The object is missing, another, or holds another number of ids.
    pub fn of_run(named: spec::Tokenizer, json: Option<&[u8]>) -> Result<Self, TokenizerError> {
        let spec::Tokenizer::Bpe { file, vocab } = named else { return Ok(Self::bytes()) };
        let describe = |digest: Digest, vocab: u32| format!("{digest} with {vocab} ids");
        let other = |found: String| Err(TokenizerError::Other { expected: describe(file, vocab), found });
        let Some(json) = json else { return other("nothing".into()) };
        if Digest::of(json) != file {
            return other(Digest::of(json).to_string());
        }
        let tokenizer = Self::from_json(json)?;
        if tokenizer.vocab() != vocab {
            return other(describe(file, tokenizer.vocab()));
        }
        Ok(tokenizer)
    }

    /// Trains byte-level BPE of at most `vocab` ids (fewer where the text has no more pairs to merge) on the pieces of
    /// text that come in. The result depends on the text alone: neither on threads nor on how it is cut at blanks.
    ///
    /// # Errors
    /// A size that cannot be, or what the library says.
    pub fn train(vocab: u32, pieces: Receiver<String>) -> Result<Self, TokenizerError> {
        if !(BASE_IDS..=IDS_MAX).contains(&vocab) {
            return Err(TokenizerError::Ids { found: vocab });
        }
        let failed = |e: tokenizers::Error| TokenizerError::Failed { what: "training", why: e.to_string() };
        let mut trainer = tokenizers::models::TrainerWrapper::BpeTrainer(
            BpeTrainer::builder()
                .show_progress(false)
                .vocab_size(vocab as usize)
                .min_frequency(2)
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
                .build(),
        );
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
        tokenizer.train(&mut trainer, pieces.into_iter()).map_err(failed)?;
        Self::from_json(tokenizer.to_string(true).map_err(failed)?.as_bytes())
    }

    /// What a run says of it.
    pub fn spec(&self) -> spec::Tokenizer {
        match &self.kind {
            Kind::Bytes => spec::Tokenizer::Bytes,
            Kind::File { json, vocab, .. } => spec::Tokenizer::Bpe { file: Digest::of(json), vocab: *vocab },
        }
    }

    /// Number of token ids.
    pub fn vocab(&self) -> u32 {
        self.spec().vocab()
    }

    /// The `tokenizer.json`; `bytes` has none.
    pub fn json(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Bytes => None,
            Kind::File { json, .. } => Some(json),
        }
    }

    /// The token that ends a document, if there is one.
    pub fn end_of_text(&self) -> Option<u32> {
        match self.kind {
            Kind::Bytes => Some(0),
            Kind::File { end, .. } => end,
        }
    }

    /// Text to tokens, without special tokens.
    ///
    /// # Errors
    /// What the library says.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match &self.kind {
            Kind::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Kind::File { tokenizer, .. } => tokenizer
                .encode_fast(text, false)
                .map(|encoding| encoding.get_ids().to_vec())
                .map_err(|e| TokenizerError::Failed { what: "encoding", why: e.to_string() }),
        }
    }

    /// Bytes of text that tokens stand for: what a loss over them is divided by to give bits per byte. The token that ends
    /// a document stands for none. A byte-level token counts with its own bytes, also where it is a part of a character.
    ///
    /// # Errors
    /// What the library says.
    pub fn text_bytes(&self, tokens: &[u32]) -> Result<u64, TokenizerError> {
        let end = self.end_of_text();
        let text: Vec<u32> = tokens.iter().copied().filter(|&token| Some(token) != end).collect();
        let Kind::File { tokenizer, .. } = &self.kind else { return Ok(text.len() as u64) };
        if !matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Ok(self.decode(&text)?.len() as u64);
        }
        // In the alphabet of byte-level tokens every letter is a byte; added tokens are written as they are.
        let added = tokenizer.get_added_tokens_decoder();
        let bytes = |token: &u32| match added.get(token) {
            Some(added) => added.content.len(),
            None => tokenizer.id_to_token(*token).map_or(0, |letters| letters.chars().count()),
        };
        Ok(text.iter().map(|token| bytes(token) as u64).sum())
    }

    /// Tokens to text; ids the tokenizer does not know are left out.
    ///
    /// # Errors
    /// What the library says.
    pub fn decode(&self, tokens: &[u32]) -> Result<Vec<u8>, TokenizerError> {
        match &self.kind {
            Kind::Bytes => Ok(tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect()),
            Kind::File { tokenizer, .. } => tokenizer
                .decode(tokens, false)
                .map(String::into_bytes)
                .map_err(|e| TokenizerError::Failed { what: "decoding", why: e.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const TEXT: &str = "The quick brown fox doesn't jump;\n  it waits — für immer, 12345 times.\n";

    fn trained(vocab: u32, pieces: usize) -> Result<TextTokenizer, TokenizerError> {
        let (sender, receiver) = channel();
        for i in 0..pieces {
            sender.send(format!("{TEXT}paragraph {} of {}\n", i * i, i % 17)).unwrap();
        }
        drop(sender);
        TextTokenizer::train(vocab, receiver)
    }

    #[test]
    fn training_gives_the_same_file_on_one_thread_and_on_two() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| trained(400, 300)).unwrap()
        };
        let (one, two) = (on(1), on(2));
        assert_eq!(one.json(), two.json());
        assert!(one.vocab() > BASE_IDS && one.vocab() <= 400);
        assert_eq!(one.end_of_text(), Some(0));
    }

    #[test]
    fn bpe_is_shorter_than_bytes_and_comes_back() {
        let bpe = trained(400, 300).unwrap();
        let tokens = bpe.encode(TEXT).unwrap();
        assert!(tokens.len() * 2 < TEXT.len(), "{} tokens", tokens.len());
        assert_eq!(bpe.decode(&tokens).unwrap(), TEXT.as_bytes());
        let spelled = bpe.encode(END_OF_TEXT).unwrap();
        assert!(!spelled.contains(&0), "text is never a special token: {spelled:?}");
        assert_eq!(bpe.decode(&spelled).unwrap(), END_OF_TEXT.as_bytes());
    }

    #[test]
    fn tokens_stand_for_as_many_bytes_as_their_text_has() {
        let bpe = trained(400, 300).unwrap();
        let text = format!("{TEXT}漢字 🦀 {END_OF_TEXT}");
        for tokenizer in [&bpe, &TextTokenizer::bytes()] {
            let mut tokens = tokenizer.encode(&text).unwrap();
            // Cut anywhere, inside a character too, the parts add up.
            for cut in 0..tokens.len() {
                let bytes = |tokens| tokenizer.text_bytes(tokens).unwrap();
                assert_eq!(bytes(&tokens[..cut]) + bytes(&tokens[cut..]), text.len() as u64, "cut at {cut}");
            }
            tokens.extend(tokenizer.end_of_text());
            assert_eq!(tokenizer.text_bytes(&tokens).unwrap(), text.len() as u64, "an end is no text");
        }
    }

    #[test]
    fn a_run_gets_the_tokenizer_it_names_and_no_other() {
        let bpe = trained(300, 50).unwrap();
        let json = bpe.json().unwrap();
        assert_eq!(TextTokenizer::of_run(bpe.spec(), Some(json)).unwrap().spec(), bpe.spec());
        assert_eq!(TextTokenizer::of_run(spec::Tokenizer::Bytes, None).unwrap().vocab(), 256);
        let spec::Tokenizer::Bpe { file, vocab } = bpe.spec() else { panic!("a file") };
        let message = |named, json| TextTokenizer::of_run(named, json).unwrap_err().to_string();
        assert!(message(bpe.spec(), None).contains("found nothing"));
        assert!(message(bpe.spec(), Some(&json[1..])).contains(&file.to_string()));
        let more = spec::Tokenizer::Bpe { file, vocab: vocab + 1 };
        assert!(message(more, Some(json)).contains(&format!("found {file} with {vocab} ids")));
        let broken = TextTokenizer::from_json(b"{}").unwrap_err().to_string();
        assert!(broken.contains("not a tokenizer.json"), "{broken}");
        assert!(trained(256, 1).unwrap_err().to_string().contains("bpe of 256 ids, expected 257 to"));
    }
}
