//! Text to words, each with its line.

use super::PtxError;

/// One word of PTX.
#[derive(Debug, Clone, PartialEq)]
pub enum Token<'a> {
    /// A name, opcode, `.directive`, `%register` or `$label`.
    Word(&'a str),
    /// An integer literal.
    Int(u64),
    /// The bits of `0f…`.
    F32(u32),
    /// The bits of `0d…` or of a decimal literal.
    F64(u64),
    /// A quoted string, without its quotes.
    Text(&'a str),
    /// Punctuation.
    Mark(char),
}

/// A word and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<'a> {
    /// The word.
    pub token: Token<'a>,
    /// Its line, from 1.
    pub line: u32,
}

/// Cuts `text` into words, comments left out.
///
/// # Errors
/// A character PTX does not know, a malformed number or an unclosed comment or string.
pub fn lex(text: &str) -> Result<Vec<Placed<'_>>, PtxError> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let mut out = Vec::new();
    while at < bytes.len() {
        let start = at;
        let here = line;
        let token = match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            b' ' | b'\t' | b'\r' => {
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let Some(length) = text[at..].find("*/") else {
                    return Err(PtxError::new(here, "comment without an end"));
                };
                line += text[at..at + length].matches('\n').count() as u32;
                at += length + 2;
                continue;
            }
            b'"' => {
                let Some(length) = text[at + 1..].find('"') else {
                    return Err(PtxError::new(here, "string without an end"));
                };
                at += length + 2;
                let inner = &text[start + 1..at - 1];
                line += inner.matches('\n').count() as u32;
                Token::Text(inner)
            }
            byte if byte.is_ascii_digit() => {
                while at < bytes.len() && is_number(bytes, at) {
                    at += 1;
                }
                number(&text[start..at]).ok_or_else(|| {
                    PtxError::new(here, format!("`{}` is not a number PTX knows", &text[start..at]))
                })?
            }
            byte if starts_word(byte) => {
                at += 1;
                while at < bytes.len() {
                    // `::` joins qualifiers such as `.shared::cta`; a single colon ends a label.
                    if bytes[at] == b':' && bytes.get(at + 1) == Some(&b':') {
                        at += 2;
                    } else if continues_word(bytes[at]) {
                        at += 1;
                    } else {
                        break;
                    }
                }
                Token::Word(&text[start..at])
            }
            byte if b"{}[](),;:<>|!@+-=*".contains(&byte) => {
                at += 1;
                Token::Mark(byte as char)
            }
            _ => {
                let found = text[at..].chars().next().unwrap_or('?');
                return Err(PtxError::new(here, format!("unexpected character {found:?}")));
            }
        };
        out.push(Placed { token, line: here });
    }
    Ok(out)
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'.' | b'%' | b'$')
}

fn continues_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$')
}

fn is_number(bytes: &[u8], at: usize) -> bool {
    let byte = bytes[at];
    byte.is_ascii_alphanumeric() || byte == b'.' || (matches!(byte, b'+' | b'-') && bytes[at - 1] == b'e')
}

fn number<'a>(text: &str) -> Option<Token<'a>> {
    if let Some(hex) = text.strip_prefix("0f").or(text.strip_prefix("0F")) {
        return (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok().map(Token::F32)).flatten();
    }
    if let Some(hex) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
        return (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok().map(Token::F64)).flatten();
    }
    let digits = text.trim_end_matches('U');
    let integer = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16)
    } else if let Some(binary) = digits.strip_prefix("0b").or(digits.strip_prefix("0B")) {
        u64::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') && !digits.contains('.') {
        u64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    match integer {
        Ok(value) => Some(Token::Int(value)),
        Err(_) if text.contains('.') => text.parse::<f64>().ok().map(|value| Token::F64(value.to_bits())),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Token<'_>> {
        lex(text).unwrap().into_iter().map(|placed| placed.token).collect()
    }

    #[test]
    fn opcode_without_space_before_its_register_is_two_words() {
        assert_eq!(
            words("shfl.sync.b32%r1|%p2"),
            vec![Token::Word("shfl.sync.b32"), Token::Word("%r1"), Token::Mark('|'), Token::Word("%p2"),]
        );
    }

    #[test]
    fn literals() {
        assert_eq!(
            words("0f3F800000 0d3FF0000000000000 0x1fU 017 0b11 42 1.5"),
            vec![
                Token::F32(0x3f80_0000),
                Token::F64(0x3ff0_0000_0000_0000),
                Token::Int(31),
                Token::Int(15),
                Token::Int(3),
                Token::Int(42),
                Token::F64(1.5f64.to_bits()),
            ]
        );
    }

    #[test]
    fn double_colon_joins_and_single_colon_ends() {
        assert_eq!(
            words(".shared::cta L:"),
            vec![Token::Word(".shared::cta"), Token::Word("L"), Token::Mark(':'),]
        );
    }

    #[test]
    fn lines_survive_comments() {
        let placed = lex("a /* x\ny */ b // c\nd").unwrap();
        assert_eq!(placed.iter().map(|p| p.line).collect::<Vec<_>>(), vec![1, 2, 3]);
    }

    #[test]
    fn refuses_what_is_not_ptx() {
        assert_eq!(lex("mov\n #").unwrap_err().line, 2);
        assert!(lex("0f12").is_err());
        assert!(lex("/* open").is_err());
        assert!(lex("\"open").is_err());
    }
}
