//! What is written is read back, a standing is gone on from, and what is damaged is noticed or done without.

use super::*;
use orchestrator_core::{Config, Orchestrator, Timeouts};
use spec::{NodeId, Run};
use wire::{Hello, Key, Machine, Manifest, ObjectRef, Role, Signed, StageRecord};

/// A run on its way, as the shell leads it.
struct Led {
    _place: tempfile::TempDir,
    path: PathBuf,
    journal: Option<Journal>,
    core: Orchestrator,
    view: View,
    now_ms: u64,
}

fn config() -> Config {
    let run = Run::from_toml(include_str!("../../plan/src/tests/run.toml")).unwrap();
    let key = Key::from_seed([1; 32]);
    let record = |stage| {
        let weights = ObjectRef { digest: Digest([stage; 32]), bytes: 1 };
        StageRecord { weights, momentum: None, miners: vec![] }
    };
    let stages = (0..run.model.stage_count() as u8).map(record).collect();
    let manifest = Manifest { run: run.id(), epoch: 0, previous: Digest::default(), stages, loss_q32: None };
    Config {
        manifest: Signed::new(manifest, &key),
        run,
        key,
        token: b"token".to_vec(),
        secret: [2; 32],
        validators: 1,
        lanes_at_start: 0,
        mixes_routes: false,
        direct: false,
        timeouts: Timeouts::default(),
    }
}

/// Somebody comes: an event that a core remembers.
fn arrival(who: u8) -> Event {
    let (role, token, software) = (Role::Miner, b"token".to_vec(), "iota test".into());
    Event::Arrived {
        from: NodeId([who; 32]),
        hello: Hello { role, token, software, resumes: false },
        unix_s: 0,
    }
}

impl Led {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("journal.redb");
        let (journal, history) = Journal::open(&path).unwrap();
        assert!(history.is_empty());
        let core = Orchestrator::new(config()).unwrap();
        let view = View::new(&config().run);
        let mut led = Self { _place: place, path, journal: Some(journal), core, view, now_ms: 0 };
        led.give(Event::Started);
        led
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().unwrap()
    }

    fn give(&mut self, event: Event) {
        self.now_ms += 10;
        let now_ms = self.now_ms;
        self.journal().append(now_ms, &event).unwrap();
        self.journal().commit().unwrap();
        for effect in self.core.handle(now_ms, event) {
            if let orchestrator_core::Effect::Report(report) = effect {
                self.view.take(&crate::Notice::Report { ms: now_ms, report });
            }
        }
    }

    fn keep(&mut self) {
        let (now_ms, core, view) = (self.now_ms, self.core.snapshot(), self.view.clone());
        self.journal().keep(now_ms, core, view).unwrap();
    }

    /// Events with a standing after every one of these.
    fn live(&mut self, events: u8, standings: &[u8]) {
        for who in 1..=events {
            self.give(arrival(who));
            if standings.contains(&who) {
                self.keep();
            }
        }
        self.give(Event::Woke);
    }

    /// The process ends, and something happens to the standings on the disk.
    fn edit(&mut self, edit: impl FnOnce(&mut redb::Table<u64, &'static [u8]>)) {
        self.journal = None;
        let database = Database::create(&self.path).unwrap();
        let transaction = database.begin_write().unwrap();
        edit(&mut transaction.open_table(STANDINGS).unwrap());
        transaction.commit().unwrap();
    }

    /// Opens it again, and holds what comes of it against the run as it was: where it is gone on from, and what is said.
    fn open_again(&mut self) -> (u64, Vec<String>) {
        self.journal = None;
        let chain = Journal::entries(&self.path).unwrap().1.last().unwrap().chain;
        let (journal, history) = Journal::open(&self.path).unwrap();
        assert_eq!((history.events(), journal.chain), (journal.next, chain));
        let History { standing, entries, passed_over } = history;
        let from = standing.as_ref().map_or(0, |standing| standing.sequence);
        let (mut core, mut view) = match standing {
            Some(standing) => (Orchestrator::restore(config(), standing.core).unwrap(), standing.view),
            None => (Orchestrator::new(config()).unwrap(), View::new(&config().run)),
        };
        for entry in entries {
            for effect in core.handle(entry.now_ms, entry.event) {
                if let orchestrator_core::Effect::Report(report) = effect {
                    view.take(&crate::Notice::Report { ms: entry.now_ms, report });
                }
            }
        }
        assert_eq!(core.digest(), self.core.digest());
        assert_eq!(view, self.view);
        self.journal = Some(journal);
        (from, passed_over)
    }
}

