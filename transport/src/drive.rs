//! Runs any `wire::Machine`: journal, then handle, then perform.

use crate::node::{Arrival, JoinError, Node};
use crate::{Config, Invitation};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wire::{Key, Machine};

/// Events of a guest that may wait for its machine.
const EVENT_QUEUE: usize = 1024;

/// Most events journalled together before they are handled.
const BATCH_EVENTS_MAX: usize = 256;

/// The world around a machine: it keeps the journal and performs effects.
pub trait Shell<M: Machine> {
    /// What stops the drive.
    type Error: Send;

    /// Appends an event to the journal, before the machine sees it. By default there is no journal.
    ///
    /// # Errors
    /// When it cannot be written; the drive stops and the event is not handled.
    fn journal(&mut self, _now_ms: u64, _event: &M::Event) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Makes everything appended durable; called once a batch, before the batch is handled. Nothing is handled meanwhile.
    ///
    /// # Errors
    /// When it cannot be made durable; the drive stops and the batch is not handled.
    fn commit(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Everything that was appended to the journal is handled by now, and what followed from it performed.
    ///
    /// # Errors
    /// Only what must end the drive.
    fn settled(&mut self, _machine: &M) -> Result<(), Self::Error> {
        Ok(())
    }

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
        shell.commit().await?;
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
        shell.settled(&machine)?;
    }
}

/// A guest of a run: its node, its queue, and the wish to leave.
pub struct Guest<E> {
    /// The node.
    pub node: Node<E>,
    /// Where events go.
    pub events: mpsc::Sender<E>,
    queue: mpsc::Receiver<E>,
    stopper: JoinHandle<()>,
}

