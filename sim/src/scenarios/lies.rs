//! Who cheats, and what comes of it for whom.

use super::misfortunes::{ORCHESTRATOR_RESTARTED, SEATED_EVENTS, killed, some_event, whole};
use super::{Scenario, complete};
use crate::cores::Recipe;
use crate::report::Report;
use crate::world::faults::{Asked, Perturbation};
use orchestrator_core::Ending;
use spec::Admission;
use wire::Finding;

pub(super) static PERTURB: Scenario = Scenario {
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

pub(super) const PERTURB_EXPECT: fn(&Report) -> Result<(), String> = |report| {
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

pub(super) static PERTURB_RESTARTED: Scenario = Scenario {
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

pub(super) static ASKED: Scenario = Scenario {
    name: "asked",
    about: "one miner changes values and is asked after its conviction what every op gave: it answers, or says nothing, or something else, or dies, or outlives its orchestrator, and whatever it does the others go on alike",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| {
        (PERTURB.twist)(setup, chance);
        let asked = Asked::ALL[chance.within(0..Asked::ALL.len() as u64) as usize];
        setup.nodes.iter_mut().for_each(|node| node.fate.asked = asked);
    },
    expect: |report| {
        if let [convict] = report.narrowed[..]
            && report.cheats != [convict]
        {
            return Err(format!("one tile convicts {}, who does not cheat", convict.short()));
        }
        PERTURB_EXPECT(report)
    },
};

pub(super) static SPARSE: Scenario = Scenario {
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

pub(super) static POISON: Scenario = Scenario {
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

pub(super) static DIVERGING: Scenario = Scenario {
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

pub(super) static WORSE: Scenario = Scenario {
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

pub(super) static LAZY_VALIDATOR: Scenario = Scenario {
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

pub(super) const CHEATS_ALONE_AND_COMPLETE: fn(&Report) -> Result<(), String> = |report| {
    if report.convicted != report.cheats {
        return Err(format!("expected {:?} to be caught, found {:?}", report.cheats, report.convicted));
    }
    complete(report)
};

pub(super) static ACCUSER: Scenario = Scenario {
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

pub(super) static MIXED: Scenario = Scenario {
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

pub(super) static REPLACED: Scenario = Scenario {
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

pub(super) fn whole_or_gone_on(report: &Report) -> Result<(), String> {
    if report.options.miners == 1 { whole(report) } else { goes_on(report) }
}

pub(super) static WITHHOLD: Scenario = Scenario {
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

pub(super) static WRONG_SUM: Scenario = Scenario {
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
        if report.options.miners > 4 && report.convicted.is_empty() && report.escaped == 0 {
            // Of many miners one may own no shard in any merge: the checker of escapes would tell if it had lied.
            return complete(report);
        }
        if report.convicted != report.cheats || report.evidence != report.cheats {
            return Err(format!("convicted are {:?}, with evidence {:?}", report.convicted, report.evidence));
        }
        goes_on(report)
    },
};

pub(super) static COLLUDING_PAIR: Scenario = Scenario {
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

pub(super) static MOMENTS: Scenario = Scenario {
    name: "moments",
    about: "one miner begins epochs with moments of its own making: they are neither what its merge came to nor fresh, and it is banned",
    run: |_| {},
    escapes: 1,
    twist: |setup, chance| setup.some_miner(chance).fate.other_moments = true,
    expect: |report| {
        if report.convicted != report.cheats || report.evidence != report.cheats {
            return Err(format!("convicted are {:?}, with evidence {:?}", report.convicted, report.evidence));
        }
        goes_on(report)
    },
};

pub(super) static RETURNER: Scenario = Scenario {
    name: "returner",
    about: "one miner is killed, started again, and goes on with moments of its own making: nobody else's receipts say what they should be, and it is banned all the same",
    run: |run| run.epoch.count = run.epoch.count.max(4),
    escapes: 1,
    twist: |setup, chance| {
        let killed_after_events = some_event(setup, chance, SEATED_EVENTS);
        let mishap = killed(killed_after_events, Some(chance.within(10_000..900_000)));
        let fate = &mut setup.some_miner(chance).fate;
        fate.returns_with_moments = true;
        fate.mishaps.push_back(mishap);
    },
    // Who lies in no epoch that counts was killed too late to begin another.
    expect: |report| match report.convicted.is_empty() {
        true => complete(report),
        false if report.convicted == report.cheats && report.evidence == report.cheats => goes_on(report),
        false => Err(format!("convicted are {:?}, with evidence {:?}", report.convicted, report.evidence)),
    },
};

pub(super) static CONTRIBUTION: Scenario = Scenario {
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

pub(super) static OUTER_STEP: Scenario = Scenario {
    name: "outer_step",
    about: "one miner takes another outer step than the sums say: its stage comes to different weights, all who merged are replayed at once, it is banned, the others go on",
    run: |_| {},
    // Alone in its stage nobody contradicts it: one merge in as many as there are windows is done again.
    escapes: 0,
    twist: |setup, chance| setup.some_miner(chance).fate.other_weights = true,
    expect: |report| {
        if report.options.miners == 1 {
            return whole_or_last(report);
        }
        if report.convicted != report.cheats || report.evidence != report.cheats {
            return Err(format!("convicted are {:?}, with evidence {:?}", report.convicted, report.evidence));
        }
        goes_on(report)
    },
};

/// Where nobody takes a convict's place the run may end for it.
fn whole_or_last(report: &Report) -> Result<(), String> {
    if report.convicted.is_empty() { complete(report) } else { goes_on(report) }
}

pub(super) static PROBATION: Scenario = Scenario {
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

pub(super) static SLOW_LORIS: Scenario = Scenario {
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
pub(super) fn goes_on(report: &Report) -> Result<(), String> {
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