#[test]
fn what_was_committed_is_read_back_and_the_rest_is_not() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("journal.redb");
    let (mut journal, history) = Journal::open(&path).unwrap();
    assert!(history.is_empty());
    journal.append(3, &Event::Started).unwrap();
    journal.append(4, &Event::Woke).unwrap();
    journal.commit().unwrap();
    journal.append(5, &Event::Stop).unwrap();
    assert!(Journal::open(&path).is_err(), "a second orchestrator must not open the same journal");
    drop(journal);
    let (mut journal, history) = Journal::open(&path).unwrap();
    let seen: Vec<_> = history.entries.iter().map(|e| (e.now_ms, e.event.clone())).collect();
    assert_eq!(seen, [(3, Event::Started), (4, Event::Woke)]);
    journal.append(6, &Event::Stop).unwrap();
    journal.commit().unwrap();
    drop(journal);
    assert_eq!(Journal::open(&path).unwrap().1.events(), 3);
}

#[test]
fn an_edited_entry_is_noticed() {
    let mut led = Led::new();
    led.give(Event::Woke);
    let forged = Entry { now_ms: 3, chain: Digest::default(), event: Event::Stop };
    led.journal().pending.push((0, postcard::to_stdvec(&forged).unwrap()));
    led.journal().commit().unwrap();
    led.journal = None;
    let said = Journal::open(&led.path).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(said.contains("entry 0 is damaged (its chain does not hold)"), "{said}");
}

