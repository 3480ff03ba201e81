//! Who is lost, comes back, comes late or is slow, and what comes of it.

use super::{Scenario, Setup, complete};
use crate::Options;
use crate::report::Report;
use crate::world::chance::Chance;
use crate::world::faults::{ELSEWHERE_US, Mishap, What};
use orchestrator_core::Ending;

pub(super) static MINER_LOST: Scenario = Scenario {
    name: "miner_lost",
    about: "one miner stops without a word: with one miner a stage the run fails and says why, with more it goes on",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        let killed_after_events = some_event(setup, chance, SEATED_EVENTS);
        setup.some_miner(chance).fate.mishaps.push_back(killed(killed_after_events, None));
    },
    expect: |report| match &report.ending {
        Some(Ending::Complete) if report.options.miners > 1 => nothing_began_again(report),
        Some(Ending::Failed { why })
            if report.options.miners == 1 && (why.contains("miner") || why.contains("stage")) =>
        {
            Ok(())
        }
        other => {
            Err(format!("expected a failure that speaks of the miner, or a way round it, found {other:?}"))
        }
    },
};

pub(super) static MINER_RESTARTED: Scenario = Scenario {
    name: "miner_restarted",
    about: "one miner stops without a word and is started again with its key and disk: the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        let killed_after_events = some_event(setup, chance, SEATED_EVENTS);
        let restarted_after_us = chance.within(10_000..9_000_000);
        let mishap = killed(killed_after_events, Some(restarted_after_us));
        setup.some_miner(chance).fate.mishaps.push_back(mishap);
    },
    expect: |report| {
        whole(report)?;
        if report.options.miners > 1 { nothing_began_again(report) } else { Ok(()) }
    },
};

pub(super) static ORCHESTRATOR_RESTARTED: Scenario = Scenario {
    name: "orchestrator_restarted",
    about: "the orchestrator stops without a word and is started again from its journal: the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        let nodes = setup.nodes.len() as u64;
        // It hears what every miner does.
        let killed_after_events = some_event(setup, chance, 1) * nodes as usize / 3;
        let restarted_after_us = chance.within(10_000..9_000_000);
        let mishap = killed(killed_after_events, Some(restarted_after_us));
        setup.nodes[0].fate.mishaps.push_back(mishap);
    },
    expect: whole,
};

pub(super) static CHURN: Scenario = Scenario {
    name: "churn",
    about: "a tenth of the miners is killed in the course of the run, each at some moment, and started again: the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| mishaps(setup, chance, 10, 0),
    expect: complete,
};

pub(super) static TURMOIL: Scenario = Scenario {
    name: "turmoil",
    about: "half of the miners are killed at some moment, the orchestrator is too, all are started again: the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        mishaps(setup, chance, 2, 0);
        let at = some_event(setup, chance, 1) * setup.nodes.len() / 3;
        let restarted_after_us = chance.within(10_000..3_000_000);
        setup.nodes[0].fate.mishaps.push_back(killed(at, Some(restarted_after_us)));
    },
    expect: complete,
};

pub(super) static FULL_DISKS: Scenario = Scenario {
    name: "full_disks",
    about: "no miner has room to keep the state in which an epoch begins, and half of them are killed at some moment: they begin afresh, nobody is blamed, the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        let miners = setup.miners();
        setup.nodes[1..=miners].iter_mut().for_each(|node| node.fate.disk_is_full = true);
        mishaps(setup, chance, 2, 3);
    },
    expect: complete,
};

pub(super) static TAKEN_BACK: Scenario = Scenario {
    name: "taken_back",
    about: "the owner takes everybody back to what is stable, twice, some disks are full, some miners are killed: whoever has its state goes on from there, the others begin afresh, the run completes",
    run: |run| run.epoch.count = run.epoch.count.max(4),
    escapes: 1,
    twist: |setup, chance| {
        let miners = setup.miners();
        for node in 1..=miners {
            setup.nodes[node].fate.disk_is_full = chance.within(0..3) == 0;
        }
        mishaps(setup, chance, 4, 0);
        let nodes = setup.nodes.len();
        let mut times = [0; 2].map(|_| some_event(setup, chance, SEATED_EVENTS) * nodes / 3);
        times.sort_unstable();
        let back = |after_events| Mishap { after_events, what: What::TakenBack };
        setup.nodes[0].fate.mishaps.extend(times.map(back));
    },
    expect: complete,
};

pub(super) static FLAKY: Scenario = Scenario {
    name: "flaky",
    about: "connections of half of the miners break, for a moment or for seconds, some miners are killed: the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| mishaps(setup, chance, 6, 2),
    expect: complete,
};

