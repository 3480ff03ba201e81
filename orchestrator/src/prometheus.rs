//! A view in Prometheus's text format.

use crate::view::{Presence, View};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use orchestrator_core::Ending;
use wire::Role;

/// The text that `/metrics` answers.
pub fn text(view: &View) -> String {
    // Drawn anew for every scrape, so that it can say nothing that the view does not.
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || record(view));
    recorder.handle().render()
}

fn record(view: &View) {
    let (relayed, direct) = (view.wire_relayed(), view.wire_direct);
    let counters = [
        ("iota_tokens_total", "Tokens trained on", view.tokens),
        ("iota_tokens_lost_total", "Tokens computed in vain", view.tokens_lost),
        ("iota_steps_total", "Inner steps that every miner took", view.steps),
        ("iota_epochs_committed_total", "Epochs whose manifest is in the store", view.commits.len() as u64),
        ("iota_epochs_begun_again_total", "Epochs that began again", u64::from(view.rewinds)),
        ("iota_relay_frames_total", "Payload frames that the relay passed on", relayed.frames),
        (
            "iota_relay_plain_bytes_total",
            "Bytes of their blocks before lossless packing",
            relayed.bytes_plain,
        ),
        ("iota_relay_sent_bytes_total", "Bytes of their blocks as they travelled", relayed.bytes_sent),
        ("iota_direct_frames_total", "Payload frames that miners say went without the relay", direct.frames),
        (
            "iota_direct_plain_bytes_total",
            "Bytes of their blocks before lossless packing, as miners say",
            direct.bytes_plain,
        ),
        (
            "iota_direct_sent_bytes_total",
            "Bytes of their blocks as they travelled, as miners say",
            direct.bytes_sent,
        ),
    ];
    for (name, help, value) in counters {
        describe_counter!(name, help);
        counter!(name).absolute(value);
    }
    describe_counter!("iota_audits_total", "Windows replayed, by what was found");
    counter!("iota_audits_total", "finding" => "equal").absolute(u64::from(view.audits_equal));
    counter!("iota_audits_total", "finding" => "unequal").absolute(view.audits_unequal.len() as u64);
    let gauges = [
        ("iota_steps_planned", "Inner steps of the whole run", view.steps_total as f64),
        ("iota_tokens_per_second", "Tokens a second over the last steps", view.rate_now()),
        (
            "iota_loss_nats",
            "Mean loss of the last microbatches in nats per token",
            view.last_nats.unwrap_or(f64::NAN),
        ),
        (
            "iota_seconds_left",
            "Seconds until the last epoch is committed",
            view.seconds_left().unwrap_or(f64::NAN),
        ),
        (
            "iota_complete",
            "1 once every epoch is committed and audited",
            f64::from(u8::from(view.ending == Some(Ending::Complete))),
        ),
    ];
    for (name, help, value) in gauges {
        describe_gauge!(name, help);
        gauge!(name).set(value);
    }
    describe_gauge!("iota_nodes", "Nodes by role, stage and presence");
    for node in view.nodes.values() {
        let role = if node.role == Role::Miner { "miner" } else { "validator" };
        let stage = node.stage.map_or(String::new(), |stage| stage.to_string());
        let presence = match node.presence {
            Presence::Here => "here",
            Presence::Suspected => "suspected",
            Presence::Gone => "gone",
        };
        gauge!("iota_nodes", "role" => role, "stage" => stage, "presence" => presence).increment(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::Notice;
    use orchestrator_core::Report;
    use spec::NodeId;

    #[test]
    fn every_line_is_a_comment_or_a_sample() {
        let mut view = View::default();
        (view.tokens, view.audits_equal) = (819_200, 3);
        for (ms, stage) in [(0, 1), (1, 1), (2, 2)] {
            let report =
                Report::Joined { node: NodeId([ms as u8; 32]), role: Role::Miner, stage: Some(stage) };
            view.take(&Notice::Report { ms, report });
        }
        let text = text(&view);
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("iota_") && value.parse::<f64>().is_ok(), "{line}");
        }
        assert!(text.contains("# TYPE iota_tokens_total counter\niota_tokens_total 819200\n"), "{text}");
        assert!(text.contains("iota_audits_total{finding=\"equal\"} 3"), "{text}");
        let here =
            text.lines().find(|line| line.starts_with("iota_nodes") && line.contains("stage=\"1\"")).unwrap();
        assert!(here.ends_with(" 2") && here.contains("presence=\"here\""), "{here}");
    }
}
