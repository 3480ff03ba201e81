//! Frames on streams: what is read is bounded first, what is written was checked first.

use crate::TransportError;
use crate::liveness::Pulse;
use crate::pack::{PackError, pack, unpack};
use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use spec::NodeId;
use std::time::Duration;
use tokio::runtime::Handle;
use wire::envelope::{HEADER_LEN, decode, encode};
use wire::limits::BODY_BYTES_MAX;
use wire::{Frame, Header, WireError};

/// Slowest pace at which a frame may come, in bytes per second: a long one gets time by its length.
const PACE_MIN_BYTES_PER_S: u64 = 16 << 10;
/// Bodies above this are packed on a thread that no heartbeat waits for, in bytes.
const PACK_INLINE_BYTES_MAX: usize = 256 << 10;
/// The same where all there is to do is a checksum, for which another thread's caches would be cold.
const CHECK_INLINE_BYTES_MAX: usize = 4 << 20;

/// Why no frame could be had from a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("{0}")]
    Rule(String),
    #[error("the stream was cut: {0}")]
    Cut(String),
    #[error("the connection ended")]
    Ended,
}

impl Fault {
    pub(crate) fn into_error(self, peer: NodeId) -> Option<TransportError> {
        match self {
            Self::Wire(source) => Some(TransportError::Garbage { peer, source }),
            Self::Pack(source) => Some(TransportError::Misconduct { peer, why: source.to_string() }),
            Self::Rule(why) => Some(TransportError::Misconduct { peer, why }),
            Self::Cut(_) | Self::Ended => None,
        }
    }
}

/// A frame ready to be written.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) urgent: bool,
    /// Header and head.
    pub(crate) front: Bytes,
    /// The body as it travels.
    pub(crate) body: Bytes,
    /// Length of the body before packing.
    pub(crate) unpacked_len: usize,
}

/// How long a frame of `bytes` may take.
pub(crate) fn deadline(timeout: Duration, bytes: u64) -> Duration {
    timeout + Duration::from_secs(bytes / PACE_MIN_BYTES_PER_S)
}

/// Encodes a frame, its body packed where that is wanted and helps.
pub(crate) async fn prepare(frame: Frame, packing: bool, threads: &Handle) -> Result<Encoded, WireError> {
    off_thread(threads, frame.body.len(), packing, move || {
        let Frame { to, message, body } = frame;
        let unpacked_len = body.len();
        let packed = if packing && unpacked_len <= BODY_BYTES_MAX as usize { pack(&body) } else { None };
        let (body, declared) = match packed {
            Some(packed) => (Bytes::from(packed), Some(unpacked_len as u32)),
            None => (body, None),
        };
        let (header, head) = encode(to, &message, &body, declared)?;
        let front = Bytes::from([&header[..], &head].concat());
        Ok(Encoded { urgent: message.is_urgent(), front, body, unpacked_len })
    })
    .await
}

/// Reads a header; `None` where the stream ends before it.
pub(crate) async fn read_header(recv: &mut RecvStream, pulse: &Pulse) -> Result<Option<Header>, Fault> {
    let (mut bytes, mut found) = ([0; HEADER_LEN], 0);
    while found < HEADER_LEN {
        match recv.read(&mut bytes[found..]).await? {
            Some(count) => found += count,
            None if found == 0 => return Ok(None),
            None => return Err(Fault::Rule(format!("a header of {found} bytes, expected {HEADER_LEN}"))),
        }
        pulse.heard();
    }
    Ok(Some(Header::decode(&bytes)?))
}

/// Reads exactly `length` bytes, which the header has bounded.
pub(crate) async fn read_exact(recv: &mut RecvStream, length: u32, pulse: &Pulse) -> Result<Bytes, Fault> {
    let length = length as usize;
    let mut bytes = BytesMut::with_capacity(length);
    while bytes.len() < length {
        let Some(chunk) = recv.read_chunk(length - bytes.len(), true).await? else {
            return Err(Fault::Rule(format!("a frame that ends {} bytes early", length - bytes.len())));
        };
        bytes.extend_from_slice(&chunk.bytes);
        pulse.heard();
    }
    Ok(bytes.freeze())
}

/// Checks head and body and unpacks the body.
pub(crate) async fn open(header: Header, head: Bytes, body: Bytes, threads: &Handle) -> Result<Frame, Fault> {
    off_thread(threads, header.unpacked_len as usize, header.packed, move || {
        let message = decode(&header, &head, &body)?;
        let body = if header.packed { unpack(&body, header.unpacked_len)?.into() } else { body };
        Ok(Frame { to: header.to, message, body })
    })
    .await
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Cut(format!("reset with code {code}")),
            _ => Self::Ended,
        }
    }
}

async fn off_thread<T: Send + 'static>(
    threads: &Handle,
    bytes: usize,
    packed: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= if packed { PACK_INLINE_BYTES_MAX } else { CHECK_INLINE_BYTES_MAX } {
        return work();
    }
    match threads.spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
