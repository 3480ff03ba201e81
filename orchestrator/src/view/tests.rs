//! What a view makes of notices.

use super::*;

fn view() -> View {
    let mut view = View { steps_total: 4, ..View::default() };
    (view.facts.steps_per_epoch, view.facts.microbatch_tokens) = (2, 10);
    view
}

fn tell(view: &mut View, ms: u64, report: Report) {
    view.take(&Notice::Report { ms, report });
}

fn epoch(view: &mut View, epoch: u32, began_ms: u64) {
    tell(view, began_ms, Report::Opened { epoch });
    for step in 0..2 {
        let ms = began_ms + 500 * (u64::from(step) + 1);
        for i in 0..40u64 {
            let nats = 5.0 - f64::from(step) - i as f64 / 100.0;
            tell(view, ms, Report::Loss { epoch, step, microbatch: i, nats });
        }
        tell(view, ms, Report::Stepped { epoch, step, tokens: 100 });
    }
}

#[test]
fn loss_rate_and_phase_come_from_the_notices() {
    let mut view = view();
    epoch(&mut view, 0, 1000);
    assert_eq!((view.steps, view.tokens, view.phase.clone()), (2, 200, Phase::Merging(0)));
    assert!((view.tokens_per_second - 200.0).abs() < 1e-9);
    assert!((view.first_nats.unwrap() - 4.885).abs() < 1e-9);
    assert!((view.last_nats.unwrap() - 3.725).abs() < 1e-9);
    assert!((view.seconds_left().unwrap() - 1.0).abs() < 1e-9);
    // A merge makes no tokens; what is shown is the last rate.
    tell(&mut view, 9000, Report::Committed { epoch: 0, manifest: Default::default(), nats: 4.0 });
    tell(&mut view, 9000, Report::Opened { epoch: 1 });
    assert!((view.rate_now() - 200.0).abs() < 1e-9);
    // That of the whole run has the merge in it.
    assert!((view.tokens_per_second - 25.0).abs() < 1e-9);
    let line = &view.epochs[0];
    assert_eq!((line.opened_ms, line.worked_ms, line.committed_ms), (1000, Some(2000), Some(9000)));
}

#[test]
fn what_is_lost_is_taken_from_steps_tokens_and_the_curve() {
    let mut view = view();
    epoch(&mut view, 0, 0);
    let before = view.loss.points().len();
    epoch(&mut view, 1, 2000);
    assert_eq!((view.steps, view.tokens), (4, 400));
    tell(&mut view, 3000, Report::Rewound { epoch: 1, steps: 2, tokens: 230, why: "a miner died".into() });
    assert_eq!((view.steps, view.tokens, view.tokens_lost, view.rewinds), (2, 200, 230, 1));
    assert_eq!(view.loss.points().len(), before);
    assert_eq!(view.phase, Phase::Again(1));
    epoch(&mut view, 1, 4000);
    assert_eq!((view.steps, view.epochs.len(), view.epochs[1].rewinds), (4, 2, 1));
}

#[test]
fn nodes_come_and_go_and_the_relay_counts_over_restarts() {
    let mut view = view();
    let node = NodeId([7; 32]);
    tell(&mut view, 0, Report::Joined { node, role: Role::Miner, stage: Some(1) });
    tell(&mut view, 1, Report::Suspected { node, suspected: true });
    assert_eq!((view.present(Some(1)), view.nodes[&node].presence), (1, Presence::Suspected));
    tell(&mut view, 2, Report::Gone { node, why: "<silent>".into() });
    assert_eq!(view.present(Some(1)), 0);
    tell(&mut view, 3, Report::Joined { node, role: Role::Miner, stage: Some(1) });
    assert_eq!((view.present(Some(1)), view.nodes[&node].visits), (1, 2));
    let listening = Notice::Listening { invitation: "iota://secret".into(), store: "here".into() };
    view.take(&listening);
    view.take(&Notice::Wire { frames: 1, bytes_plain: 10, bytes_sent: 8 });
    view.take(&listening);
    view.take(&Notice::Wire { frames: 2, bytes_plain: 20, bytes_sent: 16 });
    assert_eq!((view.wire_frames, view.wire_bytes_plain, view.wire_bytes_sent), (3, 30, 24));
    let carried = Report::Carried { node, frames: 5, bytes_plain: 50, bytes_sent: 40 };
    tell(&mut view, 4, carried.clone());
    view.take(&listening);
    tell(&mut view, 5, carried);
    view.take(&Notice::Wire { frames: 1, bytes_plain: 10, bytes_sent: 8 });
    assert_eq!((view.wire_frames, view.wire_bytes_plain, view.wire_bytes_sent), (14, 140, 112));
    let (relayed, direct) = (view.wire_relayed(), view.wire_direct);
    assert_eq!((relayed.frames, direct.frames, relayed.bytes_sent, direct.bytes_sent), (4, 10, 32, 80));
    let metrics = crate::prometheus::text(&view);
    assert!(
        metrics.contains("iota_relay_sent_bytes_total 32")
            && metrics.contains("iota_direct_sent_bytes_total 80")
    );
    assert!(view.log.iter().all(|(_, said)| !said.contains("iota://")), "an invitation is no public word");
}

#[test]
fn what_one_tile_shows_stands_beside_what_its_window_shows() {
    let mut view = view();
    let [node, other] = [7, 8].map(|key| NodeId([key; 32]));
    for node in [node, other] {
        let why = format!("miner {} was convicted", node.short());
        tell(&mut view, 1, Report::Convicted { node, stage: Some(1), evidence: None, why });
    }
    tell(&mut view, 2, Report::Narrowed { node, evidence: spec::Digest([9; 32]) });
    let said: Vec<&str> = view.convictions.iter().map(|(_, why)| why.as_str()).collect();
    let tile = format!("; of one tile: evidence {}", spec::Digest([9; 32]));
    assert!(said[0].ends_with(&tile) && said[1].ends_with("convicted"), "{said:?}");
    assert!(view.log.iter().any(|(_, line)| line.contains("one tile of one op convicts it")));
}

#[test]
fn a_view_that_is_kept_goes_on_as_it_was() {
    let mut view = view();
    let node = NodeId([7; 32]);
    tell(&mut view, 0, Report::Joined { node, role: Role::Miner, stage: Some(1) });
    epoch(&mut view, 0, 1000);
    tell(&mut view, 2500, Report::Committed { epoch: 0, manifest: Default::default(), nats: 4.0 });
    let bytes = wire::to_bytes(&view);
    assert_eq!(
        (View::FORMAT, spec::Digest::of(&bytes).short().to_string().as_str()),
        (1, "fe3bd478"),
        "where this digest is another, old views are not read rightly any more: raise View::FORMAT"
    );
    let mut kept: View = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(kept, view);
    for view in [&mut view, &mut kept] {
        epoch(view, 1, 3000);
        tell(view, 5000, Report::Rewound { epoch: 1, steps: 2, tokens: 9, why: "a miner died".into() });
    }
    assert_eq!(kept, view);
}
