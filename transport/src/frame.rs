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
/// Bodies above this are checked and packed on a thread that no heartbeat waits for, in bytes.
const INLINE_BYTES_MAX: usize = 256 << 10;

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
    off_thread(threads, frame.body.len(), move || {
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
    let mut bytes = [0; HEADER_LEN];
    match read(recv, &mut bytes, pulse).await? {
        0 => Ok(None),
        HEADER_LEN => Ok(Some(Header::decode(&bytes)?)),
        found => Err(Fault::Rule(format!("a header of {found} bytes, expected {HEADER_LEN}"))),
    }
}

/// Reads exactly `length` bytes, which the header has bounded.
pub(crate) async fn read_exact(recv: &mut RecvStream, length: u32, pulse: &Pulse) -> Result<Bytes, Fault> {
    let mut bytes = BytesMut::zeroed(length as usize);
    match read(recv, &mut bytes, pulse).await? {
        found if found == length as usize => Ok(bytes.freeze()),
        found => Err(Fault::Rule(format!("a frame that ends {} bytes early", length as usize - found))),
    }
}

/// Checks head and body and unpacks the body.
pub(crate) async fn open(header: Header, head: Bytes, body: Bytes, threads: &Handle) -> Result<Frame, Fault> {
    off_thread(threads, body.len().max(header.unpacked_len as usize), move || {
        let message = decode(&header, &head, &body)?;
        let body = if header.packed { unpack(&body, header.unpacked_len)?.into() } else { body };
        Ok(Frame { to: header.to, message, body })
    })
    .await
}

/// Bytes read until `buffer` is full or the stream ends.
async fn read(recv: &mut RecvStream, buffer: &mut [u8], pulse: &Pulse) -> Result<usize, Fault> {
    let mut at = 0;
    while at < buffer.len() {
        match recv.read(&mut buffer[at..]).await? {
            Some(count) => at += count,
            None => break,
        }
        pulse.heard();
    }
    Ok(at)
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
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= INLINE_BYTES_MAX {
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
