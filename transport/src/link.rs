//! What the tasks of one connection share, and its sending side.

use crate::frame::{self, Encoded, deadline};
use crate::liveness::Pulse;
use crate::{Config, Statistics, TransportError};
use bytes::Bytes;
use quinn::{ConnectionError, SendStream, VarInt, WriteError};
use spec::NodeId;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use wire::Frame;

/// Least that a frame counts for in the budgets, in bytes: a crowd of tiny ones costs memory too.
const FRAME_COST_MIN_BYTES: u32 = 4 << 10;
/// Longest reason taken from a peer, in characters.
const REASON_CHARS_MAX: usize = 200;
const CODE_DONE: VarInt = VarInt::from_u32(0);
const CODE_FAULT: VarInt = VarInt::from_u32(1);

/// Between whom a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A node's to a hub, which passes on frames of others unread: one that is damaged says nothing about the hub.
    ToHub,
    /// A hub's to a node.
    ToNode,
    /// Two nodes' own. A frame that is not taken has to go another way, so the connection ends with it.
    Direct,
}

/// One connection, as its handle, its tasks and the relay know it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    /// This node.
    pub(crate) own: NodeId,
    pub(crate) kind: Kind,
    pub(crate) quic: quinn::Connection,
    pub(crate) config: Config,
    pub(crate) handle: Handle,
    pub(crate) pulse: Pulse,
    pub(crate) counters: Counters,
    /// Whether nothing of the peer is passed on to others.
    pub(crate) confined: AtomicBool,
    /// Turns true once the peer said that it sends nothing more.
    pub(crate) peer_finished: watch::Sender<bool>,
    control: mpsc::Sender<Control>,
    urgent: mpsc::UnboundedSender<Job>,
    plain: mpsc::UnboundedSender<Job>,
    credit: Arc<Semaphore>,
    ended: OnceLock<TransportError>,
}

/// See [`Statistics`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames_sent: AtomicU64,
    pub(crate) frames_received: AtomicU64,
    pub(crate) body_bytes_sent: AtomicU64,
    pub(crate) packed_bytes_sent: AtomicU64,
    pub(crate) body_bytes_received: AtomicU64,
    pub(crate) packed_bytes_received: AtomicU64,
    pub(crate) frames_damaged: AtomicU64,
}

/// What goes through the control stream.
enum Control {
    Frame(Bytes),
    Finish,
}

/// Who gets the next payload stream. The queues hold no more than the budget of the senders allows.
enum Job {
    Write(Encoded, OwnedSemaphorePermit),
    Lend(oneshot::Sender<LentStream>),
}

/// A stream on loan. Dropped unfinished, a QUIC stream finishes by itself, and half a frame would pass for a
/// whole one: this one is reset instead.
pub(crate) struct LentStream(Option<SendStream>);

impl LentStream {
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), WriteError> {
        match &mut self.0 {
            Some(stream) => stream.write_chunk(chunk).await,
            None => Err(WriteError::ClosedStream),
        }
    }

    /// The frame is whole. (Where the receiver stopped the stream, there is nothing left to finish.)
    pub(crate) fn finish(mut self) {
        if let Some(mut stream) = self.0.take() {
            let _ = stream.finish();
        }
    }
}

impl Drop for LentStream {
    fn drop(&mut self) {
        if let Some(mut stream) = self.0.take() {
            let _ = stream.reset(VarInt::from_u32(1));
        }
    }
}

/// The receiving ends of a link's queues, for its tasks.
pub(crate) struct Queues {
    control: mpsc::Receiver<Control>,
    urgent: mpsc::UnboundedReceiver<Job>,
    plain: mpsc::UnboundedReceiver<Job>,
}

