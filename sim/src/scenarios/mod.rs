//! What is simulated: a swarm, what befalls it, and how that must end.

mod setup;

pub use setup::{NodeSetup, Setup, small_run};

use crate::report::Report;
use crate::world::chance::Chance;
use crate::world::faults::{ELSEWHERE_US, Mishap, Perturbation, What};
use orchestrator_core::Ending;
use wire::Finding;

/// A scenario.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What happens, for people.
    pub about: &'static str,
    /// Turns the honest swarm into this one.
    pub twist: fn(&mut Setup, &mut Chance),
    /// How it must have ended; else what is wrong, in one sentence.
    pub expect: fn(&Report) -> Result<(), String>,
}

impl Scenario {
    /// All of them.
    pub const ALL: [&'static Self; 9] = [
        &HONEST,
        &PERTURB,
        &MINER_LOST,
        &MINER_RESTARTED,
        &ORCHESTRATOR_RESTARTED,
        &BAD_TOKEN,
        &CHURN,
        &TURMOIL,
        &FLAKY,
    ];

    /// The scenario with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name == name)
    }
}

static HONEST: Scenario = Scenario {
    name: "honest",
    about: "nothing goes wrong: the run completes and every audit finds equal digests",
    twist: |_, _| {},
    expect: complete,
};

static PERTURB: Scenario = Scenario {
    name: "perturb",
    about: "one miner changes one value in each inner step: a replay finds it, and evidence is kept",
    twist: |setup, chance| {
        let perturbation = Perturbation::drawn(chance, setup.run.inner.members);
        setup.some_miner(chance).fate.perturbation = Some(perturbation);
    },
    expect: |report| {
        let cheat = report.cheats.first().ok_or("nobody cheats in this world")?;
        let unequal = |finding: &Finding| matches!(finding, Finding::Unequal { .. });
        if !report.findings.iter().any(|(miner, finding)| miner == cheat && unequal(finding)) {
            return Err(format!(
                "the changed values of {} were not found: {:?}",
                cheat.short(),
                report.findings
            ));
        }
        if !report.convicted.contains(cheat) {
            return Err(format!("no evidence is kept against {}", cheat.short()));
        }
        Ok(())
    },
};

static MINER_LOST: Scenario = Scenario {
    name: "miner_lost",
    about: "one miner stops without a word: with one miner a stage the run fails and says why, with more it goes on",
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

static MINER_RESTARTED: Scenario = Scenario {
    name: "miner_restarted",
    about: "one miner stops without a word and is started again with its key and disk: the run completes",
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

static ORCHESTRATOR_RESTARTED: Scenario = Scenario {
    name: "orchestrator_restarted",
    about: "the orchestrator stops without a word and is started again from its journal: the run completes",
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

static CHURN: Scenario = Scenario {
    name: "churn",
    about: "a tenth of the miners is killed in the course of the run, each at some moment, and started again: the run completes",
    twist: |setup, chance| mishaps(setup, chance, 10, 0),
    expect: complete,
};

static TURMOIL: Scenario = Scenario {
    name: "turmoil",
    about: "half of the miners are killed at some moment, the orchestrator is too, all are started again: the run completes",
    twist: |setup, chance| {
        mishaps(setup, chance, 2, 0);
        let at = some_event(setup, chance, 1) * setup.nodes.len() / 3;
        let restarted_after_us = chance.within(10_000..3_000_000);
        setup.nodes[0].fate.mishaps.push_back(killed(at, Some(restarted_after_us)));
    },
    expect: complete,
};

static FLAKY: Scenario = Scenario {
    name: "flaky",
    about: "connections of half of the miners break, for a moment or for seconds, some miners are killed: the run completes",
    twist: |setup, chance| mishaps(setup, chance, 6, 2),
    expect: complete,
};

/// One miner in `killed_one_in` is killed and started again, the connection of one in `cut_one_in` breaks (0 for none).
fn mishaps(setup: &mut Setup, chance: &mut Chance, killed_one_in: u64, cut_one_in: u64) {
    let miners = setup.run.model.stage_count() * usize::from(setup.run.miners_per_stage);
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

fn killed(after_events: usize, restarted_after_us: Option<u64>) -> Mishap {
    Mishap { after_events, what: What::Killed { restarted_after_us } }
}

/// One miner was lost at most, and its stage had others: its work was soon elsewhere, and no other is lost.
fn nothing_began_again(report: &Report) -> Result<(), String> {
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
const SEATED_EVENTS: u64 = 7;

/// From `first` to well into the work: a microbatch is at least three events of a miner.
fn some_event(setup: &Setup, chance: &mut Chance, first: u64) -> usize {
    let run = &setup.run;
    let microbatches = u64::from(run.inner.members) * run.total_steps();
    chance.within(first..first + 3 * microbatches) as usize
}

/// The run is complete, and as many microbatches count as without any misfortune.
fn whole(report: &Report) -> Result<(), String> {
    if report.ending != Some(Ending::Complete) {
        return Err(format!("expected a complete run, found {:?}", report.ending));
    }
    let options = &report.options;
    let microbatches = u64::from(options.miners)
        * u64::from(options.members)
        * u64::from(options.steps)
        * u64::from(options.epochs);
    // While one of several miners is away at the opening of an epoch, its lane does nothing.
    let alone = options.miners == 1 || report.scenario == ORCHESTRATOR_RESTARTED.name;
    match report.losses.len() as u64 {
        losses if alone && losses != microbatches => {
            Err(format!("expected {microbatches} microbatches that count, found {losses}"))
        }
        _ => Ok(()),
    }
}

static BAD_TOKEN: Scenario = Scenario {
    name: "bad_token",
    about: "a stranger comes with a wrong token: it is turned away with a reason, the run completes",
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

fn complete(report: &Report) -> Result<(), String> {
    if report.ending != Some(Ending::Complete) {
        return Err(format!("expected a complete run, found {:?}", report.ending));
    }
    if report.findings.is_empty() {
        return Err("the run is complete, but nothing was audited".into());
    }
    match report.findings.iter().find(|(_, finding)| !matches!(finding, Finding::Equal { .. })) {
        Some((miner, finding)) => Err(format!("{}: {finding:?}, though nobody cheats", miner.short())),
        None => Ok(()),
    }
}
