//! The tokenizer `bytes`: one token per byte, 256 ids, nothing to train and nothing to download.

use spec::Tokenizer;

/// Text to tokens.
pub fn encode(tokenizer: Tokenizer, text: &[u8]) -> Vec<u32> {
    match tokenizer {
        Tokenizer::Bytes => text.iter().map(|&byte| u32::from(byte)).collect(),
    }
}

/// Tokens to text; ids the tokenizer does not know are left out.
pub fn decode(tokenizer: Tokenizer, tokens: &[u32]) -> Vec<u8> {
    match tokenizer {
        Tokenizer::Bytes => tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect(),
    }
}
