//! The envelope: 64 bytes that say how much follows, before any of it is read.
//!
//! ```text
//!  0  4  magic "IOTA"
//!  4  2  version, little-endian
//!  6  1  kind: the message's number
//!  7  1  flags: bit 0 = the body is packed (see `transport::pack`); bit 1 = urgent: a gradient, which a
//!        relay passes on before activations
//!  8  4  head length: postcard of the message
//! 12  4  body length on the wire
//! 16  4  body length unpacked
//! 20  4  zero
//! 24  8  checksum: CRC-64/NVME over head and body as on the wire, little-endian
//! 32 32  to: the receiver's key; a relay forwards what is not its own, unread
//! 64     head, then body
//! ```
//!
//! The checksum tells bytes that were damaged. That nobody changed them is another's to say: of a connection AES-GCM, of what
//! a receipt names its digest. So it need not be a cryptographic one, which would take a fifth of the time of sending.

use crate::limits::{BODY_BYTES_MAX, HEAD_BYTES_MAX, VERSION};
use crate::message::{ADD_UP_KIND, AUDIT_KIND, EXPLAIN_KIND, KINDS, Message, has_body};
use bytes::Bytes;
use spec::NodeId;
use std::fmt;

/// Length of the envelope's header in bytes.
pub const HEADER_LEN: usize = 64;

const MAGIC: [u8; 4] = *b"IOTA";
const PACKED: u8 = 1;
const URGENT: u8 = 2;
/// Longest head of a message that is not an audit order, in bytes.
const SHORT_HEAD_BYTES_MAX: u32 = 64 << 10;

/// One message to one node.
#[derive(Clone, PartialEq)]
pub struct Frame {
    /// The receiver.
    pub to: NodeId,
    /// The message.
    pub message: Message,
    /// A payload block or a part of a merge, or nothing.
    pub body: Bytes,
}

impl Frame {
    /// A message without a body.
    pub fn new(to: NodeId, message: Message) -> Self {
        Self { to, message, body: Bytes::new() }
    }
}

// A body is megabytes of numbers: a log line names its length alone.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = format_args!("{} bytes", self.body.len());
        f.debug_struct("Frame")
            .field("to", &self.to)
            .field("message", &self.message)
            .field("body", &body)
            .finish()
    }
}

/// The decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message's number.
    pub kind: u8,
    /// Whether the body is packed.
    pub packed: bool,
    /// Whether it goes before payloads that are not.
    pub urgent: bool,
    /// Length of the head, in bytes.
    pub head_len: u32,
    /// Length of the body on the wire, in bytes.
    pub body_len: u32,
    /// Length of the body once unpacked, in bytes.
    pub unpacked_len: u32,
    /// CRC-64/NVME over head and body.
    pub checksum: [u8; 8],
    /// The receiver.
    pub to: NodeId,
}

/// Bytes that are no frame of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not our protocol at all.
    #[error("frame begins with {found:02x?}, expected \"IOTA\": the peer speaks another protocol")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// Another version.
    #[error("frame of version {found}, expected {VERSION}: update the older of the two programs")]
    Version {
        /// The peer's version.
        found: u16,
    },
    /// A kind, flag or reserved byte that this version does not know.
    #[error("frame has {what} {found}, which version {VERSION} does not know")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u32,
    },
    /// A length beyond its bound.
    #[error("frame of kind {kind}: {what} of {found} bytes, at most {limit} allowed")]
    TooLong {
        /// The message's number.
        kind: u8,
        /// Head or body.
        what: &'static str,
        /// The length.
        found: u32,
        /// The bound.
        limit: u32,
    },
    /// Bytes changed on the way.
    #[error("frame of kind {kind}: checksum differs, the bytes were damaged on the way")]
    Checksum {
        /// The message's number.
        kind: u8,
    },
    /// The head is no message, or not of the kind that the header says.
    #[error("frame of kind {kind}: head is no message of that kind ({why})")]
    Head {
        /// The message's number.
        kind: u8,
        /// What the decoder said.
        why: String,
    },
}

