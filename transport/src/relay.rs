//! Passing payloads and parts of one node on to another, unread. Messages are not passed on: whatever a node hears is its hub's word.
//!
//! A frame is passed on as it comes, not gathered first: a payload then takes one transfer time, not two,
//! and the hub holds a chunk of it, not all. Its checksum is the receiver's matter.

use crate::frame::{Fault, deadline};
use crate::inbound::{expect_end, in_time};
use crate::link::{LentStream, Link, count};
use bytes::Bytes;
use quinn::{RecvStream, VarInt};
use spec::NodeId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::Header;

/// What the relay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayStatistics {
    /// Frames passed on whole.
    pub frames_forwarded: u64,
    /// Bytes of payload bodies in them, before packing.
    pub body_bytes_forwarded: u64,
    /// Bytes of payload bodies in them, as they travelled.
    pub packed_bytes_forwarded: u64,
    /// Frames dropped because the receiver is not connected, or the sender is confined.
    pub frames_unroutable: u64,
    /// Frames dropped because sender or receiver failed midway, took too long or had no room.
    pub frames_cut: u64,
}

/// The live connections by key.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    frames_forwarded: AtomicU64,
    body_bytes_forwarded: AtomicU64,
    packed_bytes_forwarded: AtomicU64,
    frames_unroutable: AtomicU64,
    frames_cut: AtomicU64,
}

impl Relay {
    /// Takes a connection in; gives back the older one of the same key.
    pub(crate) fn insert(&self, link: Arc<Link>) -> Option<Arc<Link>> {
        self.links().insert(link.peer, link)
    }

    /// Takes `link` out, unless a newer one has its place.
    pub(crate) fn remove(&self, link: &Arc<Link>) {
        let mut links = self.links();
        if links.get(&link.peer).is_some_and(|present| Arc::ptr_eq(present, link)) {
            links.remove(&link.peer);
        }
    }

    pub(crate) fn get(&self, peer: NodeId) -> Option<Arc<Link>> {
        self.links().get(&peer).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.links().values().cloned().collect()
    }

    pub(crate) fn statistics(&self) -> RelayStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RelayStatistics {
            frames_forwarded: read(&self.frames_forwarded),
            body_bytes_forwarded: read(&self.body_bytes_forwarded),
            packed_bytes_forwarded: read(&self.packed_bytes_forwarded),
            frames_unroutable: read(&self.frames_unroutable),
            frames_cut: read(&self.frames_cut),
        }
    }

    /// Passes on the rest of a payload frame whose header was read.
    ///
    /// # Errors
    /// What is the sender's fault. What is the receiver's is counted, and the frame dropped.
    pub(crate) async fn pass_payload(
        &self,
        from: &Link,
        header: &Header,
        stream: &mut RecvStream,
    ) -> Result<(), Fault> {
        let Some(to) = self.route(from, header) else {
            let _ = stream.stop(VarInt::from_u32(1));
            return Ok(());
        };
        let length = u64::from(header.head_len) + u64::from(header.body_len);
        let limit = deadline(from.config.frame_timeout, length);
        let passing = async {
            let out = to.lend(header.urgent).await.ok_or_else(|| Fault::Cut("the receiver left".into()))?;
            copy(from, header, length, stream, out).await
        };
        match in_time(limit, passing).await {
            Ok(()) => {
                self.count_forwarded(header);
                Ok(())
            }
            Err(Fault::Cut(why)) => {
                self.count_cut(from, header, &why);
                let _ = stream.stop(VarInt::from_u32(1));
                Ok(())
            }
            Err(fault) => {
                self.count_cut(from, header, &fault.to_string());
                Err(fault)
            }
        }
    }

    fn route(&self, from: &Link, header: &Header) -> Option<Arc<Link>> {
        let confined = from.confined.load(Ordering::Relaxed);
        let to = self.get(header.to).filter(|_| !confined);
        if to.is_none() {
            count(&self.frames_unroutable, 1);
            let (from, to) = (from.peer.short(), header.to.short());
            let why = if confined { "the sender is confined" } else { "the receiver is not connected" };
            tracing::warn!(from, to, kind = header.kind, "dropped a frame: {why}");
        }
        to
    }

    fn count_forwarded(&self, header: &Header) {
        count(&self.frames_forwarded, 1);
        count(&self.body_bytes_forwarded, header.unpacked_len as usize);
        count(&self.packed_bytes_forwarded, header.body_len as usize);
    }

    fn count_cut(&self, from: &Link, header: &Header, why: &str) {
        count(&self.frames_cut, 1);
        let (from, to) = (from.peer.short(), header.to.short());
        tracing::warn!(from, to, kind = header.kind, "dropped a frame: {why}");
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Link>>> {
        // No holder of the lock can leave the map half changed.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn copy(
    from: &Link,
    header: &Header,
    length: u64,
    stream: &mut RecvStream,
    mut out: LentStream,
) -> Result<(), Fault> {
    let receiver_left = |error: quinn::WriteError| Fault::Cut(format!("the receiver left: {error}"));
    out.write(Bytes::copy_from_slice(&header.encode())).await.map_err(receiver_left)?;
    let mut left = length;
    while left > 0 {
        let Some(chunk) = stream.read_chunk(usize::try_from(left).unwrap_or(usize::MAX), true).await? else {
            return Err(Fault::Rule(format!("a frame that ends {left} bytes early")));
        };
        from.pulse.heard();
        left -= chunk.bytes.len() as u64;
        out.write(chunk.bytes).await.map_err(receiver_left)?;
    }
    expect_end(stream).await?;
    out.finish();
    Ok(())
}