#[test]
fn a_run_goes_on_from_where_it_stood_last() {
    let mut led = Led::new();
    led.live(9, &[3, 5, 8]);
    assert_eq!(led.open_again(), (9, vec![]));
    // What is kept and not committed yet is not there.
    led.keep();
    assert_eq!(led.open_again(), (9, vec![]));
    led.keep();
    led.give(arrival(20));
    assert_eq!(led.open_again(), (11, vec![]));
    let said = led.open_again().1;
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn the_last_two_standings_are_kept_in_the_form_that_is_drawn() {
    let mut led = Led::new();
    led.live(9, &[3, 5, 8]);
    let mut kept = vec![];
    led.edit(|table| {
        for row in table.iter().unwrap() {
            let (sequence, bytes) = row.unwrap();
            kept.push((sequence.value(), bytes.value().to_vec()));
        }
    });
    assert_eq!(kept.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [6, 9]);
    let (sequence, bytes) = &kept[1];
    assert_eq!(bytes[..32], Digest::of(&bytes[32..]).0);
    let [core, view] = [Snapshot::FORMAT, View::FORMAT].map(u32::to_le_bytes);
    assert_eq!((&bytes[32..36], &bytes[36..40]), (&core[..], &view[..]));
    let standing: Standing = postcard::from_bytes(&bytes[40..]).unwrap();
    assert_eq!((standing.sequence, standing.now_ms), (*sequence, 90));
}

#[test]
fn a_standing_that_cannot_be_used_is_passed_over_and_that_is_said() {
    type Harm = fn(&mut Vec<u8>);
    let sealed = |bytes: &mut Vec<u8>| {
        let seal = Digest::of(&bytes[32..]).0;
        bytes[..32].copy_from_slice(&seal);
    };
    let cases: [(Harm, bool, &str); 5] = [
        (|bytes| bytes[100] ^= 1, false, "it is damaged: its BLAKE3 is another"),
        (|bytes| bytes.truncate(20), false, "it is damaged: it ends early"),
        (|bytes| bytes[32] += 1, true, "another version wrote it, in another form"),
        (|bytes| bytes.truncate(60), true, "it cannot be decoded"),
        (|bytes| bytes[41] ^= 1, true, "it does not stand after the events before it"),
    ];
    for (harm, seals, why) in cases {
        let mut led = Led::new();
        led.live(9, &[5, 8]);
        let spoil = |led: &mut Led, sequence: u64| {
            led.edit(|table| {
                let mut bytes = table.get(sequence).unwrap().unwrap().value().to_vec();
                harm(&mut bytes);
                if seals {
                    sealed(&mut bytes);
                }
                table.insert(sequence, bytes.as_slice()).unwrap();
            });
        };
        spoil(&mut led, 9);
        let said = |sequence: u64| format!("the snapshot after {sequence} events: {why}");
        assert_eq!(led.open_again(), (6, vec![said(9)]));
        spoil(&mut led, 6);
        assert_eq!(led.open_again(), (0, vec![said(9), said(6)]), "the whole journal is there");
        // It goes on, and the next one is good.
        led.give(arrival(20));
        led.keep();
        led.give(Event::Woke);
        assert_eq!(led.open_again(), (12, vec![]));
    }
}

#[test]
fn a_standing_of_another_journal_is_no_standing_of_this_one() {
    let (mut led, mut other) = (Led::new(), Led::new());
    led.live(9, &[8]);
    other.give(arrival(100));
    other.live(9, &[7]);
    let mut foreign = vec![];
    other.edit(|table| foreign = table.get(9).unwrap().unwrap().value().to_vec());
    led.edit(|table| drop(table.insert(9, foreign.as_slice()).unwrap()));
    let said = "the snapshot after 9 events: it does not stand after the events before it";
    assert_eq!(led.open_again(), (0, vec![said.to_owned()]));
}

#[test]
fn what_nobody_goes_on_from_is_removed_and_the_journal_goes_on_all_the_same() {
    let mut led = Led::new();
    led.journal().kept = 4;
    led.live(20, &[3, 6, 9, 12, 18]);
    // The first that is there holds the chain that the older standing goes on from.
    led.journal = None;
    let (first, entries) = Journal::entries(&led.path).unwrap();
    assert_eq!((first, first + entries.len() as u64), (12, 22));
    assert_eq!(led.open_again(), (19, vec![]));
    led.edit(|table| drop(table.remove(19).unwrap()));
    assert_eq!(led.open_again(), (13, vec![]));
    led.edit(|table| drop(table.insert(13, &b"nothing"[..]).unwrap()));
    let said = Journal::open(&led.path).err().unwrap().to_string();
    let expected = "it begins with entry 12, and what stands for those before cannot be used (the snapshot after 13 events: it is damaged: it ends early): start the version that wrote it, or restore the file from a copy";
    assert!(said.ends_with(expected), "{said}");
}

#[test]
fn a_gap_after_a_standing_is_noticed() {
    let mut led = Led::new();
    led.live(9, &[5]);
    led.journal = None;
    let database = Database::create(&led.path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(ENTRIES).unwrap().remove(6).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let said = Journal::open(&led.path).err().unwrap().to_string();
    assert!(said.contains("entry 7 is damaged (an entry before it is missing)"), "{said}");
}

/// What `docs/decisions/001` says of the time: printed, for machines differ.
#[test]
fn a_run_of_many_epochs_is_resumed_from_its_last_ones() {
    let options = sim::Options { stages: 3, miners: 1, epochs: 60, steps: 6, members: 4, log: false };
    let (config, events) = sim::journal("honest", 1, &options).unwrap();
    let place = tempfile::tempdir().unwrap();
    let paths = ["without", "with"].map(|name| place.path().join(name));
    let mut whole = Orchestrator::new(config.clone()).unwrap();
    let mut journals = paths.each_ref().map(|path| Journal::open(path).unwrap().0);
    let mut epochs = 0;
    for (now_ms, event) in &events {
        journals.iter_mut().for_each(|journal| journal.append(*now_ms, event).unwrap());
        let effects = whole.handle(*now_ms, event.clone());
        let committed = |effect: &orchestrator_core::Effect| {
            matches!(effect, orchestrator_core::Effect::Report(orchestrator_core::Report::Committed { .. }))
        };
        if effects.iter().any(committed) {
            epochs += 1;
            journals[1].keep(*now_ms, whole.snapshot(), View::new(&config.run)).unwrap();
            journals.iter_mut().for_each(|journal| journal.commit().unwrap());
        }
    }
    journals.iter_mut().for_each(|journal| journal.commit().unwrap());
    drop(journals);
    assert_eq!(epochs, options.epochs);
    let mut replayed = [0, 1];
    for (path, replayed) in paths.iter().zip(&mut replayed) {
        let began = std::time::Instant::now();
        let (_, history) = Journal::open(path).unwrap();
        let opened = began.elapsed();
        let mut core = match history.standing {
            Some(standing) => Orchestrator::restore(config.clone(), standing.core).unwrap(),
            None => Orchestrator::new(config.clone()).unwrap(),
        };
        *replayed = history.entries.len();
        history.entries.into_iter().for_each(|entry| drop(core.handle(entry.now_ms, entry.event)));
        assert_eq!(core.digest(), whole.digest());
        println!(
            "{} of {} events of {epochs} epochs replayed: opened in {opened:?}, resumed in {:?}; the file has {} bytes",
            *replayed,
            events.len(),
            began.elapsed(),
            std::fs::metadata(path).unwrap().len()
        );
    }
    assert_eq!(replayed[0], events.len());
    assert!(replayed[1] < 2 * events.len() / epochs as usize, "{replayed:?}");
}
