//! What is simulated: a swarm, what befalls it, and how that must end.

mod setup;

pub use setup::{NodeSetup, Setup, small_run};

use crate::Options;
use crate::cores::Recipe;
use crate::report::Report;
use crate::world::chance::Chance;
use crate::world::faults::{ELSEWHERE_US, Mishap, Perturbation, What};
use orchestrator_core::Ending;
use spec::{Admission, Run};
use wire::Finding;

/// A scenario.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What happens, for people.
    pub about: &'static str,
    /// Turns the honest swarm into this one.
    pub twist: fn(&mut Setup, &mut Chance),
    /// Turns the usual run into this one's.
    pub run: fn(&mut Run),
    /// In so many stable epochs no cheat may have lied.
    pub escapes: u32,
    /// How it must have ended; else what is wrong, in one sentence.
    pub expect: fn(&Report) -> Result<(), String>,
}

impl Scenario {
    /// All of them.
    pub const ALL: [&'static Self; 28] = [
        &HONEST,
        &PERTURB,
        &PERTURB_RESTARTED,
        &SPARSE,
        &POISON,
        &DIVERGING,
        &WORSE,
        &LAZY_VALIDATOR,
        &ACCUSER,
        &MIXED,
        &REPLACED,
        &WITHHOLD,
        &WRONG_SUM,
        &COLLUDING_PAIR,
        &MOMENTS,
        &CONTRIBUTION,
        &PROBATION,
        &SLOW_LORIS,
        &MINER_LOST,
        &MINER_RESTARTED,
        &ORCHESTRATOR_RESTARTED,
        &BAD_TOKEN,
        &CHURN,
        &TURMOIL,
        &FLAKY,
        &SLOW,
        &GROWING,
        &DESERTED,
    ];

    /// The scenario with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name == name)
    }
}

static HONEST: Scenario = Scenario {
    name: "honest",
    about: "nothing goes wrong: the run completes and every audit finds equal digests",
    run: |_| {},
    escapes: 1,
    twist: |_, _| {},
    expect: complete,
};

static PERTURB: Scenario = Scenario {
    name: "perturb",
    about: "one miner changes one value in each inner step: a replay finds it, it is banned, and the others begin again where it had not lied",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        let perturbation = Perturbation::drawn(chance, setup.run.inner.members);
        setup.some_miner(chance).fate.perturbation = Some(perturbation);
    },
    expect: PERTURB_EXPECT,
};

const PERTURB_EXPECT: fn(&Report) -> Result<(), String> = |report| {
    let cheat = report.cheats.first().ok_or("nobody cheats in this world")?;
    let unequal = |finding: &Finding| matches!(finding, Finding::Unequal { .. });
    if !report.findings.iter().any(|(miner, finding)| miner == cheat && unequal(finding)) {
        return Err(format!("the changed values of {} were not found: {:?}", cheat.short(), report.findings));
    }
    if !report.evidence.contains(cheat) || !report.convicted.contains(cheat) {
        return Err(format!("no evidence is kept against {}", cheat.short()));
    }
    goes_on(report)
};

static PERTURB_RESTARTED: Scenario = Scenario {
    name: "perturb_restarted",
    about: "one miner changes values, and the orchestrator is killed and started again somewhere on the way",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        (PERTURB.twist)(setup, chance);
        (ORCHESTRATOR_RESTARTED.twist)(setup, chance);
    },
    expect: PERTURB_EXPECT,
};

static SPARSE: Scenario = Scenario {
    name: "sparse",
    about: "one miner changes one value in one inner step of each epoch, which an audit may draw or not",
    run: |_| {},
    // How often it gets away is what `detection` measures.
    escapes: 0,
    twist: |setup, chance| {
        let step = chance.within(0..u64::from(setup.run.epoch.steps)) as u32;
        let perturbation = Perturbation::drawn(chance, setup.run.inner.members).only_in(step);
        setup.some_miner(chance).fate.perturbation = Some(perturbation);
    },
    expect: goes_on,
};

static POISON: Scenario = Scenario {
    name: "poison",
    about: "one miner sends payloads made so that whoever takes them meets infinity: that is found out at once, it is banned, the others go on",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        let step = chance.within(0..u64::from(setup.run.epoch.steps)) as u32;
        let perturbation = Perturbation::drawn(chance, setup.run.inner.members).only_in(step).both_ways();
        let fate = &mut setup.some_miner(chance).fate;
        (fate.perturbation, fate.poisons) = (Some(perturbation), true);
    },
    expect: PERTURB_EXPECT,
};

static DIVERGING: Scenario = Scenario {
    name: "diverging",
    about: "the run learns too fast and everybody meets infinity: nobody is blamed, and the run says so and ends",
    run: |run| run.inner.lr = 10.0,
    escapes: 1,
    twist: |_, _| {},
    expect: |report| match &report.ending {
        Some(Ending::Failed { why })
            if why.contains("lower inner.lr") && report.convicted.is_empty() && report.commits == 0 =>
        {
            Ok(())
        }
        other => Err(format!("expected a run that ends for its rate of learning, found {other:?}")),
    },
};

