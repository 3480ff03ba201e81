//! Documents, read piece by piece: a text file is one, a line of JSONL is one, a row of a Parquet table is one.

use crate::failure::{Failure, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Most bytes of a piece. A document's pieces depend on its text alone, so its tokens do too.
pub const PIECE_BYTES: usize = 1 << 20;
/// The widest character.
const CHAR_BYTES: usize = 4;

/// Takes a piece of a document's text, and whether it is the document's last.
pub type Visit<'a> = dyn FnMut(&str, bool) -> Result<()> + 'a;

/// Documents that can be read more than once; documents without text are left out.
pub trait Documents: Sync {
    /// Shows all pieces of all documents, always in the same order.
    ///
    /// # Errors
    /// Input that cannot be read or is not text, or what `visit` returns.
    fn pieces(&self, visit: &mut Visit<'_>) -> Result<()>;
}

/// Documents in files.
pub struct Files {
    /// In order.
    pub files: Vec<PathBuf>,
    /// Where JSONL and Parquet hold the text.
    pub field: String,
}

impl Documents for Files {
    fn pieces(&self, visit: &mut Visit<'_>) -> Result<()> {
        for path in &self.files {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("jsonl") => lines(path, &self.field, visit)?,
                Some("parquet") => super::parquet::rows(path, &self.field, visit)?,
                _ => text(path, visit)?,
            }
        }
        Ok(())
    }
}

impl Documents for [String] {
    fn pieces(&self, visit: &mut Visit<'_>) -> Result<()> {
        self.iter().try_for_each(|document| pieces_of(document, visit))
    }
}

/// The pieces of a document in memory.
pub fn pieces_of(mut text: &str, visit: &mut Visit<'_>) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    while text.len() > PIECE_BYTES + CHAR_BYTES {
        let (piece, rest) = text.split_at(cut(text));
        visit(piece, false)?;
        text = rest;
    }
    visit(text, true)
}

/// Where to cut `text`, longer than a piece: after the last line end that stands alone between letters, where a
/// tokenizer cuts too; else after a character.
fn cut(text: &str) -> usize {
    let bytes = text.as_bytes();
    let lone = |&at: &usize| {
        bytes[at] == b'\n' && !bytes[at - 1].is_ascii_whitespace() && !bytes[at + 1].is_ascii_whitespace()
    };
    (1..PIECE_BYTES).rev().find(lone).map_or_else(|| text.floor_char_boundary(PIECE_BYTES), |at| at + 1)
}

/// A text file, in memory of a few pieces.
fn text(path: &Path, visit: &mut Visit<'_>) -> Result<()> {
    let mut file = open(path)?;
    let (mut buffer, mut taken) = (vec![], 0u64);
    loop {
        let read = file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut buffer);
        let read = read.map_err(|e| unreadable(path, &e))?;
        let text = match str::from_utf8(&buffer) {
            Ok(text) => text,
            // The rest of a character is still to come.
            Err(e) if e.error_len().is_none() && read > 0 => {
                str::from_utf8(&buffer[..e.valid_up_to()]).unwrap_or_default()
            }
            Err(e) => return Err(not_text(path, &format!("byte {}", taken + e.valid_up_to() as u64))),
        };
        if read == 0 {
            return pieces_of(text, visit);
        }
        let mut at = 0;
        while text.len() - at > PIECE_BYTES + CHAR_BYTES {
            let end = at + cut(&text[at..]);
            visit(&text[at..end], false)?;
            at = end;
        }
        buffer.drain(..at);
        taken += at as u64;
    }
}

/// A JSONL file, in memory of a line.
fn lines(path: &Path, field: &str, visit: &mut Visit<'_>) -> Result<()> {
    let mut file = BufReader::new(open(path)?);
    let mut line = vec![];
    for number in 1u64.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(|e| unreadable(path, &e))? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let place = format!("line {number}");
        let Ok(text) = str::from_utf8(&line) else { return Err(not_text(path, &place)) };
        let object: serde_json::Value = serde_json::from_str(text)
            .map_err(|e| Failure::input(format!("{}, {place}: not JSON ({e})", path.display())))?;
        let Some(document) = object.get(field).and_then(|value| value.as_str()) else {
            return Err(no_field(path, &place, field));
        };
        pieces_of(document, visit)?;
    }
    Ok(())
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| unreadable(path, &e))
}

/// The sentence for a place without text.
pub fn no_field(path: &Path, place: &str, field: &str) -> Failure {
    let path = path.display();
    Failure::input(format!("{path}, {place}: no text in the field {field:?}; name the field with --field"))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::input(format!("{}: cannot be read ({error})", path.display()))
}

fn not_text(path: &Path, place: &str) -> Failure {
    Failure::input(format!("{}: not UTF-8 text ({place}); convert it first", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(documents: &(impl Documents + ?Sized)) -> Result<Vec<(String, bool)>> {
        let mut seen = vec![];
        documents.pieces(&mut |piece, last| {
            seen.push((piece.to_owned(), last));
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn a_long_file_is_shown_in_the_pieces_of_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.txt");
        // No line end in the first half, two-byte characters everywhere.
        let text = "ä".repeat(PIECE_BYTES) + &"zwölf Boxkämpfer\n".repeat(100_000);
        std::fs::write(&path, &text).unwrap();
        let of_file = shown(&Files { files: vec![path], field: String::new() }).unwrap();
        let of_text = shown(&[text.clone()][..]).unwrap();
        assert_eq!(of_file, of_text);
        assert!(
            of_file.len() > 2 && of_file.iter().all(|(piece, _)| piece.len() <= PIECE_BYTES + CHAR_BYTES)
        );
        assert_eq!(of_file.iter().filter(|(_, last)| *last).count(), 1);
        assert_eq!(of_file.into_iter().map(|(piece, _)| piece).collect::<String>(), text);
    }

    #[test]
    fn bad_files_are_named_with_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let said = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let outcome = shown(&Files { files: vec![path], field: "text".into() });
            outcome.err().map(|e| e.to_string()).unwrap_or_default()
        };
        let long = [vec![b'a'; PIECE_BYTES + 9], vec![0xff]].concat();
        assert!(said("a.txt", &long).contains(&format!("a.txt: not UTF-8 text (byte {})", PIECE_BYTES + 9)));
        assert!(said("b.txt", b"ab\xc3").contains("(byte 2)"), "a character cut off by the end");
        assert!(
            said("a.jsonl", b"{\"text\":\"x\"}\n\n{\"body\":\"y\"}\n")
                .contains("line 3: no text in the field")
        );
        assert!(said("b.jsonl", b"{\"text\":\n").contains("line 1: not JSON"));
        assert!(said("c.jsonl", b"{\"text\":\"x\"}\n\xff\n").contains("not UTF-8 text (line 2)"));
        assert!(said("a.parquet", b"PAR1 and no more").contains("a.parquet: not a Parquet file"));
        let none = Files { files: vec![folder.path().join("none")], field: String::new() };
        assert!(shown(&none).err().unwrap().to_string().contains("none: cannot be read"));
    }
}