pub(super) static DIRECT: Scenario = Scenario {
    name: "direct",
    about: "miners send to each other past the relay, and these routes break again and again with all that is under way: nothing is lost",
    run: |_| {},
    escapes: 1,
    twist: |setup, _| setup.route_directly(ROUTES_BREAK_ONE_IN),
    expect: |report| {
        complete(report)?;
        whole(report)?;
        match (report.direct_frames, report.rewinds, report.reissues.len()) {
            (0, ..) if report.options.stages > 1 => Err("nothing went past the relay".into()),
            (_, 0, 0) => Ok(()),
            (_, rewinds, reissues) => Err(format!(
                "routes cost no work, but {rewinds} epochs began again and {reissues} miners' work went to others"
            )),
        }
    },
};

pub(super) static DIRECT_FLAKY: Scenario = Scenario {
    name: "direct_flaky",
    about: "the same, while connections to the orchestrator break and miners are killed: the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        setup.route_directly(ROUTES_BREAK_ONE_IN);
        mishaps(setup, chance, 6, 2);
    },
    expect: complete,
};

/// So often a frame breaks the direct route that it is sent over.
const ROUTES_BREAK_ONE_IN: u64 = 10;

pub(super) static SLOW: Scenario = Scenario {
    name: "slow",
    about: "one miner is hundreds of times slower than the others: its lane merges with the steps that it took, and nobody waits longer",
    run: |run| run.epoch.steps = run.epoch.steps.max(8),
    escapes: 1,
    twist: |setup, chance| setup.some_miner(chance).fate.slower = 400,
    expect: |report| {
        complete(report)?;
        let ended = report.notes.iter().filter(|note| note.contains("is far behind the others")).count();
        let expected = if report.options.miners > 1 { report.options.epochs as usize } else { 0 };
        if ended != expected || report.rewinds > 0 {
            return Err(format!(
                "the slow lane was ended {ended} times in {expected} epochs, {} began again: {:?}",
                report.rewinds, report.notes
            ));
        }
        Ok(())
    },
};

pub(super) static SLOW_UPLINK: Scenario = Scenario {
    name: "slow_uplink",
    about: "one miner takes seconds to put an object into the store, and everything is drawn: it reveals one window after another, later than one alone may take, and nobody is blamed",
    // As many windows as there are.
    run: |run| run.audit.windows = run.epoch.steps.div_ceil(run.epoch.digest_every),
    escapes: 1,
    twist: |setup, chance| {
        // The longest window, as a share of the 60 s that it may take: new weights and disclosed pieces of merges share the uplink.
        let inputs = 2 * u64::from(setup.run.inner.members) * u64::from(setup.run.epoch.digest_every);
        let upload_us = chance.within(22_000_000..34_000_000) / (inputs + 1);
        setup.some_miner(chance).fate.upload_us = upload_us;
    },
    expect: complete,
};

pub(super) static NARROW_UPLINK: Scenario = Scenario {
    name: "narrow_uplink",
    about: "one miner takes longer for a window than the 60 s that are given whatever it holds, and everything is drawn: its bytes have a time of their own, and nobody is blamed",
    run: SLOW_UPLINK.run,
    escapes: 1,
    twist: |setup, chance| {
        let inputs = 2 * u64::from(setup.run.inner.members) * u64::from(setup.run.epoch.digest_every);
        setup.some_miner(chance).fate.upload_us = chance.within(75_000_000..100_000_000) / (inputs + 1);
        // Of a state's bytes alone: as long again.
        let parameters =
            (0..setup.run.model.stage_count()).map(|stage| setup.run.model.stage_parameters(stage));
        setup.wait_for_uplinks_of(20 * parameters.min().unwrap_or_default() / 60);
    },
    expect: complete,
};

pub(super) static GROWING: Scenario = Scenario {
    name: "growing",
    about: "work begins with one miner a stage, the others come one by one: each takes a free seat and works from the next epoch on",
    run: |run| run.epoch.count = run.epoch.count.max(4),
    escapes: 1,
    twist: |setup, chance| {
        setup.start_with_one_lane();
        let stages = setup.run.model.stage_count();
        let miners = stages * usize::from(setup.run.miners_per_stage);
        for node in stages + 1..=miners {
            setup.nodes[node].fate.comes_after_us = Some(chance.within(300_000..1_500_000));
        }
    },
    expect: |report| {
        complete(report)?;
        let Options { miners, steps, members, epochs, .. } = report.options;
        let alone = epochs.max(4) as usize * steps as usize * usize::from(members);
        match report.losses.len() {
            found if (found > alone) == (miners > 1) => Ok(()),
            found => Err(format!("{found} microbatches were worked on, one lane alone does {alone}")),
        }
    },
};

