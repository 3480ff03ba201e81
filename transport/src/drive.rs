//! Runs any `wire::Machine`: journal, then handle, then perform.

use std::future::Future;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use wire::Machine;

/// Most events journalled together before they are handled.
const BATCH_EVENTS_MAX: usize = 256;

/// The world around a machine: it keeps the journal and performs effects.
pub trait Shell<M: Machine> {
    /// What stops the drive.
    type Error;

    /// Appends an event to the journal, before the machine sees it.
    ///
    /// # Errors
    /// When it cannot be written; the drive stops and the event is not handled.
    fn journal(&mut self, now_ms: u64, event: &M::Event) -> Result<(), Self::Error>;

    /// Makes everything appended durable; called once a batch, before the batch is handled.
    ///
    /// # Errors
    /// When it cannot be made durable; the drive stops and the batch is not handled.
    fn commit(&mut self) -> Result<(), Self::Error>;

    /// Performs one effect. What takes long is started here and told as an event when it is done; waiting
    /// here for room in the machine's own queue would wait for ever.
    ///
    /// # Errors
    /// Only what must end the drive.
    fn perform(
        &mut self,
        now_ms: u64,
        effect: M::Effect,
    ) -> impl Future<Output = Result<Next, Self::Error>> + Send;

    /// The event that tells the machine that a wake-up it asked for is due.
    fn woken(&mut self) -> M::Event;
}

/// What follows an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing in particular.
    Continue,
    /// Wake the machine at this time, or earlier where an earlier wake-up is already set: a machine that
    /// is woken asks again for what it still waits for.
    WakeAt(u64),
    /// End the drive.
    Stop,
}

/// Milliseconds that never run backwards.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_ms: u64,
}

impl Clock {
    /// A clock that shows `now_ms` now: 0, or the time of the journal's last entry.
    pub fn starting_at(now_ms: u64) -> Self {
        Self { origin: Instant::now(), origin_ms: now_ms }
    }

    /// What it shows.
    pub fn now_ms(&self) -> u64 {
        self.origin_ms + u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    fn until(&self, at_ms: u64) -> Duration {
        // Rounded up: a wake-up must never come before its time.
        Duration::from_millis(at_ms.saturating_sub(self.now_ms()).saturating_add(1))
    }
}

/// Feeds `machine` from `events` until the shell says stop or every sender is gone; gives it back.
///
/// Everything that waits in the queue is journalled together and made durable once, then handled event by
/// event, each one's effects performed before the next is handled.
///
/// # Errors
/// The shell's first error.
pub async fn drive<M: Machine, S: Shell<M>>(
    mut machine: M,
    mut events: mpsc::Receiver<M::Event>,
    shell: &mut S,
    clock: Clock,
) -> Result<M, S::Error> {
    let mut wake_at_ms: Option<u64> = None;
    let mut batch = Vec::new();
    loop {
        let wait = clock.until(wake_at_ms.unwrap_or(0));
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait), if wake_at_ms.is_some() => {
                wake_at_ms = None;
                batch.push(shell.woken());
            }
            count = events.recv_many(&mut batch, BATCH_EVENTS_MAX) => {
                if count == 0 {
                    return Ok(machine);
                }
            }
        }
        let now_ms = clock.now_ms();
        for event in &batch {
            shell.journal(now_ms, event)?;
        }
        shell.commit()?;
        for event in batch.drain(..) {
            for effect in machine.handle(now_ms, event) {
                match shell.perform(now_ms, effect).await? {
                    Next::Continue => {}
                    Next::WakeAt(at_ms) => {
                        wake_at_ms = Some(wake_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
                    }
                    Next::Stop => return Ok(machine),
                }
            }
        }
    }
}
