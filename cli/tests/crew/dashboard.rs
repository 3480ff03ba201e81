//! The dashboard of a real orchestrator: the page, its news, `/metrics`, and what a restart leaves of them.

use crate::harness::{Crew, DEADLINE, new_run};
use crate::replicas::make_keys;
use orchestrator::{Notice, Report};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// Where the dashboard was said to be the last time.
fn address(crew: &mut Crew, times: usize) -> String {
    let urls = |notices: &[Notice]| -> Vec<String> {
        let url = |notice: &Notice| match notice {
            Notice::Dashboard { url } => Some(url.clone()),
            _ => None,
        };
        notices.iter().filter_map(url).collect()
    };
    crew.wait_for(|notices| urls(notices).len() >= times);
    let url = urls(&crew.notices).pop().unwrap();
    url.trim_start_matches("http://").trim_end_matches('/').to_owned()
}

fn ask(address: &str, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    BufReader::new(stream)
}

/// Status line, headers and body of an answer that ends.
fn get(address: &str, path: &str) -> String {
    let mut text = String::new();
    ask(address, path).read_to_string(&mut text).unwrap();
    text
}

/// The value of a sample without labels.
fn sample(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{name} in {metrics}"))
}

/// The sections of the first piece of news.
fn first_news(address: &str) -> serde_json::Value {
    let lines = ask(address, "/events").lines().map_while(Result::ok);
    let mut data = lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned));
    serde_json::from_str(&data.next().unwrap()).unwrap()
}

#[test]
fn a_dashboard_shows_the_run_and_is_rebuilt_from_the_journal() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    new_run(&folder, &["--steps", "6", "--epochs", "40"]);
    make_keys(&folder, 3);
    let mut crew = Crew::lead(&folder);
    let at = address(&mut crew, 1);
    assert!(get(&at, "/").contains("waiting for nodes"));
    crew.man(3);
    let committed = |report: &Report| match report {
        Report::Committed { manifest, .. } => Some(manifest.to_string()),
        _ => None,
    };
    let is_committed =
        |notice: &Notice| matches!(notice, Notice::Report { report: Report::Committed { .. }, .. });
    crew.wait_for(|notices| notices.iter().any(is_committed));
    let manifest = crew.reports().find_map(committed).unwrap()[..16].to_owned();

    let page = get(&at, "/");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for part in ["stage 1", "stage 2, tail", "<polyline", "validators", "epoch 0 committed", &manifest] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(!page.contains(crew.token()), "the page must not invite its readers");
    let metrics = get(&at, "/metrics");
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    let (steps, epochs) =
        (sample(&metrics, "iota_steps_total"), sample(&metrics, "iota_epochs_committed_total"));
    assert!(
        steps >= 6.0 && epochs >= 1.0 && sample(&metrics, "iota_relay_sent_bytes_total") > 0.0,
        "{metrics}"
    );
    let news = first_news(&at);
    assert!(news["pipeline"].as_str().unwrap().contains("<circle"), "{news}");
    assert!(news["epochs"].as_str().unwrap().contains(&manifest), "{news}");
    assert!(get(&at, "/nothing").starts_with("HTTP/1.1 404"));

    crew.kill("orchestrator");
    crew.lead_again();
    let at = address(&mut crew, 2);
    let (metrics, page) = (get(&at, "/metrics"), get(&at, "/"));
    assert!(sample(&metrics, "iota_steps_total") >= steps, "{metrics}");
    assert!(sample(&metrics, "iota_epochs_committed_total") >= epochs, "{metrics}");
    assert!(page.contains(&manifest) && page.contains("<polyline"), "{page}");
}