pub(super) static DESERTED: Scenario = Scenario {
    name: "deserted",
    about: "half of the miners stop for good, each at some moment: a stage that has nobody left gets a miner of another",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        let mut left: Vec<usize> =
            (1..=setup.run.model.stage_count() * usize::from(setup.run.miners_per_stage)).collect();
        for _ in 0..left.len() / 2 {
            let node = left.swap_remove(chance.within(0..left.len() as u64) as usize);
            let at = some_event(setup, chance, SEATED_EVENTS);
            setup.nodes[node].fate.mishaps.push_back(killed(at, None));
        }
    },
    expect: |report| match report.options.miners {
        1 => (MINER_LOST.expect)(report),
        _ => complete(report),
    },
};

/// One miner in `killed_one_in` is killed and started again, the connection of one in `cut_one_in` breaks (0 for none).
pub(super) fn mishaps(setup: &mut Setup, chance: &mut Chance, killed_one_in: u64, cut_one_in: u64) {
    let miners = setup.miners();
    for node in 1..=miners {
        let mut mishaps = Vec::new();
        if chance.within(0..killed_one_in) == 0 {
            let restarted_after_us = chance.within(10_000..9_000_000);
            mishaps.push(killed(some_event(setup, chance, SEATED_EVENTS), Some(restarted_after_us)));
        }
        if cut_one_in > 0 && chance.within(0..cut_one_in) == 0 {
            // Most breaks are over before anybody else takes the work.
            let longest_us = [100_000, 300_000, 3_000_000][chance.within(0..3) as usize];
            let what = What::Cut { for_us: chance.within(1..longest_us) };
            mishaps.push(Mishap { after_events: some_event(setup, chance, SEATED_EVENTS), what });
        }
        mishaps.sort_by_key(|mishap| mishap.after_events);
        setup.nodes[node].fate.mishaps.extend(mishaps);
    }
}

pub(super) fn killed(after_events: usize, restarted_after_us: Option<u64>) -> Mishap {
    Mishap { after_events, what: What::Killed { restarted_after_us } }
}

/// One miner was lost at most, and its stage had others: its work was soon elsewhere, and no other is lost.
pub(super) fn nothing_began_again(report: &Report) -> Result<(), String> {
    if report.rewinds > 0 {
        return Err(format!(
            "an epoch began again {} times, though one miner alone was lost",
            report.rewinds
        ));
    }
    match report
        .reissues
        .iter()
        .find(|reissue| reissue.after_us.is_none_or(|after_us| after_us > ELSEWHERE_US))
    {
        Some(late) => Err(format!("expected the work elsewhere in {ELSEWHERE_US} us, found {late:?}")),
        None => Ok(()),
    }
}

/// Events of a miner until it has its seat and its weights.
pub(super) const SEATED_EVENTS: u64 = 7;

/// From `first` to well into the work: a microbatch is at least three events of a miner.
pub(super) fn some_event(setup: &Setup, chance: &mut Chance, first: u64) -> usize {
    let run = &setup.run;
    let microbatches = u64::from(run.inner.members) * run.total_steps();
    chance.within(first..first + 3 * microbatches) as usize
}

/// The run is complete, and as many microbatches count as without any misfortune.
pub(super) fn whole(report: &Report) -> Result<(), String> {
    if report.ending != Some(Ending::Complete) {
        return Err(format!("expected a complete run, found {:?}", report.ending));
    }
    let options = &report.options;
    let microbatches = u64::from(options.miners)
        * u64::from(options.members)
        * u64::from(options.steps)
        * u64::from(options.epochs);
    // While one of several miners is away at the opening of an epoch, its lane does nothing.
    let all_work = [ORCHESTRATOR_RESTARTED.name, DIRECT.name];
    let alone = options.miners == 1 || all_work.contains(&report.scenario);
    match report.losses.len() as u64 {
        losses if alone && losses != microbatches => {
            Err(format!("expected {microbatches} microbatches that count, found {losses}"))
        }
        _ => Ok(()),
    }
}

pub(super) static BAD_TOKEN: Scenario = Scenario {
    name: "bad_token",
    about: "a stranger comes with a wrong token: it is turned away with a reason, the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| setup.add_stranger(chance.bytes()),
    expect: |report| {
        complete(report)?;
        let stranger = report.exits.iter().find(|(name, _)| name == Setup::STRANGER);
        match stranger {
            Some((_, Err(why))) if why.contains("token") => Ok(()),
            other => Err(format!("expected the stranger to be told of its token, found {other:?}")),
        }
    },
};
