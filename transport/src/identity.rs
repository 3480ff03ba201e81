//! A node's key on disk: 64 hexadecimal digits (the ed25519 seed) in a file only its owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use wire::Key;

/// Longest key file read, in bytes: the digits, a line end, and enough more to say what is wrong.
const FILE_BYTES_MAX: u64 = 256;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file or its folder refuses.
    #[error("key file {}: cannot {action}: {source}", path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the secret.
    #[error("key file {}: mode is {mode:04o}, expected 0600: others may have read it; run `chmod 600`, or delete it for a new key", path.display())]
    Permissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is no seed. It is a secret, so only its length is told.
    #[error("key file {}: expected 64 hexadecimal digits, found {found_bytes} bytes that are not: restore it, or delete it for a new key", path.display())]
    Content {
        /// The key file.
        path: PathBuf,
        /// Length of what was found, line end not counted.
        found_bytes: usize,
    },
    /// The system's random source refuses.
    #[error("cannot draw a new key: {why}")]
    Random {
        /// What the system said.
        why: String,
    },
}

/// Loads the key of `path`, or creates file, folder and key where there is none.
///
/// Creation is atomic: a crash leaves either no key file or a whole one, and of two processes that create
/// at once both get the same key.
///
/// # Errors
/// When the file is unreadable, readable by others, or holds no seed.
pub fn load_or_create(path: &Path) -> Result<Key, IdentityError> {
    match load(path) {
        Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => create(path),
        other => other,
    }
}

/// Loads the key of `path`.
///
/// # Errors
/// When the file is absent, unreadable, readable by others, or holds no seed.
pub fn load(path: &Path) -> Result<Key, IdentityError> {
    let file = File::open(path).map_err(file_error(path, "open it"))?;
    check_permissions(path, &file)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(file_error(path, "read it"))?;
    let digits = text.trim_ascii_end();
    let mut seed = [0; 32];
    hex::decode_to_slice(digits, &mut seed)
        .map_err(|_| IdentityError::Content { path: path.into(), found_bytes: digits.len() })?;
    Ok(Key::from_seed(seed))
}

fn create(path: &Path) -> Result<Key, IdentityError> {
    let mut random = [0; 40];
    getrandom::fill(&mut random).map_err(|error| IdentityError::Random { why: error.to_string() })?;
    let mut seed = [0; 32];
    seed.copy_from_slice(&random[..32]);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(file_error(path, "create its folder"))?;
    let draft = folder.join(format!(".key-{}", hex::encode(&random[32..])));
    write_private(&draft, hex::encode(seed).as_bytes()).map_err(file_error(path, "write it"))?;
    // A hard link, unlike a rename, never replaces a key that another process created meanwhile.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(file_error(path, "remove its draft"))?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(file_error(path, "create it")(error));
        }
        _ => {}
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(file_error(path, "sync its folder"))?;
    load(path)
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(unix)]
fn check_permissions(path: &Path, file: &File) -> Result<(), IdentityError> {
    let metadata = file.metadata().map_err(file_error(path, "inspect it"))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Permissions { path: path.into(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &File) -> Result<(), IdentityError> {
    Ok(())
}

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::File { path: path.into(), action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_created_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/node.key");
        let created = load_or_create(&path).unwrap();
        let found = load_or_create(&path).unwrap();
        assert_eq!(created.seed(), found.seed());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", hex::encode(created.seed())));
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no draft is left behind");
        let other = load_or_create(&folder.path().join("other.key")).unwrap();
        assert_ne!(other.seed(), created.seed());
    }

    #[test]
    fn all_who_create_at_once_get_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let seeds: Vec<_> = std::thread::scope(|scope| {
            let creators: Vec<_> =
                (0..8).map(|_| scope.spawn(|| load_or_create(&path).unwrap().seed())).collect();
            creators.into_iter().map(|creator| creator.join().unwrap()).collect()
        });
        assert!(seeds.iter().all(|seed| *seed == seeds[0]));
    }

    #[test]
    fn a_file_that_holds_no_seed_is_refused_without_telling_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let contents = [String::new(), "ab".repeat(31), "ab".repeat(33), "xy".repeat(32), "ab".repeat(5000)];
        for content in contents {
            fs::remove_file(&path).ok();
            write_private(&path, content.as_bytes()).unwrap();
            let error = load_or_create(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Content { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("expected 64 hexadecimal digits") && !text.contains("abab"), "{text}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(error.to_string().contains("mode is 0640, expected 0600"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = load_or_create(&folder.path().join("file/node.key")).unwrap_err();
        assert!(error.to_string().contains("file/node.key: cannot"), "{error}");
    }
}
