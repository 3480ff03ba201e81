//! `iota://host:port/<orchestrator key>/<token>`: all that a volunteer needs.

use spec::{NodeId, ParseHexError};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 64;
const SHAPE: &str = "iota://host:port/<key of 64 hexadecimal digits>/<token>";

/// Where the orchestrator is, by which key to know it, and what lets one in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Name or address of the orchestrator's machine; an IPv6 address without brackets.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
    /// Its key.
    pub orchestrator: NodeId,
    /// The token; may be empty where admission is by key.
    pub token: Vec<u8>,
}

/// A text that is no invitation, or one that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// A part is missing or malformed.
    #[error("invitation: {what}: expected {expected}, found {found:?}")]
    Part {
        /// Which part.
        what: &'static str,
        /// What it should look like.
        expected: &'static str,
        /// What stood there.
        found: String,
    },
    /// The orchestrator's key is no key.
    #[error("invitation: {0}")]
    Key(#[from] ParseHexError),
    /// The host has no address.
    #[error("invitation: no address for host {host:?} ({why}): check the name and your connection")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        why: String,
    },
}

impl Invitation {
    /// Looks the host up.
    ///
    /// # Errors
    /// When the name has no address.
    pub async fn resolve(&self) -> Result<SocketAddr, InvitationError> {
        let error = |why: String| InvitationError::Resolve { host: self.host.clone(), why };
        let mut found = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|failure| error(failure.to_string()))?;
        found.next().ok_or_else(|| error("the name has no address".into()))
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, orchestrator, token } = self;
        let token = hex::encode(token);
        if host.contains(':') {
            write!(f, "iota://[{host}]:{port}/{orchestrator}/{token}")
        } else {
            write!(f, "iota://{host}:{port}/{orchestrator}/{token}")
        }
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let part = |what, expected, found: &str| InvitationError::Part {
            what,
            expected,
            found: found.chars().take(80).collect(),
        };
        let rest = text.trim().strip_prefix("iota://").ok_or_else(|| part("the whole text", SHAPE, text))?;
        let mut parts = rest.split('/');
        let (Some(place), Some(key), Some(token), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(part("the whole text", SHAPE, text));
        };
        let (host, port) = place.rsplit_once(':').ok_or_else(|| part("the place", "host:port", place))?;
        let port = port
            .parse()
            .ok()
            .filter(|&port: &u16| port > 0)
            .ok_or_else(|| part("the port", "a number from 1 to 65535", port))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && (host.is_empty() || host.contains(':')) {
            return Err(part("the host", "a name or an address (IPv6 in brackets)", host));
        }
        let bytes = hex::decode(token)
            .ok()
            .filter(|bytes| bytes.len() <= TOKEN_BYTES_MAX)
            .ok_or_else(|| part("the token", "at most 128 hexadecimal digits", token))?;
        Ok(Self { host: bare.unwrap_or(host).to_owned(), port, orchestrator: key.parse()?, token: bytes })
    }
}
