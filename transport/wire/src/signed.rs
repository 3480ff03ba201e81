//! Statements with a name under them.

use crate::{memory, to_bytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};

/// A statement that nodes sign.
pub trait Signable: Serialize + DeserializeOwned {
    /// Keeps a signature on one kind of statement from counting as one on another.
    const DOMAIN: &'static str;

    /// What is hashed and signed: postcard of the fields in order.
    fn canonical_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// The statement's digest under its domain: its name in chains and references.
    fn digest(&self) -> Digest {
        Digest(blake3::derive_key(Self::DOMAIN, &self.canonical_bytes()))
    }
}

/// A node's secret key.
#[derive(Clone)]
pub struct Key(SigningKey);

impl Key {
    /// The key that grows from 32 secret bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The 32 secret bytes, for the key file alone.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half, which is the node's name.
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key(of {})", self.id().short())
    }
}

/// A signature that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signature of {signer} under a {what} does not hold")]
pub struct SignatureError {
    /// Who is said to have signed.
    pub signer: NodeId,
    /// Domain of the statement.
    pub what: &'static str,
}

/// A statement, who makes it, and the ed25519 signature over its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    /// The statement.
    pub body: T,
    /// Who makes it.
    pub signer: NodeId,
    /// First half of the signature (R). Two halves because serde stops at arrays of 32.
    r: [u8; 32],
    /// Second half of the signature (s).
    s: [u8; 32],
}

impl<T: Signable> Signed<T> {
    /// Signs `body`.
    pub fn new(body: T, key: &Key) -> Self {
        let (signer, digest) = (key.id(), body.digest());
        let (r, s) = memory::made(signer, digest).unwrap_or_else(|| {
            let signature = key.0.sign(digest.as_bytes());
            let halves = (*signature.r_bytes(), *signature.s_bytes());
            memory::remember(signer, digest, halves);
            halves
        });
        Self { body, signer, r, s }
    }

    /// The statement's digest.
    pub fn digest(&self) -> Digest {
        self.body.digest()
    }

    /// Statement and signature as they lie in a file or an object.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// The statement, if the signature holds.
    ///
    /// # Errors
    /// When `signer` is no key, or did not sign this.
    pub fn verify(&self) -> Result<&T, SignatureError> {
        let error = || SignatureError { signer: self.signer, what: T::DOMAIN };
        let digest = self.digest();
        if memory::made(self.signer, digest) == Some((self.r, self.s)) {
            return Ok(&self.body);
        }
        let key = VerifyingKey::from_bytes(self.signer.as_bytes()).map_err(|_| error())?;
        let signature = Signature::from_components(self.r, self.s);
        key.verify_strict(digest.as_bytes(), &signature).map_err(|_| error())?;
        Ok(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectRef;
    use crate::{Merged, Remembering};

    fn statement() -> Merged {
        let object = ObjectRef { digest: Digest([1; 32]), bytes: 7 };
        Merged { epoch: 3, weights: object, momentum: Some(object) }
    }

    #[test]
    fn a_signature_holds_for_its_statement_and_signer_alone() {
        let key = Key::from_seed([9; 32]);
        let good = Signed::new(statement(), &key);
        assert!(good.verify().is_ok());
        let mut edited = good.clone();
        edited.body.epoch += 1;
        assert!(edited.verify().is_err());
        let mut other = good;
        other.signer = Key::from_seed([8; 32]).id();
        let error = other.verify().unwrap_err();
        assert!(error.to_string().contains("does not hold"), "{error}");
    }

    #[test]
    fn what_is_remembered_changes_no_answer() {
        let (key, stranger) = (Key::from_seed([9; 32]), Key::from_seed([8; 32]));
        let made_before = Signed::new(statement(), &key);
        let edited = Merged { epoch: 4, ..statement() };
        let _memory = Remembering::new(100);
        // What was made before the memory began, or elsewhere, is verified in full, and the same is signed again.
        assert!(made_before.verify().is_ok());
        assert_eq!(memory::made(key.id(), made_before.digest()), None);
        let good = Signed::new(statement(), &key);
        assert_eq!(good, made_before);
        assert!(memory::made(key.id(), good.digest()).is_some() && good.verify().is_ok());
        assert_eq!(Signed::new(statement(), &key), made_before);
        let of_stranger = Signed::new(statement(), &stranger);
        let forged = [
            Signed { body: edited.clone(), ..good.clone() },
            Signed { signer: stranger.id(), ..good.clone() },
            Signed { s: [0; 32], ..good.clone() },
            Signed { r: of_stranger.r, ..good.clone() },
            Signed { r: of_stranger.r, s: of_stranger.s, ..good.clone() },
        ];
        // Twice: what did not hold is not remembered as if it did.
        for forged in forged.iter().chain(&forged) {
            assert!(forged.verify().is_err(), "{forged:?}");
        }
        assert!(Signed::new(edited, &key).verify().is_ok() && good.verify().is_ok());
    }
}