impl<E: Send + 'static> Guest<E> {
    /// Joins by an invitation, as [`Node::join`] says. The first event is `connected`; `leave` comes once `stop`
    /// completes.
    ///
    /// # Errors
    /// When `listen` is taken, or the host has no address, does not answer, or proves another key.
    pub async fn join(
        invitation: &Invitation,
        listen: Option<SocketAddr>,
        key: &Key,
        translate: fn(Arrival) -> Option<E>,
        connected: E,
        (stop, leave): (impl Future<Output = ()> + Send + 'static, E),
    ) -> Result<Self, JoinError> {
        let (events, queue) = mpsc::channel(EVENT_QUEUE);
        let node = Node::join(invitation, listen, key, Config::default(), events.clone(), translate).await?;
        let stopper = tokio::spawn({
            let events = events.clone();
            async move {
                stop.await;
                let _ = events.send(leave).await;
            }
        });
        // The queue is empty, and its other end is here.
        let _ = events.send(connected).await;
        Ok(Self { node, events, queue, stopper })
    }

    /// Drives the guest's machine to its end, and leaves.
    pub async fn drive<M: Machine<Event = E>, S: Shell<M, Error = Infallible>>(
        self,
        machine: M,
        shell: &mut S,
        farewell: &str,
    ) {
        let Ok(_) = drive(machine, self.queue, shell, Clock::starting_at(0)).await;
        self.stopper.abort();
        self.node.leave(farewell).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Counts up; asks to be woken where told; says what it did.
    #[derive(Default)]
    struct Counter(u32);

    enum Event {
        Add(u32),
        WakeAfter(u64),
        Woken,
        Stop,
    }

    enum Effect {
        Say(u32),
        WakeAt(u64),
        Stop,
    }

    impl Machine for Counter {
        type Event = Event;
        type Effect = Effect;

        fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
            match event {
                Event::Add(amount) => {
                    self.0 += amount;
                    vec![Effect::Say(self.0)]
                }
                Event::WakeAfter(delay_ms) => vec![Effect::WakeAt(now_ms + delay_ms)],
                Event::Woken => vec![Effect::Say(1000)],
                Event::Stop => vec![Effect::Stop],
            }
        }
    }

    /// Writes down what it is asked, in order.
    #[derive(Default)]
    struct Notes {
        lines: Rc<RefCell<Vec<String>>>,
        times_ms: Vec<u64>,
        disk_full: bool,
    }

    impl Shell<Counter> for Notes {
        type Error = &'static str;

        fn journal(&mut self, now_ms: u64, event: &Event) -> Result<(), Self::Error> {
            self.times_ms.push(now_ms);
            self.note(match event {
                Event::Add(amount) => format!("journal add {amount}"),
                Event::WakeAfter(_) => "journal wake after".into(),
                Event::Woken => "journal woken".into(),
                Event::Stop => "journal stop".into(),
            });
            Ok(())
        }

        fn commit(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
            self.note("commit".into());
            std::future::ready(if self.disk_full { Err("the disk is full") } else { Ok(()) })
        }

        fn settled(&mut self, machine: &Counter) -> Result<(), Self::Error> {
            self.note(format!("settled at {}", machine.0));
            Ok(())
        }

        fn perform(
            &mut self,
            _: u64,
            effect: Effect,
        ) -> impl Future<Output = Result<Next, Self::Error>> + Send {
            let next = match effect {
                Effect::Say(number) => {
                    self.note(format!("say {number}"));
                    Next::Continue
                }
                Effect::WakeAt(at_ms) => Next::WakeAt(at_ms),
                Effect::Stop => Next::Stop,
            };
            std::future::ready(Ok(next))
        }

        fn woken(&mut self) -> Event {
            Event::Woken
        }
    }

    impl Notes {
        fn note(&self, line: String) {
            self.lines.borrow_mut().push(line);
        }
    }

    fn run(shell: &mut Notes, script: Vec<Event>, keep_open: bool) -> Result<u32, &'static str> {
        let (sender, events) = mpsc::channel(16);
        script.into_iter().for_each(|event| sender.try_send(event).map_err(drop).unwrap());
        let sender = keep_open.then_some(sender);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let driving = drive(Counter::default(), events, shell, Clock::starting_at(5000));
        let outcome =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), driving).await.unwrap() });
        drop(sender);
        outcome.map(|counter| counter.0)
    }

    #[test]
    fn what_waits_is_journalled_together_before_any_of_it_is_handled() {
        let mut shell = Notes::default();
        assert_eq!(run(&mut shell, vec![Event::Add(1), Event::Add(2)], false), Ok(3));
        assert_eq!(
            *shell.lines.borrow(),
            ["journal add 1", "journal add 2", "commit", "say 1", "say 3", "settled at 3"]
        );
        assert!(shell.times_ms.iter().all(|&time_ms| time_ms >= 5000));
    }

    #[test]
    fn what_cannot_be_journalled_is_not_handled() {
        let mut shell = Notes { disk_full: true, ..Notes::default() };
        assert_eq!(run(&mut shell, vec![Event::Add(1)], true), Err("the disk is full"));
        assert_eq!(*shell.lines.borrow(), ["journal add 1", "commit"]);
    }

    #[test]
    fn the_earliest_wake_up_comes_once_and_not_before_its_time() {
        let mut shell = Notes::default();
        let lines = shell.lines.clone();
        let (sender, events) = mpsc::channel(16);
        for delay_ms in [60_000, 30, 50_000] {
            sender.try_send(Event::WakeAfter(delay_ms)).map_err(drop).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let driving = drive(Counter::default(), events, &mut shell, Clock::starting_at(0));
        let stopping = async {
            while !lines.borrow().iter().any(|line| line == "say 1000") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            sender.send(Event::Stop).await.map_err(drop).unwrap();
        };
        let both = async { tokio::join!(driving, stopping) };
        let (outcome, ()) =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), both).await.unwrap() });
        assert!(outcome.is_ok());
        let woken: Vec<_> = lines.borrow().iter().filter(|line| line.contains("woken")).cloned().collect();
        assert_eq!(woken, ["journal woken"]);
        assert!(shell.times_ms[3] >= shell.times_ms[0] + 30, "{:?}", shell.times_ms);
    }

    #[test]
    fn a_stop_leaves_the_rest_unhandled() {
        let mut shell = Notes::default();
        assert_eq!(run(&mut shell, vec![Event::Add(1), Event::Stop, Event::Add(5)], true), Ok(1));
    }
}
