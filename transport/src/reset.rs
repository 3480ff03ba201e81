//! How a listener that was killed and started again tells those who still talk to the one before: by the stateless
//! reset of RFC 9000, on their next packet, instead of by their patience. Both must make the same token of a
//! connection's id, so the token's key comes from the listener's own.

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use std::sync::Arc;
use std::time::Duration;
use wire::Key;

/// Bytes of a connection id: enough that nobody meets another's.
const ID_BYTES: usize = 8;
/// Bytes of a token's authentication code; QUIC takes the first 16.
const CODE_BYTES: usize = 32;

/// The configuration of an endpoint that answers with `key`.
///
/// # Errors
/// What the system's random source said.
pub(crate) fn endpoint_config(key: &Key) -> Result<EndpointConfig, getrandom::Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let tokens = Tokens(blake3::derive_key("iota stateless reset v1", &key.seed()));
    let mut config = EndpointConfig::new(Arc::new(tokens));
    // The default recognises its own ids alone, by a key that ends with the process.
    config.cid_generator(move || Box::new(Ids { random, drawn: 0 }));
    Ok(config)
}

struct Tokens([u8; 32]);

impl HmacKey for Tokens {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        CODE_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // A comparison of hashes takes the same time wherever they differ.
        let found = <[u8; CODE_BYTES]>::try_from(signature).map_err(|_| CryptoError)?;
        (blake3::keyed_hash(&self.0, data) == found).then_some(()).ok_or(CryptoError)
    }
}

/// Ids drawn from a secret of this process.
struct Ids {
    random: [u8; 32],
    drawn: u64,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.drawn += 1;
        let hash = blake3::keyed_hash(&self.random, &self.drawn.to_le_bytes());
        ConnectionId::new(&hash.as_bytes()[..ID_BYTES])
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