impl Header {
    /// Reads a header, checking every bound.
    ///
    /// # Errors
    /// Wrong magic or version, unknown kind or flags, lengths beyond their bounds.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let magic = array::<4>(bytes, 0);
        if magic != MAGIC {
            return Err(WireError::Magic { found: magic });
        }
        let version = u16::from_le_bytes(array(bytes, 4));
        if version != VERSION {
            return Err(WireError::Version { found: version });
        }
        let header = Self {
            kind: bytes[6],
            packed: bytes[7] & PACKED != 0,
            urgent: bytes[7] & URGENT != 0,
            head_len: u32::from_le_bytes(array(bytes, 8)),
            body_len: u32::from_le_bytes(array(bytes, 12)),
            unpacked_len: u32::from_le_bytes(array(bytes, 16)),
            checksum: array(bytes, 24),
            to: NodeId(array(bytes, 32)),
        };
        let reserved = u32::from_le_bytes(array(bytes, 20));
        for (what, found, known) in [
            ("kind", u32::from(header.kind), header.kind < KINDS),
            ("flags", u32::from(bytes[7]), bytes[7] & !(PACKED | URGENT) == 0),
            ("reserved bytes", reserved, reserved == 0),
        ] {
            if !known {
                return Err(WireError::Unknown { what, found });
            }
        }
        header.check_lengths()?;
        Ok(header)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6] = self.kind;
        bytes[7] = if self.packed { PACKED } else { 0 } | if self.urgent { URGENT } else { 0 };
        bytes[8..12].copy_from_slice(&self.head_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.unpacked_len.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.checksum);
        bytes[32..].copy_from_slice(self.to.as_bytes());
        bytes
    }

    fn check_lengths(&self) -> Result<(), WireError> {
        let head_limit = if matches!(self.kind, AUDIT_KIND | ADD_UP_KIND | EXPLAIN_KIND) {
            HEAD_BYTES_MAX
        } else {
            SHORT_HEAD_BYTES_MAX
        };
        let body_limit = if has_body(self.kind) { BODY_BYTES_MAX } else { 0 };
        for (what, found, limit) in [
            ("head", self.head_len, head_limit),
            ("body", self.body_len, body_limit),
            ("unpacked body", self.unpacked_len, body_limit),
        ] {
            if found > limit {
                return Err(WireError::TooLong { kind: self.kind, what, found, limit });
            }
        }
        if !self.packed && self.body_len != self.unpacked_len {
            return Err(WireError::Unknown { what: "unpacked length", found: self.unpacked_len });
        }
        Ok(())
    }
}

/// Writes header and head of a message whose body travels as `body` (packed or not).
///
/// # Errors
/// When head or body is longer than its bound.
pub fn encode(
    to: NodeId,
    message: &Message,
    body: &[u8],
    unpacked_len: Option<u32>,
) -> Result<([u8; HEADER_LEN], Vec<u8>), WireError> {
    let kind = message.kind();
    let head =
        postcard::to_allocvec(message).map_err(|error| WireError::Head { kind, why: error.to_string() })?;
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let header = Header {
        kind,
        packed: unpacked_len.is_some(),
        urgent: message.is_urgent(),
        head_len: length(&head),
        body_len: length(body),
        unpacked_len: unpacked_len.unwrap_or(length(body)),
        checksum: checksum(&head, body),
        to,
    };
    header.check_lengths()?;
    Ok((header.encode(), head))
}

/// Reads a message whose header was read before. `body` is as it travelled.
///
/// # Errors
/// When the checksum differs or the head is no message of the header's kind.
pub fn decode(header: &Header, head: &[u8], body: &[u8]) -> Result<Message, WireError> {
    let kind = header.kind;
    if checksum(head, body) != header.checksum {
        return Err(WireError::Checksum { kind });
    }
    let bad = |why: String| WireError::Head { kind, why };
    let (message, rest) =
        postcard::take_from_bytes::<Message>(head).map_err(|error| bad(error.to_string()))?;
    if !rest.is_empty() {
        return Err(bad(format!("{} bytes too many", rest.len())));
    }
    if message.kind() != kind {
        return Err(bad(format!("it is of kind {}", message.kind())));
    }
    if message.is_urgent() != header.urgent {
        return Err(bad("its urgency is not the header's".into()));
    }
    Ok(message)
}

/// The checksum of a frame: CRC-64/NVME over head and body, little-endian.
pub fn checksum(head: &[u8], body: &[u8]) -> [u8; 8] {
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    crc.update(head);
    crc.update(body);
    crc.finalize().to_le_bytes()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