impl Link {
    pub(crate) fn new(
        quic: quinn::Connection,
        (own, peer): (NodeId, NodeId),
        kind: Kind,
        handle: Handle,
        config: Config,
    ) -> (Arc<Self>, Queues) {
        let (control, control_queue) = mpsc::channel(config.control_queue.max(1));
        let (urgent, urgent_queue) = mpsc::unbounded_channel();
        let (plain, plain_queue) = mpsc::unbounded_channel();
        let credit = Arc::new(Semaphore::new(config.send_budget_bytes as usize));
        let (peer_finished, _) = watch::channel(false);
        let (pulse, counters, ended) = (Pulse::new(), Counters::default(), OnceLock::new());
        let link = Self {
            peer,
            own,
            kind,
            quic,
            config,
            handle,
            pulse,
            counters,
            confined: AtomicBool::new(false),
            peer_finished,
            control,
            urgent,
            plain,
            credit,
            ended,
        };
        (Arc::new(link), Queues { control: control_queue, urgent: urgent_queue, plain: plain_queue })
    }

    /// Ends the connection for this reason, unless it ended before.
    pub(crate) fn end(&self, why: TransportError) {
        let code = if matches!(why, TransportError::Closed { .. }) { CODE_DONE } else { CODE_FAULT };
        let words = match &why {
            TransportError::Closed { why, .. } => why.clone(),
            other => other.to_string(),
        };
        if self.ended.set(why).is_ok() {
            tracing::debug!(peer = %self.peer.short(), "connection ended: {words}");
            self.quic.close(code, words.as_bytes());
        }
    }

    /// Why it ended, or would have if it ended now.
    pub(crate) fn why_ended(&self) -> TransportError {
        if let Some(why) = self.ended.get() {
            return why.clone();
        }
        let peer = self.peer;
        let why = match self.quic.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) => {
                let words = String::from_utf8_lossy(&close.reason);
                words.chars().flat_map(char::escape_debug).take(REASON_CHARS_MAX).collect()
            }
            Some(ConnectionError::TimedOut) => "silence".into(),
            Some(other) => other.to_string(),
            None => "closing".into(),
        };
        self.ended.get_or_init(|| TransportError::Closed { peer, why }).clone()
    }

    /// See [`Connection::send`](crate::Connection::send).
    pub(crate) async fn send(self: &Arc<Self>, frame: Frame) -> Result<(), TransportError> {
        // Whoever was told of the end is not told otherwise: the tasks that write may not have seen it yet.
        if let Some(why) = self.ended.get() {
            return Err(why.clone());
        }
        let to = frame.to;
        let payload = !frame.body.is_empty();
        let permit = if payload {
            let cost = cost(frame.body.len(), self.config.send_budget_bytes);
            let permit = self.credit.clone().acquire_many_owned(cost).await;
            Some(permit.map_err(|_| self.why_ended())?)
        } else {
            None
        };
        let encoded = frame::prepare(frame, self.config.packing, &self.handle).await;
        let encoded = encoded.map_err(|source| TransportError::Unsendable { to, source })?;
        match permit {
            Some(permit) => self.queue(encoded.urgent).send(Job::Write(encoded, permit)).map_err(drop),
            None => self.control.send(Control::Frame(encoded.front)).await.map_err(drop),
        }
        .map_err(|()| self.why_ended())
    }

    /// As [`send`](Self::send), but a peer that takes no message for too long loses its connection.
    pub(crate) async fn send_or_end(self: &Arc<Self>, frame: Frame) -> Result<(), TransportError> {
        if !frame.body.is_empty() {
            return self.send(frame).await;
        }
        let (link, limit) = (self.clone(), self.config.stall_timeout);
        // On the reactor's threads, which have timers.
        let sending = self.handle.spawn(timeout(limit, async move { link.send(frame).await }));
        match sending.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                let why = format!("it took no message for {} ms", limit.as_millis());
                self.end(TransportError::Misconduct { peer: self.peer, why });
                Err(self.why_ended())
            }
            Err(_) => Err(self.why_ended()),
        }
    }

    /// A payload stream of this connection, in its turn. `None` where the connection ended.
    pub(crate) async fn lend(&self, urgent: bool) -> Option<LentStream> {
        let (lender, loan) = oneshot::channel();
        self.queue(urgent).send(Job::Lend(lender)).ok()?;
        loan.await.ok()
    }

    /// Returns once everything sent has arrived and the peer has said that it sends nothing more. Frames
    /// sent later are refused.
    pub(crate) async fn finish(&self) {
        let _ = self.credit.acquire_many(self.config.send_budget_bytes).await;
        self.credit.close();
        let mut peer_finished = self.peer_finished.subscribe();
        if self.control.send(Control::Finish).await.is_ok() {
            tokio::select! {
                _ = peer_finished.wait_for(|finished| *finished) => {}
                _ = self.quic.closed() => {}
            }
        }
    }

    /// Sends nothing more through the control stream, without waiting for payloads.
    pub(crate) async fn finish_control(&self) {
        let _ = self.control.send(Control::Finish).await;
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Statistics {
            frames_sent: read(&counters.frames_sent),
            frames_received: read(&counters.frames_received),
            body_bytes_sent: read(&counters.body_bytes_sent),
            packed_bytes_sent: read(&counters.packed_bytes_sent),
            body_bytes_received: read(&counters.body_bytes_received),
            packed_bytes_received: read(&counters.packed_bytes_received),
            frames_damaged: read(&counters.frames_damaged),
        }
    }

    fn queue(&self, urgent: bool) -> &mpsc::UnboundedSender<Job> {
        if urgent { &self.urgent } else { &self.plain }
    }
}

