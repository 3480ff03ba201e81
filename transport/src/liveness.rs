//! Heartbeats, and what follows from their absence.

use crate::TransportError;
use crate::link::Link;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How late this task may run before the delay counts as our own and not as the peer's silence.
const LATENESS_MAX: Duration = Duration::from_millis(200);
const HEARTBEAT: &[u8] = b"~";

/// When the peer was last heard: by a heartbeat or by any byte of a frame.
#[derive(Debug)]
pub(crate) struct Pulse {
    origin: Instant,
    heard_ms: AtomicU64,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), heard_ms: AtomicU64::new(0) }
    }

    /// A sign of life came in.
    pub(crate) fn heard(&self) {
        let now_ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now_ms, Ordering::Relaxed);
    }

    fn heard_at(&self) -> Instant {
        self.origin + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }
}

/// Sends heartbeats and watches for the peer's, until the connection ends. `suspected` tells whether the
/// peer has been silent for too long.
pub(crate) async fn watch(link: Arc<Link>, suspected: watch::Sender<bool>) {
    let config = &link.config;
    let mut beat_at = Instant::now();
    // Time during which this machine, not the peer, was asleep; forgiven until the peer is heard again.
    let (mut excused, mut excused_since) = (Duration::ZERO, link.pulse.heard_at());
    loop {
        let heard_at = link.pulse.heard_at();
        if heard_at != excused_since {
            (excused, excused_since) = (Duration::ZERO, heard_at);
        }
        let patience = if *suspected.borrow() { config.lost_after } else { config.suspect_after };
        let wake_at = beat_at.min(heard_at + patience + excused);
        tokio::select! {
            biased;
            _ = link.quic.closed() => return,
            datagram = link.quic.read_datagram() => match datagram {
                Ok(_) => {
                    link.pulse.heard();
                    suspected.send_if_modified(|state| std::mem::replace(state, false));
                    continue;
                }
                Err(_) => return,
            },
            () = sleep_until(wake_at) => {}
        }
        let now = Instant::now();
        let late = now - wake_at;
        if late > LATENESS_MAX {
            excused += late;
        }
        if now >= beat_at {
            beat_at = now + config.heartbeat_interval;
            // A full buffer drops the oldest heartbeat, a closed connection ends this loop: nothing to do.
            let _ = link.quic.send_datagram(Bytes::from_static(HEARTBEAT));
        }
        let silence = now.saturating_duration_since(link.pulse.heard_at() + excused);
        suspected.send_if_modified(|state| {
            let changed = *state != (silence >= config.suspect_after);
            *state ^= changed;
            changed
        });
        if silence >= config.lost_after {
            let silent_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
            link.end(TransportError::Silent { peer: link.peer, silent_ms });
            return;
        }
    }
}
