//! One conversation with one peer.

use crate::TransportError;
use crate::inbound::{Held, Inlet};
use crate::link::{Kind, Link, start_sending};
use crate::liveness;
use crate::reactor::Reactor;
use crate::relay::Relay;
use quinn::{RecvStream, SendStream};
use spec::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use wire::Frame;

/// How long a caller's farewell may take to leave, once everything else has arrived.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(200);

/// A connection that is up. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    link: Arc<Link>,
    inbox: Mutex<Inbox>,
    reactor: Arc<Reactor>,
}

struct Inbox {
    control: mpsc::Receiver<Held>,
    payloads: mpsc::UnboundedReceiver<Held>,
    suspected: watch::Receiver<bool>,
    /// What the caller was told last.
    told_suspected: bool,
}

/// What comes in.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // events are moved, not stored by the thousand
pub enum Received {
    /// A frame, its body unpacked and its checksum verified.
    Frame(Frame),
    /// The peer has been silent for `Config::suspect_after`.
    Suspected,
    /// It is heard again.
    Recovered,
}

/// What a connection carried since it came up. What a relay passes on is not counted here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames sent: messages written, payload frames delivered.
    pub frames_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Bytes of payload bodies delivered, before packing.
    pub body_bytes_sent: u64,
    /// Bytes of payload bodies delivered, as they travelled.
    pub packed_bytes_sent: u64,
    /// Bytes of payload bodies received, unpacked.
    pub body_bytes_received: u64,
    /// Bytes of payload bodies received, as they travelled.
    pub packed_bytes_received: u64,
    /// Payload frames dropped because they came damaged from a relay, incomplete or too late.
    pub frames_damaged: u64,
}

impl Connection {
    /// Sets the tasks of a connection going whose greeting is done.
    pub(crate) fn start(
        reactor: Arc<Reactor>,
        relay: Option<Arc<Relay>>,
        (link, queues): (Arc<Link>, crate::link::Queues),
        (send, recv): (SendStream, RecvStream),
    ) -> Self {
        let (control, control_inbox) = mpsc::channel(link.config.control_queue.max(1));
        let (payloads, payload_inbox) = mpsc::unbounded_channel();
        let (suspect, suspected) = watch::channel(false);
        let budget = Arc::new(Semaphore::new(link.config.receive_budget_bytes as usize));
        start_sending(&link, send, queues);
        link.handle.spawn(liveness::watch(link.clone(), suspect));
        let inlet = Inlet { link: link.clone(), relay, control, payloads, budget };
        link.handle.spawn(inlet.run(recv));
        let inbox =
            Inbox { control: control_inbox, payloads: payload_inbox, suspected, told_suspected: false };
        Self(Arc::new(Shared { link, inbox: Mutex::new(inbox), reactor }))
    }

    /// The key the peer proved.
    pub fn peer(&self) -> NodeId {
        self.0.link.peer
    }

    /// Accepts a frame for sending: at once while fewer than `Config::send_budget_bytes` of payload (or
    /// `Config::control_queue` messages) are on their way, else as soon as room is free. Messages without a
    /// body arrive in the order of the calls; payload frames in any order, gradients first.
    ///
    /// # Errors
    /// When the frame is beyond its bounds, or the connection ended.
    pub async fn send(&self, frame: Frame) -> Result<(), TransportError> {
        self.0.link.send(frame).await
    }

    /// What comes in next, control messages before payloads. Cancel-safe.
    ///
    /// # Errors
    /// Once the connection ended and all that came before was taken: why it ended.
    pub async fn recv(&self) -> Result<Received, TransportError> {
        self.recv_held().await.map(|(received, _)| received)
    }

    /// What it carried.
    pub fn statistics(&self) -> Statistics {
        self.0.link.statistics()
    }

    /// Waits (at most `Config::close_timeout`) until everything sent has arrived, then closes with `why`.
    pub async fn close(&self, why: &str) {
        let (link, reactor) = (self.0.link.clone(), self.0.reactor.clone());
        let closing = close(link.clone(), why.to_owned());
        let farewell = async move {
            closing.await;
            // Nothing that a node has to say comes after this: its last packet goes before the process may.
            if link.kind == Kind::ToHub {
                let _ = timeout(FAREWELL_TIMEOUT, reactor.endpoint.wait_idle()).await;
            }
        };
        let _ = self.0.link.handle.spawn(farewell).await;
    }

    /// Ends it at once, because the peer breaks the rules or is not wanted.
    pub(crate) fn end(&self, why: TransportError) {
        self.0.link.end(why);
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.0.link
    }

    /// As [`recv`](Self::recv), with the budget that a frame holds until it is dropped.
    pub(crate) async fn recv_held(&self) -> Result<(Received, Option<OwnedSemaphorePermit>), TransportError> {
        let mut inbox = self.0.inbox.lock().await;
        let Inbox { control, payloads, suspected, told_suspected } = &mut *inbox;
        let told = *told_suspected;
        tokio::select! {
            biased;
            Ok(now) = suspected.wait_for(|&now| now != told) => {
                *told_suspected = *now;
                Ok((if *now { Received::Suspected } else { Received::Recovered }, None))
            }
            Some((frame, held)) = control.recv() => Ok((Received::Frame(frame), held)),
            Some((frame, held)) = payloads.recv() => Ok((Received::Frame(frame), held)),
            else => Err(self.0.link.why_ended()),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let (peer, why) = (self.link.peer, "the connection was dropped".into());
        self.link.end(TransportError::Closed { peer, why });
    }
}

/// Closes once everything sent has arrived, or time is up.
pub(crate) async fn close(link: Arc<Link>, why: String) {
    let _ = timeout(link.config.close_timeout, link.finish()).await;
    link.end(TransportError::Closed { peer: link.peer, why });
}