static WORSE: Scenario = Scenario {
    name: "worse",
    about: "nothing is audited, and losses are higher where one miner is on the route: the record of losses and routes points at it, and at nobody else",
    run: |run| run.audit.windows = 0,
    escapes: 0,
    twist: |setup, chance| setup.some_miner(chance).fate.harms = true,
    expect: |report| {
        let cheat = report.cheats.first().ok_or("nobody harms in this world")?.short();
        let pointed: Vec<&String> =
            report.notes.iter().filter(|note| note.contains("routes through it lose")).collect();
        match pointed.iter().any(|note| note.contains(&cheat)) {
            true if pointed.len() == 1 && report.ending == Some(Ending::Complete) => Ok(()),
            _ => Err(format!("expected {cheat} alone to stand out, found {pointed:?}")),
        }
    },
};

static LAZY_VALIDATOR: Scenario = Scenario {
    name: "lazy_validator",
    about: "the validator says of every window that it is equal: a planted one gives it away, another takes its place and the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        if let Some(validator) = setup.first_validator() {
            validator.fate.lazy = true;
        }
        setup.add_validator(chance.bytes(), 60_000_000);
    },
    expect: CHEATS_ALONE_AND_COMPLETE,
};

const CHEATS_ALONE_AND_COMPLETE: fn(&Report) -> Result<(), String> = |report| {
    if report.convicted != report.cheats {
        return Err(format!("expected {:?} to be caught, found {:?}", report.cheats, report.convicted));
    }
    complete(report)
};

static ACCUSER: Scenario = Scenario {
    name: "accuser",
    about: "the validator says of every window and sum that it is wrong: a second check does not find that, another takes its place and the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        if let Some(validator) = setup.first_validator() {
            validator.fate.accuses = true;
        }
        setup.add_validator(chance.bytes(), 60_000_000);
    },
    expect: CHEATS_ALONE_AND_COMPLETE,
};

static MIXED: Scenario = Scenario {
    name: "mixed",
    about: "of all miners a tenth changes values, a tenth withholds, a tenth signs wrong sums: all that can be seen are banned, nobody else",
    run: |_| {},
    // Wrong sums of two that share a shard are seen where it is added up again.
    escapes: 0,
    twist: |setup, chance| {
        let members = setup.run.inner.members;
        let miners = setup.miners();
        for node in 1..=miners {
            let perturbation = Perturbation::drawn(chance, members);
            let fate = &mut setup.nodes[node].fate;
            match chance.within(0..10) {
                0 => fate.perturbation = Some(perturbation),
                1 => fate.withholds = true,
                2 => fate.wrong_sums = true,
                _ => {}
            }
        }
    },
    expect: |report| match &report.ending {
        Some(Ending::Complete) if report.commits == report.options.epochs => Ok(()),
        other => Err(format!("expected the honest to complete the run, found {other:?}")),
    },
};

static REPLACED: Scenario = Scenario {
    name: "replaced",
    about: "one miner changes values; after it is banned a newcomer takes its seat, so even a stage without others goes on",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        (PERTURB.twist)(setup, chance);
        setup.add_newcomer(chance.bytes(), 60_000_000);
    },
    expect: |report| {
        let cheat = report.cheats.first().ok_or("nobody cheats in this world")?;
        if report.options.miners > 1
            || report.ending == Some(Ending::Complete) && report.convicted == [*cheat]
        {
            return whole_or_gone_on(report);
        }
        Err(format!(
            "expected a newcomer in the convict's seat and a complete run, found {:?}",
            report.ending
        ))
    },
};

fn whole_or_gone_on(report: &Report) -> Result<(), String> {
    if report.options.miners == 1 { whole(report) } else { goes_on(report) }
}

static WITHHOLD: Scenario = Scenario {
    name: "withhold",
    about: "one miner does not reveal what is drawn from it: it is banned without evidence, the others go on",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| setup.some_miner(chance).fate.withholds = true,
    expect: |report| {
        if report.convicted != report.cheats || !report.evidence.is_empty() {
            return Err(format!("convicted are {:?}, with evidence {:?}", report.convicted, report.evidence));
        }
        goes_on(report)
    },
};

static WRONG_SUM: Scenario = Scenario {
    name: "wrong_sum",
    about: "one miner signs wrong sums of merges: a third party adds up, it is banned, the merge goes on with the honest copy",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| setup.some_miner(chance).fate.wrong_sums = true,
    expect: |report| {
        if report.options.miners == 1 {
            // Alone nobody contradicts it, and nobody else adds up.
            return complete(report);
        }
        if report.convicted != report.cheats || report.evidence != report.cheats {
            return Err(format!("convicted are {:?}, with evidence {:?}", report.convicted, report.evidence));
        }
        goes_on(report)
    },
};

