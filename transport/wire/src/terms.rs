//! Tokens of invitations that hold for one role or for a time.
//!
//! Such a token says itself what it holds for, and only who knows the run's secret can make it: nobody has to remember it.

use crate::hello::Role;
use spec::Digest;

/// Domain of the key that tokens are made with.
const DOMAIN: &str = "iota invitation terms v1";
/// The first byte of a token with terms.
const VERSION: u8 = 1;
/// Version, role and expiry.
const TERMS_LEN: usize = 10;
/// Bytes that prove them.
const PROOF_LEN: usize = 16;

/// What an invitation holds for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// The role; any when `None`.
    pub role: Option<Role>,
    /// Until when a newcomer may use it, in seconds since 1970 by the orchestrator's clock; for ever when `None`.
    pub expires_s: Option<u64>,
}

impl Terms {
    /// The token, for whoever knows the run's secret.
    pub fn token(&self, secret: &[u8; 32], run: &Digest) -> Vec<u8> {
        let role = match self.role {
            None => 0,
            Some(Role::Miner) => 1,
            Some(Role::Validator) => 2,
        };
        let mut token = vec![VERSION, role];
        token.extend(self.expires_s.unwrap_or(0).to_le_bytes());
        let proof = proof(secret, run, &token);
        token.extend(proof);
        token
    }

    /// What a token holds for; `None` where it is none of this run.
    pub fn read(secret: &[u8; 32], run: &Digest, token: &[u8]) -> Option<Self> {
        let (terms, found) = token.split_at_checked(TERMS_LEN)?;
        // Digests are compared so that the time it takes says nothing about the proof.
        if Digest::of(found) != Digest::of(&proof(secret, run, terms)) {
            return None;
        }
        let (&[version, role], expires) = terms.split_first_chunk()?;
        let role = match role {
            0 => None,
            1 => Some(Role::Miner),
            2 => Some(Role::Validator),
            _ => return None,
        };
        let expires_s = u64::from_le_bytes(expires.try_into().ok()?);
        (version == VERSION).then_some(Self { role, expires_s: (expires_s > 0).then_some(expires_s) })
    }
}

fn proof(secret: &[u8; 32], run: &Digest, terms: &[u8]) -> [u8; PROOF_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(DOMAIN, secret));
    hasher.update(run.as_bytes()).update(terms);
    let mut proof = [0; PROOF_LEN];
    hasher.finalize_xof().fill(&mut proof);
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made_and_no_other_is() {
        let (secret, run) = ([1; 32], Digest([2; 32]));
        for role in [None, Some(Role::Miner), Some(Role::Validator)] {
            for expires_s in [None, Some(1), Some(u64::MAX)] {
                let terms = Terms { role, expires_s };
                let token = terms.token(&secret, &run);
                assert_eq!(Terms::read(&secret, &run, &token), Some(terms));
                assert_eq!(Terms::read(&[3; 32], &run, &token), None);
                assert_eq!(Terms::read(&secret, &Digest([3; 32]), &token), None);
                for at in 0..token.len() {
                    let mut edited = token.clone();
                    edited[at] ^= 1;
                    assert_eq!(Terms::read(&secret, &run, &edited), None, "byte {at}");
                    assert_eq!(Terms::read(&secret, &run, &token[..at]), None, "{at} bytes");
                }
            }
        }
    }
}
