//! Tokenizers as other programs want them: as a `tokenizer.json`, and as the lists of a GGUF file.

use crate::failure::{Failure, Result};
use engine::data::TextTokenizer;
use serde_json::{Map, Value, json};

/// The lists of a byte-level BPE tokenizer.
pub struct Lists {
    /// Text of each id, in the alphabet of byte-level BPE.
    pub tokens: Vec<String>,
    /// Whether an id stands for something that is not text.
    pub special: Vec<bool>,
    /// Pairs in the order in which they are merged, a blank between the two.
    pub merges: Vec<String>,
}

/// The file, and the text of the token that ends a document where a special token does.
pub fn tokenizer_json(tokenizer: &TextTokenizer) -> Result<(Vec<u8>, Option<String>)> {
    let Some(json) = tokenizer.json() else {
        let text = serde_json::to_vec_pretty(&of_bytes()).map_err(|e| Failure::input(e.to_string()))?;
        return Ok((text, None));
    };
    let value: Value = serde_json::from_slice(json).map_err(|e| Failure::input(e.to_string()))?;
    let end = added(&value).into_iter().find(|(id, _)| Some(*id) == tokenizer.end_of_text());
    Ok((json.to_vec(), end.map(|(_, text)| text)))
}

/// The lists for `vocab` ids; ids without a token get a name of their own.
pub fn lists(tokenizer: &TextTokenizer, vocab: u32) -> Result<Lists> {
    let refuse = |what: &str| {
        Failure::input(format!("--to gguf: the tokenizer {what}; only byte-level BPE is exported"))
    };
    let value = match tokenizer.json() {
        None => of_bytes(),
        Some(json) => serde_json::from_slice(json).map_err(|e| refuse(&format!("is no JSON ({e})")))?,
    };
    if !value["pre_tokenizer"].to_string().contains("\"ByteLevel\"") {
        return Err(refuse("does not cut text into bytes"));
    }
    let model = &value["model"];
    let Some(words) = model["vocab"].as_object().filter(|_| model["type"] == "BPE") else {
        return Err(refuse("is not BPE"));
    };
    let mut lists = Lists {
        tokens: (0..vocab).map(|id| format!("<|unused {id}|>")).collect(),
        special: vec![true; vocab as usize],
        merges: vec![],
    };
    let words = words.iter().filter_map(|(word, id)| Some((id.as_u64()?, word.clone(), false)));
    let added = added(&value).into_iter().map(|(id, word)| (u64::from(id), word, true));
    for (id, word, special) in words.chain(added) {
        let id = usize::try_from(id).ok().filter(|&id| id < lists.tokens.len());
        let Some(id) = id else { return Err(refuse("has ids beyond the model's vocabulary")) };
        (lists.tokens[id], lists.special[id]) = (word, special);
    }
    for merge in model["merges"].as_array().into_iter().flatten() {
        // Older files write a pair as one text.
        let pair = match merge {
            Value::String(pair) => Some(pair.clone()),
            Value::Array(pair) => {
                let parts: Option<Vec<&str>> = pair.iter().map(Value::as_str).collect();
                parts.map(|parts| parts.join(" "))
            }
            _ => None,
        };
        lists.merges.push(pair.ok_or_else(|| refuse("holds a merge that is no pair"))?);
    }
    Ok(lists)
}

fn added(value: &Value) -> Vec<(u32, String)> {
    let tokens = value["added_tokens"].as_array().into_iter().flatten();
    tokens
        .filter_map(|token| {
            Some((token["id"].as_u64()?.try_into().ok()?, token["content"].as_str()?.to_owned()))
        })
        .collect()
}

/// Plain bytes as byte-level BPE without merges: id and byte are the same.
fn of_bytes() -> Value {
    let vocab: Map<String, Value> =
        (0..=255).map(|byte| (letter(byte).to_string(), Value::from(byte))).collect();
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocab,
            "merges": [],
        },
    })
}

/// The letter that stands for a byte in byte-level BPE: itself where it is printable Latin-1, else the next letter from
/// U+0100 on.
fn letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_plain_bytes_gives_plain_bytes() {
        let (json, end) = tokenizer_json(&TextTokenizer::bytes()).unwrap();
        let file = TextTokenizer::from_json(&json).unwrap();
        let text = "\0 tab\t and\r\n  zwölf \u{7f} “quotes” 漢字 🦀";
        assert_eq!((file.vocab(), end), (256, None));
        assert_eq!(file.encode(text).unwrap(), TextTokenizer::bytes().encode(text).unwrap());
        assert_eq!(file.decode(&file.encode(text).unwrap()).unwrap(), text.as_bytes());
        let lists = lists(&file, 258).unwrap();
        assert_eq!((lists.tokens.len(), lists.merges.len()), (258, 0));
        assert_eq!((lists.tokens[0].as_str(), lists.tokens[32].as_str()), ("Ā", "Ġ"));
        assert_eq!(lists.special.iter().filter(|&&special| special).count(), 2);
    }
}