/// What a frame with a body of `bytes` counts for in a budget.
pub(crate) fn cost(bytes: usize, budget: u32) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).max(FRAME_COST_MIN_BYTES).min(budget)
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

/// Starts the sending tasks of a link. They end with the connection.
pub(crate) fn start_sending(link: &Arc<Link>, stream: SendStream, queues: Queues) {
    link.handle.spawn(write_control(link.clone(), stream, queues.control));
    link.handle.spawn(write_payloads(link.clone(), queues.urgent, queues.plain));
}

async fn write_control(link: Arc<Link>, mut stream: SendStream, mut queue: mpsc::Receiver<Control>) {
    // Control before every payload.
    let _ = stream.set_priority(2);
    loop {
        let next = tokio::select! {
            next = queue.recv() => next,
            _ = link.quic.closed() => None,
        };
        match next {
            Some(Control::Frame(front)) => {
                if stream.write_chunk(front).await.is_err() {
                    return;
                }
                count(&link.counters.frames_sent, 1);
            }
            Some(Control::Finish) => {
                let _ = stream.finish();
                return;
            }
            None => return,
        }
    }
}

async fn write_payloads(
    link: Arc<Link>,
    mut urgent: mpsc::UnboundedReceiver<Job>,
    mut plain: mpsc::UnboundedReceiver<Job>,
) {
    // The stream first, the frame second: who goes next is decided when there is room for it.
    while let Ok(stream) = link.quic.open_uni().await {
        let (job, priority) = tokio::select! {
            biased;
            _ = link.quic.closed() => return,
            Some(job) = urgent.recv() => (job, 1),
            Some(job) = plain.recv() => (job, 0),
            else => return,
        };
        let _ = stream.set_priority(priority);
        match job {
            Job::Write(encoded, permit) => {
                link.handle.spawn(write_payload(link.clone(), stream, encoded, permit));
            }
            Job::Lend(lender) => drop(lender.send(LentStream(Some(stream)))),
        }
    }
}

async fn write_payload(
    link: Arc<Link>,
    mut stream: SendStream,
    frame: Encoded,
    permit: OwnedSemaphorePermit,
) {
    let Encoded { front, body, unpacked_len, .. } = frame;
    let (packed_len, length) = (body.len(), (front.len() + body.len()) as u64);
    let writing = async {
        let written = stream.write_all_chunks(&mut [front, body]).await;
        written.is_ok() && stream.finish().is_ok() && matches!(stream.stopped().await, Ok(None))
    };
    let delivered = match link.kind {
        Kind::Direct => timeout(deadline(link.config.frame_timeout, length), writing).await == Ok(true),
        Kind::ToHub | Kind::ToNode => writing.await,
    };
    if delivered {
        count(&link.counters.frames_sent, 1);
        count(&link.counters.body_bytes_sent, unpacked_len);
        count(&link.counters.packed_bytes_sent, packed_len);
    } else if link.quic.close_reason().is_none() {
        tracing::warn!(peer = %link.peer.short(), "the peer stopped a payload frame");
        if link.kind == Kind::Direct {
            link.end(TransportError::Misconduct { peer: link.peer, why: "it did not take a payload".into() });
        }
    }
    drop(permit);
}