static COLLUDING_PAIR: Scenario = Scenario {
    name: "colluding_pair",
    about: "two miners of a stage sign the same wrong sums: caught where a shard that both own is added up again",
    run: |_| {},
    // Where both own every shard, one in as many as there are windows is added up again.
    escapes: 0,
    twist: |setup, chance| {
        let miners = setup.miners() as u64;
        let first = chance.within(1..miners + 1) as usize;
        setup.nodes[first].fate.wrong_sums = true;
        // Who joins when decides who shares a stage; with two stages' worth of liars a pair is among them.
        for node in 1..=miners as usize {
            setup.nodes[node].fate.wrong_sums |= chance.within(0..2) == 0;
        }
    },
    expect: |report| match &report.ending {
        Some(Ending::Complete) => Ok(()),
        Some(Ending::Failed { why }) if why.contains("last miner") => Ok(()),
        other => Err(format!("expected the others to go on, found {other:?}")),
    },
};

static MOMENTS: Scenario = Scenario {
    name: "moments",
    about: "one miner begins epochs with moments of its own making: its own receipts contradict one another, it is banned at once",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| setup.some_miner(chance).fate.other_moments = true,
    expect: |report| {
        if report.convicted != report.cheats || !report.evidence.is_empty() {
            return Err(format!("convicted are {:?}, with evidence {:?}", report.convicted, report.evidence));
        }
        goes_on(report)
    },
};

static CONTRIBUTION: Scenario = Scenario {
    name: "contribution",
    about: "one miner brings other codes to merges than its work came to: found where its merge is drawn, which undoes it",
    run: |_| {},
    // One merge in as many as there are windows is done again.
    escapes: 0,
    twist: |setup, chance| setup.some_miner(chance).fate.other_codes = true,
    expect: |report| match &report.ending {
        Some(Ending::Complete) if report.evidence == report.convicted => Ok(()),
        other => Err(format!("expected the others to go on, found {other:?}")),
    },
};

static PROBATION: Scenario = Scenario {
    name: "probation",
    about: "anyone may come, and half of the miners come without an invitation: they weigh nothing in merges until a window of theirs is found equal, and the run completes",
    run: |run| run.admission = Admission::Open { founders: Vec::new() },
    escapes: 1,
    twist: |setup, chance| {
        let miners = setup.miners();
        for node in 1..=miners {
            let uninvited = chance.within(0..2) == 0;
            if let Recipe::Miner(config) = &mut setup.nodes[node].recipe
                && uninvited
            {
                config.token = Vec::new();
            }
        }
    },
    expect: complete,
};

static SLOW_LORIS: Scenario = Scenario {
    name: "slow_loris",
    about: "one miner takes a minute over each operation: its work goes to another of its stage, later it gets none, nobody is blamed",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| setup.some_miner(chance).fate.lingers = true,
    expect: |report| {
        complete(report)?;
        // Two epochs in which it is found out, at most twice the bound each, and as long again for what it was drawn for.
        match (report.reissues.len(), report.virtual_us / 1_000_000) {
            (1..=2, 0..=240) if report.rewinds == 0 => Ok(()),
            found => Err(format!("expected one or two reissues within 240 s, found {found:?}")),
        }
    },
};

/// After a conviction the run completes where the convict's stage has others; else nobody takes its seat here.
fn goes_on(report: &Report) -> Result<(), String> {
    match &report.ending {
        Some(Ending::Complete) if report.options.miners > 1 => {
            let epochs = report.options.epochs;
            (report.commits == epochs)
                .then_some(())
                .ok_or_else(|| format!("{} of {epochs} epochs count in the end", report.commits))
        }
        Some(Ending::Failed { why }) if report.options.miners == 1 && why.contains("last miner") => Ok(()),
        other => Err(format!("expected the others to go on without the convict, found {other:?}")),
    }
}

static MINER_LOST: Scenario = Scenario {
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

static MINER_RESTARTED: Scenario = Scenario {
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

static ORCHESTRATOR_RESTARTED: Scenario = Scenario {
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

static CHURN: Scenario = Scenario {
    name: "churn",
    about: "a tenth of the miners is killed in the course of the run, each at some moment, and started again: the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| mishaps(setup, chance, 10, 0),
    expect: complete,
};

static TURMOIL: Scenario = Scenario {
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

static FLAKY: Scenario = Scenario {
    name: "flaky",
    about: "connections of half of the miners break, for a moment or for seconds, some miners are killed: the run completes",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| mishaps(setup, chance, 6, 2),
    expect: complete,
};

static SLOW: Scenario = Scenario {
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

static GROWING: Scenario = Scenario {
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

static DESERTED: Scenario = Scenario {
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
fn mishaps(setup: &mut Setup, chance: &mut Chance, killed_one_in: u64, cut_one_in: u64) {
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
