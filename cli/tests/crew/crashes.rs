//! kill -9, role by role, at moments that differ from run to run.

use crate::harness::{Crew, new_run, stepped};
use crate::replicas::{in_one_process, make_keys};
use orchestrator::{Notice, Report};
use std::path::PathBuf;

const STEPS: u64 = 8;
const EPOCHS: u64 = 2;
/// How often the orchestrator is killed in one run.
const KILLS: u64 = 5;
/// Sequences, context and members of the default run.
const TOKENS_A_STEP: u64 = 4 * 128 * 4;

/// A step to act at, drawn from the clock: which one is told where a trial fails.
fn some_step() -> (u32, u32) {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let drawn = clock.subsec_micros();
    let at = (drawn % EPOCHS as u32, drawn / 7 % (STEPS as u32 - 4));
    println!("acts after step {} of epoch {}", at.1, at.0);
    at
}

fn crew(miners_per_stage: usize) -> (tempfile::TempDir, Crew) {
    crew_for(miners_per_stage, EPOCHS)
}

fn crew_for(miners_per_stage: usize, epochs: u64) -> (tempfile::TempDir, Crew) {
    let place = tempfile::tempdir().unwrap();
    let folder: PathBuf = place.path().join("run");
    let (steps, epochs, miners) = (STEPS.to_string(), epochs.to_string(), miners_per_stage.to_string());
    new_run(&folder, &["--steps", &steps, "--epochs", &epochs, "--miners-per-stage", &miners]);
    make_keys(&folder, 3 * miners_per_stage);
    let mut crew = Crew::lead(&folder);
    crew.man(3 * miners_per_stage);
    (place, crew)
}

#[test]
fn a_killed_orchestrator_goes_on_where_it_was_and_nothing_is_lost() {
    let kills = std::env::var("IOTA_SOAK_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let steps_between = EPOCHS * STEPS / KILLS;
    let epochs = (kills * steps_between + 1).div_ceil(STEPS);
    let (_place, mut crew) = crew_for(1, epochs);
    let mut resumed_ms = Vec::new();
    for round in 0..kills {
        // A moment in each part of the run.
        let step = round * steps_between + u64::from(some_step().1) % steps_between;
        crew.wait_for(|notices| stepped(notices, (step / STEPS) as u32, (step % STEPS) as u32));
        let steps = |notices: &[Notice]| {
            let stepped = |notice: &&Notice| {
                matches!(
                    notice,
                    Notice::Report { report: Report::Stepped { .. } | Report::Committed { .. }, .. }
                )
            };
            notices.iter().filter(stepped).count()
        };
        let before = steps(&crew.notices);
        let killed = std::time::Instant::now();
        crew.kill("orchestrator");
        crew.lead_again();
        crew.wait_for(|notices| steps(notices) > before);
        resumed_ms.push(killed.elapsed().as_millis());
    }
    println!("killed {kills} times; from each kill to the next step or commit: {resumed_ms:?} ms");
    // What it said just before it was killed may not have been heard; the last manifest was.
    let (found, expected) = (crew.wait_for_the_end(), in_one_process(&crew.folder));
    assert_eq!(found.last(), expected.last(), "every microbatch counts, once");
    let rewound = |report: &&Report| matches!(report, Report::Rewound { .. });
    assert_eq!(crew.reports().find(rewound), None, "no work was lost");
    for notice in &crew.notices {
        if let Notice::Resumed { entries, replayed, took_ms } = notice {
            println!("resumed after {entries} events, {replayed} of them replayed, in {took_ms} ms");
        }
    }
}

#[test]
fn a_killed_miner_that_is_started_again_costs_the_epoch_so_far_and_no_more() {
    let (_place, mut crew) = crew(1);
    let (epoch, step) = some_step();
    crew.wait_for(|notices| stepped(notices, epoch, step));
    crew.kill("miner-1");
    crew.start_node("miner", "miner-1");
    assert_eq!(crew.wait_for_the_end(), in_one_process(&crew.folder));
    assert_eq!(crew.tokens(), EPOCHS * STEPS * TOKENS_A_STEP);
    let lost: Vec<_> = crew.reports().filter(|report| matches!(report, Report::Rewound { .. })).collect();
    assert_eq!(lost.len(), 1, "what was lost is said: {lost:?}");
}

#[test]
fn a_killed_validator_that_is_started_again_judges_the_rest() {
    let (_place, mut crew) = crew(1);
    let (epoch, step) = some_step();
    crew.wait_for(|notices| stepped(notices, epoch, step));
    crew.kill("validator");
    crew.start_node("validator", "validator");
    assert_eq!(crew.wait_for_the_end(), in_one_process(&crew.folder));
    // Merges, which are drawn too, are numbered after the last inner step.
    let of_steps =
        |report: &&Report| matches!(report, Report::Audited { window, .. } if u64::from(window.step) < STEPS);
    let audited = crew.reports().filter(of_steps).count();
    assert_eq!(audited as u64, 3 * EPOCHS, "one window a miner and epoch");
}

#[test]
fn whoever_is_killed_while_the_stages_merge_costs_nothing_but_time() {
    let (_place, mut crew) = crew(2);
    let last = STEPS as u32 - 1;
    crew.wait_for(|notices| stepped(notices, 0, last));
    // Half of them: the second of every stage.
    for victim in ["miner-3", "miner-4", "miner-5"] {
        crew.kill(victim);
    }
    crew.wait_for(|notices| stepped(notices, 1, last));
    crew.kill("orchestrator");
    crew.lead_again();
    assert_eq!(crew.wait_for_the_end().len() as u64, EPOCHS);
    let rewound = |report: &&Report| matches!(report, Report::Rewound { .. });
    assert_eq!(crew.reports().find(rewound), None, "what was done before the merge counts");
    // Two lanes, then at least the one that is left.
    assert!(crew.tokens() >= 3 * STEPS * TOKENS_A_STEP);
}

#[test]
fn an_orchestrator_killed_as_it_commits_goes_on_from_there() {
    let (_place, mut crew) = crew(1);
    crew.wait_for(|notices| stepped(notices, 0, STEPS as u32 - 1));
    crew.kill("orchestrator");
    crew.lead_again();
    let committed =
        |notice: &Notice| matches!(notice, Notice::Report { report: Report::Committed { .. }, .. });
    crew.wait_for(|notices| notices.iter().any(committed) || stepped(notices, 1, 0));
    crew.kill("orchestrator");
    crew.lead_again();
    let (found, expected) = (crew.wait_for_the_end(), in_one_process(&crew.folder));
    assert_eq!(found.last(), expected.last());
}
