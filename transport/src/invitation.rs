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
    /// `host:port`, as a person writes it.
    pub fn place(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

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
        write!(f, "iota://{}/{}/{}", self.place(), self.orchestrator, hex::encode(&self.token))
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let rest = text.trim().strip_prefix("iota://").ok_or_else(|| part("the whole text", SHAPE, text))?;
        let mut parts = rest.split('/');
        let (Some(place), Some(key), Some(token), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(part("the whole text", SHAPE, text));
        };
        let (host, port) = read_place(place)?;
        let bytes = hex::decode(token)
            .ok()
            .filter(|bytes| bytes.len() <= TOKEN_BYTES_MAX)
            .ok_or_else(|| part("the token", "at most 128 hexadecimal digits", token))?;
        Ok(Self { host, port, orchestrator: key.parse()?, token: bytes })
    }
}

/// Host and port of `host:port`, of an IPv6 address in brackets.
///
/// # Errors
/// [`InvitationError::Part`] says which of them is none.
pub fn read_place(place: &str) -> Result<(String, u16), InvitationError> {
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
    Ok((bare.unwrap_or(host).to_owned(), port))
}

fn part(what: &'static str, expected: &'static str, found: &str) -> InvitationError {
    InvitationError::Part { what, expected, found: found.chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";

    #[test]
    fn an_invitation_reads_as_it_is_written() {
        let text = format!("iota://swarm.example.org:4433/{KEY}/00ff");
        let invitation: Invitation = text.parse().unwrap();
        assert_eq!((invitation.host.as_str(), invitation.port), ("swarm.example.org", 4433));
        assert_eq!(invitation.orchestrator.to_string(), KEY);
        assert_eq!(invitation.token, [0, 255]);
        assert_eq!(invitation.to_string(), text);
        let six: Invitation = format!(" iota://[::1]:1/{KEY}/\n").parse().unwrap();
        assert_eq!((six.host.as_str(), six.token.len()), ("::1", 0));
        assert_eq!(six.to_string(), format!("iota://[::1]:1/{KEY}/"));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        let long = "00".repeat(65);
        for (text, complaint) in [
            ("http://a:1/b/c".into(), "the whole text: expected iota://host:port/"),
            (format!("iota://a:1/{KEY}"), "the whole text: expected iota://host:port/"),
            (format!("iota://a:1/{KEY}/00/11"), "the whole text: expected iota://host:port/"),
            (format!("iota://a/{KEY}/00"), "the place: expected host:port, found \"a\""),
            (format!("iota://a:0/{KEY}/00"), "the port: expected a number from 1 to 65535, found \"0\""),
            (format!("iota://a:65536/{KEY}/00"), "the port: expected a number from 1 to 65535"),
            (format!("iota://:1/{KEY}/00"), "the host: expected a name or an address"),
            (format!("iota://::1:1/{KEY}/00"), "the host: expected a name or an address (IPv6 in brackets)"),
            ("iota://a:1/beef/00".into(), "node key: expected 64 hexadecimal digits, found \"beef\""),
            (format!("iota://a:1/{KEY}/xyz"), "the token: expected at most 128 hexadecimal digits"),
            (format!("iota://a:1/{KEY}/{long}"), "the token: expected at most 128 hexadecimal digits"),
        ] {
            let error = text.parse::<Invitation>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("invitation: {complaint}")), "{text}: {error}");
        }
    }

    #[test]
    fn a_host_that_is_an_address_needs_no_look_up() {
        let invitation: Invitation = format!("iota://127.0.0.1:9/{KEY}/").parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(invitation.resolve()), Ok("127.0.0.1:9".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn every_invitation_survives_its_text(
            host in "[a-z][a-z0-9.-]{0,30}",
            port in 1u16..,
            key: [u8; 32],
            token in prop::collection::vec(any::<u8>(), 0..=TOKEN_BYTES_MAX),
        ) {
            let invitation = Invitation { host, port, orchestrator: NodeId(key), token };
            prop_assert_eq!(invitation.to_string().parse::<Invitation>(), Ok(invitation));
        }

        #[test]
        fn no_text_panics(text in "(iota://)?.{0,60}") {
            if let Ok(invitation) = text.parse::<Invitation>() {
                prop_assert_eq!(invitation.to_string().parse::<Invitation>(), Ok(invitation));
            }
        }
    }
}
