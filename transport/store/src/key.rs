//! Names of places in a store.

use spec::Digest;

use crate::{Error, Result};

const MAX_NAME_LEN: usize = 512;

/// Key of an object: `<prefix>/<64 hexadecimal characters>`.
///
/// # Errors
/// [`Error::BadName`] when the prefix breaks the rule stated on [`crate::Store`].
pub fn object_key(prefix: &str, digest: &Digest) -> Result<String> {
    check_name(prefix)?;
    Ok(format!("{prefix}/{digest}"))
}

/// Refuses what an S3 server, a file system or a URL might read differently from us.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-' | '/');
    let sound = |part: &str| !matches!(part, "" | "." | "..");
    if name.len() <= MAX_NAME_LEN && name.chars().all(plain) && name.split('/').all(sound) {
        Ok(())
    } else {
        Err(Error::BadName { name: name.chars().take(MAX_NAME_LEN).collect() })
    }
}

/// The digest at the end of an object's key, if `key` is one directly under `prefix`.
pub(crate) fn digest_in_key(prefix: &str, key: &str) -> Option<Digest> {
    key.strip_prefix(prefix)?.strip_prefix('/')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_are_refused() {
        for name in ["", "/", "a//b", "/a", "a/", "../a", "a/./b", "A", "a b", "a%2f", "ü", &"a".repeat(513)]
        {
            assert!(matches!(check_name(name), Err(Error::BadName { .. })), "{name:?}");
        }
        for name in ["a", "runs/0f/weights", "a.b_c-d", &"a".repeat(512)] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn only_direct_children_count_as_objects() {
        let digest = Digest::of(b"x");
        let key = object_key("a/b", &digest).unwrap();
        assert_eq!(digest_in_key("a/b", &key), Some(digest));
        assert_eq!(digest_in_key("a", &key), None);
        assert_eq!(digest_in_key("a/b", "a/b/pointer"), None);
    }
}
