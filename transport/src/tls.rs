//! TLS 1.3 in which both sides prove an ed25519 key and nothing else (RFC 7250): no names, no certificates.

use crate::TransportError;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};
use spec::NodeId;
use std::sync::{Arc, OnceLock};
use wire::Key;

const ALPN: &[u8] = b"iota/1";
/// SubjectPublicKeyInfo of an ed25519 key, up to its 32 bytes (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// PKCS#8 of an ed25519 seed, up to its 32 bytes (RFC 8410).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Where a client's verifier leaves the key that was proven to it.
pub(crate) type FoundKey = Arc<OnceLock<NodeId>>;

/// The listening side: any key may call, and must be proven.
pub(crate) fn server(key: &Key) -> Result<QuicServerConfig, TransportError> {
    let provider = Arc::new(ring::default_provider());
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified(key)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failure)?
        .with_client_cert_verifier(Arc::new(Pin::new(None)))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No resumption, hence no 0-RTT: every connection proves its keys anew.
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(failure)
}

/// The calling side: `expect` alone may answer.
pub(crate) fn client(key: &Key, expect: NodeId) -> Result<(QuicClientConfig, FoundKey), TransportError> {
    let provider = Arc::new(ring::default_provider());
    let pin = Pin::new(Some(expect));
    let found = pin.found.clone();
    let resolver = AlwaysResolvesClientRawPublicKeys::new(certified(key)?);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failure)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pin))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok((QuicClientConfig::try_from(config).map_err(failure)?, found))
}

/// The key that the other side of `connection` proved.
pub(crate) fn proven_key(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    key_of(identity.first()?)
}

fn key_of(spki: &[u8]) -> Option<NodeId> {
    Some(NodeId(spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?))
}

fn certified(key: &Key) -> Result<Arc<CertifiedKey>, TransportError> {
    let secret = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], &key.seed()].concat());
    let public = CertificateDer::from([&SPKI_PREFIX[..], key.id().as_bytes()].concat());
    let signer = ring::sign::any_eddsa_type(&secret).map_err(failure)?;
    Ok(Arc::new(CertifiedKey::new(vec![public], signer)))
}

fn failure(error: impl ToString) -> TransportError {
    TransportError::System { what: "the TLS of a connection", why: error.to_string() }
}

/// Takes any ed25519 key, or one alone, once it is proven by a signature over the handshake.
#[derive(Debug)]
pub(crate) struct Pin {
    expect: Option<NodeId>,
    found: FoundKey,
    provider: Arc<CryptoProvider>,
}

impl Pin {
    pub(crate) fn new(expect: Option<NodeId>) -> Self {
        Self { expect, found: FoundKey::default(), provider: Arc::new(ring::default_provider()) }
    }

    fn check_key(&self, spki: &[u8]) -> Result<(), Error> {
        let found = key_of(spki).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        self.found.get_or_init(|| found);
        if self.expect.is_some_and(|expect| expect != found) {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(())
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &[u8],
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(spki);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

/// What both sides of a handshake ask of a verifier in the same words: TLS 1.3, ed25519, a raw key.
macro_rules! proof_of_the_key {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.check_signature(message, key, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_key(key).map(|()| ServerCertVerified::assertion())
    }

    proof_of_the_key!();
}

impl ClientCertVerifier for Pin {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_key(key).map(|()| ClientCertVerified::assertion())
    }

    proof_of_the_key!();
}
