//! The bytes of every kind of message, kept in a file that people can read.
//!
//! A difference means that this version would not understand its own past: add a kind or a variant at the
//! end instead. After adding one, `UPDATE_GOLDEN=1 cargo test -p wire` appends it; review the change.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

mod samples;

use std::fmt::Write;
use std::path::Path;
use wire::envelope::{decode, encode};
use wire::message::{KINDS, has_body};
use wire::{HEADER_LEN, Header};

const BODY: &[u8] = b"sixteen bytes...";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");
const ABOUT: &str =
    "# One frame of every kind: header (magic, version, kind, flags, head length, body length on the wire,
# body length unpacked, zero, checksum, receiver), head, body. See docs/formats.md.
";

/// Where the fields of the header begin.
const FIELDS: [usize; 11] = [0, 4, 6, 7, 8, 12, 16, 20, 24, 32, 64];

fn text() -> String {
    let mut text = String::from(ABOUT);
    for (name, message) in samples::messages() {
        let kind = message.kind();
        let body = if has_body(kind) { BODY } else { b"" };
        let (header, head) = encode(samples::receiver(), &message, body, None).unwrap();
        let fields: Vec<_> =
            FIELDS.windows(2).map(|field| hex::encode(&header[field[0]..field[1]])).collect();
        write!(text, "\n{kind} {name}\nheader {}\n", fields.join(" ")).unwrap();
        for (label, bytes) in [("head", &head[..]), ("body", body)] {
            for row in bytes.chunks(32) {
                writeln!(text, "{label}   {}", hex::encode(row)).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_kind_has_the_bytes_it_always_had() {
    let text = text();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let golden = std::fs::read_to_string(Path::new(FILE)).unwrap();
    for (number, (found, expected)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(found, expected, "golden.txt, line {}", number + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "lines in golden.txt");
}

#[test]
fn the_bytes_in_the_file_are_the_messages() {
    let golden = std::fs::read_to_string(Path::new(FILE)).unwrap();
    let frames = golden.split("\n\n").skip(1);
    let messages = samples::messages();
    assert_eq!(messages.len(), usize::from(KINDS), "one sample a kind");
    assert_eq!(frames.clone().count(), messages.len());
    for (frame, (name, message)) in frames.zip(messages) {
        assert!(frame.lines().next().is_some_and(|title| title.ends_with(name)), "{name}");
        let bytes = |label: &str| {
            let rows = frame.lines().filter_map(|line| line.strip_prefix(label));
            hex::decode(rows.collect::<String>().replace(' ', "")).unwrap()
        };
        let header: [u8; HEADER_LEN] = bytes("header").try_into().unwrap();
        let header = Header::decode(&header).unwrap();
        assert_eq!(header.to, samples::receiver());
        assert_eq!(header.urgent, name == "Payload", "the sample payload is a gradient");
        assert_eq!(decode(&header, &bytes("head "), &bytes("body ")).unwrap(), message, "{name}");
    }
}
