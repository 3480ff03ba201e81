//! Names made of 32 bytes: content digests and node keys.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A 64-digit hexadecimal name could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected 64 hexadecimal digits, found {found:?}")]
pub struct ParseHexError {
    what: &'static str,
    found: String,
}

macro_rules! name_of_32_bytes {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight hexadecimal digits: enough for a log line, never for a decision.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseHexError;

            fn from_str(text: &str) -> Result<Self, ParseHexError> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| ParseHexError { what: $what, found: text.chars().take(80).collect() })?;
                Ok(Self(bytes))
            }
        }

        // Hexadecimal where a person reads it, 32 plain bytes where a program does.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 32]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

name_of_32_bytes! {
    /// BLAKE3 of some bytes: the name under which they are stored, bound and compared.
    Digest, "digest"
}

name_of_32_bytes! {
    /// A node's ed25519 public key, which *is* its name.
    NodeId, "node key"
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_names_what_it_found() {
        let digest = Digest::of(b"iota");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let error = "abc".parse::<NodeId>().unwrap_err();
        assert_eq!(error.to_string(), "node key: expected 64 hexadecimal digits, found \"abc\"");
    }

    #[test]
    fn binary_form_is_the_plain_bytes() {
        let digest = Digest([7; 32]);
        assert_eq!(postcard::to_allocvec(&digest).unwrap(), vec![7; 32]);
    }
}
