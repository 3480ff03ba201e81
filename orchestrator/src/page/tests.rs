//! The page of a run in which somebody tries to write markup.

use super::*;
use crate::notice::Notice;
use orchestrator_core::{Ending, Report};
use spec::NodeId;
use wire::Role;

fn page(view: &View, kind: Kind) -> String {
    document("iota", &sections(view), kind)
}

#[test]
fn what_others_say_is_text_and_the_page_fetches_nothing() {
    let mut view = View::default();
    view.facts.stages = 3;
    let node = NodeId([9; 32]);
    let reports = [
        Report::Joined { node, role: Role::Miner, stage: Some(1) },
        Report::Opened { epoch: 0 },
        Report::Loss { epoch: 0, step: 0, microbatch: 0, nats: 4.5 },
        Report::Gone { node, why: "<script>alert(1)</script>".into() },
    ];
    for (ms, report) in (0..).zip(reports) {
        view.take(&Notice::Report { ms, report });
    }
    view.take(&Notice::Ended { ending: Ending::Failed { why: "<img src=x>".into() } });
    for kind in [Kind::Dashboard, Kind::Report] {
        let page = page(&view, kind);
        assert!(page.contains("&lt;script&gt;alert") && !page.contains("<script>alert"));
        assert!(page.contains("&lt;img src=x&gt;") && !page.contains("<img"));
        assert_eq!(page.contains("<script>"), kind == Kind::Dashboard);
        let addresses = page.match_indices("://").map(|(at, _)| &page[at - 5..at + 20]);
        assert!(
            addresses.clone().all(|address| address.contains("www.w3.org")),
            "{:?}",
            addresses.collect::<Vec<_>>()
        );
        for part in ["id=\"loss\"", "nobody yet", &node.short(), " gone", "failed"] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
