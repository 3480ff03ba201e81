//! The receiving side of a connection.

use crate::TransportError;
use crate::frame::{Fault, deadline, open, read_exact, read_header};
use crate::link::{Kind, Link, cost, count};
use crate::relay::Relay;
use bytes::Bytes;
use quinn::{RecvStream, VarInt};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::{Frame, Header};

/// A frame, and the budget it holds until the caller takes it.
pub(crate) type Held = (Frame, Option<OwnedSemaphorePermit>);

/// Where frames of this node go.
#[derive(Clone)]
pub(crate) struct Inlet {
    pub(crate) link: Arc<Link>,
    /// Where frames of other nodes go; `None` where none may come.
    pub(crate) relay: Option<Arc<Relay>>,
    pub(crate) control: mpsc::Sender<Held>,
    /// Bounded by `budget`.
    pub(crate) payloads: mpsc::UnboundedSender<Held>,
    pub(crate) budget: Arc<Semaphore>,
}

impl Inlet {
    /// Reads everything that comes, until the peer finishes or the connection ends.
    pub(crate) async fn run(self, mut control: RecvStream) {
        let mut readers = JoinSet::new();
        let finished = {
            let messages = self.read_control(&mut control);
            tokio::pin!(messages);
            loop {
                tokio::select! {
                    outcome = &mut messages => break outcome,
                    stream = self.link.quic.accept_uni() => match stream {
                        Ok(stream) => drop(readers.spawn(self.clone().read_payload(stream))),
                        // Messages that came before the end are still to be read.
                        Err(_) => break (&mut messages).await,
                    },
                    Some(_) = readers.join_next() => {}
                }
            }
        };
        if let Err(fault) = finished {
            return self.blame(fault);
        }
        // A peer finishes only after all its payloads were acknowledged: whatever is to come is here.
        while let Some(Ok(stream)) = at_once(self.link.quic.accept_uni()).await {
            readers.spawn(self.clone().read_payload(stream));
        }
        while readers.join_next().await.is_some() {}
        self.link.peer_finished.send_replace(true);
        self.link.finish_control().await;
        let _ = timeout(self.link.config.close_timeout, self.link.quic.closed()).await;
        let why = "the peer finished".into();
        if self.link.quic.close_reason().is_none() {
            self.link.end(TransportError::Closed { peer: self.link.peer, why });
        }
    }

    /// `Ok` where the peer finished.
    async fn read_control(&self, stream: &mut RecvStream) -> Result<(), Fault> {
        while let Some(header) = read_header(stream, &self.link.pulse).await? {
            if header.body_len != 0 {
                return Err(Fault::Rule(format!(
                    "a body of {} bytes on the control stream",
                    header.body_len
                )));
            }
            if header.to != self.link.own {
                // A node takes what comes without a body for its hub's word.
                return Err(Fault::Rule(format!(
                    "a message of kind {} for another node, {}: payloads and parts alone are passed on",
                    header.kind, header.to
                )));
            }
            let limit = deadline(self.link.config.frame_timeout, header.head_len.into());
            let head = in_time(limit, read_exact(stream, header.head_len, &self.link.pulse)).await?;
            let frame = open(header, head, Bytes::new(), &self.link.handle).await?;
            count(&self.link.counters.frames_received, 1);
            if self.control.send((frame, None)).await.is_err() {
                return Err(Fault::Ended);
            }
        }
        Ok(())
    }

    async fn read_payload(self, mut stream: RecvStream) {
        if let Err(fault) = self.try_read_payload(&mut stream).await {
            let _ = stream.stop(VarInt::from_u32(1));
            self.blame(fault);
        }
    }

    async fn try_read_payload(&self, stream: &mut RecvStream) -> Result<(), Fault> {
        let link = &self.link;
        let header = in_time(link.config.frame_timeout, read_header(stream, &link.pulse)).await?;
        let header = header.ok_or_else(|| Fault::Rule("a payload stream without a frame".into()))?;
        if header.body_len == 0 {
            return Err(Fault::Rule(format!("a message of kind {} on a payload stream", header.kind)));
        }
        if header.to != link.own {
            return self.relay(&header)?.pass_payload(link, &header, stream).await;
        }
        // Waiting here is our caller's doing, not the peer's: no deadline.
        let bytes = header.body_len.max(header.unpacked_len) as usize;
        let cost = cost(bytes, link.config.receive_budget_bytes);
        let permit = self.budget.clone().acquire_many_owned(cost).await.map_err(|_| Fault::Ended)?;
        let limit = deadline(link.config.frame_timeout, header.body_len.into());
        let (head, body) = in_time(limit, async {
            let head = read_exact(stream, header.head_len, &link.pulse).await?;
            let body = read_exact(stream, header.body_len, &link.pulse).await?;
            expect_end(stream).await?;
            Ok((head, body))
        })
        .await?;
        let frame = match open(header, head, body, &link.handle).await {
            Err(fault) if link.kind == Kind::ToHub => return Err(Fault::Cut(fault.to_string())),
            other => other?,
        };
        count(&link.counters.frames_received, 1);
        count(&link.counters.body_bytes_received, header.unpacked_len as usize);
        count(&link.counters.packed_bytes_received, header.body_len as usize);
        self.payloads.send((frame, Some(permit))).map_err(|_| Fault::Ended)
    }

    fn relay(&self, header: &Header) -> Result<&Relay, Fault> {
        self.relay.as_deref().ok_or_else(|| Fault::Rule(format!("a frame for another node, {}", header.to)))
    }

    /// A peer that breaks the rules loses its connection, and no other does.
    fn blame(&self, fault: Fault) {
        let peer = self.link.peer;
        if let Fault::Cut(why) = &fault {
            count(&self.link.counters.frames_damaged, 1);
            tracing::warn!(peer = %peer.short(), "dropped a payload frame: {why}");
        }
        if let Some(error) = fault.into_error(peer) {
            tracing::warn!(peer = %peer.short(), "{error}");
            self.link.end(error);
        }
    }
}

/// The stream must end here.
pub(crate) async fn expect_end(stream: &mut RecvStream) -> Result<(), Fault> {
    match stream.read_chunk(1, true).await? {
        None => Ok(()),
        Some(_) => Err(Fault::Rule("bytes after the end of a frame".into())),
    }
}

/// A frame that takes too long is cut.
pub(crate) async fn in_time<T>(
    limit: Duration,
    reading: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let late = |_| Fault::Cut(format!("not complete within {} s", limit.as_secs_f32()));
    timeout(limit, reading).await.map_err(late)?
}

/// What a future gives without waiting.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}
