//! What a swarm's run leaves behind, made from its folder and the objects in its store: a judgement, a sample, a Hugging
//! Face directory, a report, a summary.

use super::Fates;
use super::crew::Recovery;
use crate::evidence::evidence_files;
use crate::failure::{Failure, Result};
use crate::judge::{JUDGED_AT_THE_END, Judgement, judge, sample};
use crate::new::NewRun;
use crate::weights::weights_of;
use crate::{export, shards, whole};
use engine::StageState;
use engine::data::TokenShard;
use orchestrator::page::{self, Kind, Section, escaped};
use orchestrator::{RunFolder, View};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A run that is over, in numbers: `summary.json`.
#[derive(Serialize)]
pub struct Summary<'a> {
    /// What the orchestrator told.
    #[serde(flatten, serialize_with = "numbers")]
    pub view: &'a View,
    /// From the command to its end.
    pub seconds: u64,
    /// Where the text came from.
    pub source: &'a str,
    /// What was foretold, before the first step.
    pub predicted: Option<Prediction>,
    /// Processes that died and were started again, and how often.
    pub restarts: BTreeMap<String, u32>,
    /// What became of the process that was killed on purpose.
    pub recovery: Option<Recovery>,
    /// Keys of those that were told to lie.
    pub adversaries: Vec<String>,
    /// The committed weights on held-out documents.
    pub held_out: Option<Judgement>,
    /// What they write.
    pub sample: Option<String>,
    /// Where Hugging Face's libraries load them from.
    pub hugging_face: Option<PathBuf>,
    /// The report.
    pub report: PathBuf,
}

/// A foretold rate beside the one that came.
#[derive(Clone, Copy, Serialize)]
pub struct Prediction {
    /// Tokens a second, merges included.
    pub tokens_per_second: f64,
    /// The measured rate over it.
    pub measured_over_predicted: f64,
}

/// What is made of the committed weights.
pub struct Harvest {
    pub held_out: Judgement,
    pub sample: String,
    pub hugging_face: PathBuf,
}

/// Judges, samples and exports the weights that the run's last manifest names.
pub fn harvest(root: &Path, new: &NewRun) -> Result<Harvest> {
    let weights = weights_of(root)?;
    let states = weights.states()?;
    let stages: Vec<&StageState> = states.iter().collect();
    let path = new.folder.path(&format!("objects/{}", new.run.data.validation));
    let shard = TokenShard::open(&path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
    let tokenizer = shards::tokenizer(new.run.data.tokenizer, &new.folder.path("objects"))?;
    let held_out = judge(&stages, &tokenizer, &shard, JUDGED_AT_THE_END)?;
    let sample = sample(&stages, &tokenizer, new.run.seed)?;
    whole::replace(&new.folder.path("sample.txt"), sample.as_bytes())?;
    let hugging_face = new.folder.path("model");
    export::to_hugging_face(&weights, &states, &hugging_face)?;
    Ok(Harvest { held_out, sample, hugging_face })
}

fn numbers<S: Serializer>(view: &&View, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    view.numbers().serialize(serializer)
}

/// Writes `report.html` and `summary.json`.
pub fn write(folder: &RunFolder, summary: &Summary) -> Result<()> {
    let mut sections = page::sections(summary.view);
    sections.insert(1, Section::new("result", "Result", &result(folder, summary)?));
    let run = std::fs::read_to_string(folder.path("run.toml")).unwrap_or_default();
    sections.push(Section::new("run", "run.toml", &format!("<pre>{}</pre>", escaped(&run))));
    let facts = &summary.view.facts;
    let page = page::document(&format!("{} {}", facts.name, facts.id), &sections, Kind::Report);
    whole::replace(&summary.report, page.as_bytes())?;
    let text = serde_json::to_vec_pretty(summary).map_err(|e| Failure::run(e.to_string()))?;
    folder.write("summary.json", &text, false).map_err(|e| Failure::run(e.to_string()))
}

/// The report's own section: what the run came to.
fn result(folder: &RunFolder, summary: &Summary) -> Result<String> {
    let view = summary.view;
    let mut rows = vec![
        ("text", summary.source.to_owned()),
        ("in all", format!("{} s", summary.seconds)),
        ("tokens/s, merges included", format!("{:.0}", view.tokens_per_second)),
    ];
    if let Some(predicted) = summary.predicted {
        let (rate, ratio) = (predicted.tokens_per_second, predicted.measured_over_predicted);
        rows.push(("foretold", format!("{rate:.0} tokens/s; measured over foretold {ratio:.2}")));
    }
    if let Some(judged) = &summary.held_out {
        rows.push((
            "held out",
            format!(
                "{:.3} bits per byte ({} tokens, {} bytes)",
                judged.bits_per_byte, judged.tokens, judged.bytes
            ),
        ));
    }
    if let Some(recovery) = &summary.recovery {
        rows.push(("recovery", recovery.to_string()));
    }
    for (name, times) in &summary.restarts {
        rows.push(("started again", format!("{name}, {times} times")));
    }
    for (_, why) in &view.convictions {
        rows.push(("banned", why.clone()));
    }
    for path in evidence_files(folder)? {
        rows.push(("evidence", format!("iota verify evidence {}", path.display())));
    }
    let cells =
        |(what, value): &(&str, String)| format!("<tr><td>{what}</td><td>{}</td></tr>", escaped(value));
    let mut html = format!("<table>{}</table>", rows.iter().map(cells).collect::<String>());
    if let Some(sample) = &summary.sample {
        html.push_str(&format!("<h2>What the model writes</h2><pre>{}</pre>", escaped(sample)));
    }
    Ok(html)
}

/// The summary in words, on standard output.
pub fn print(new: &NewRun, root: &Path, summary: &Summary) -> Result<()> {
    let view = summary.view;
    println!("\niota up, {} s", summary.seconds);
    println!("  text     {} tokens of {}", new.run.data.train_tokens, new.source);
    println!(
        "  trained  {} of {} steps, {} tokens at {:.0} tokens/s on {} miner processes",
        view.steps,
        view.steps_total,
        view.tokens,
        view.tokens_per_second,
        new.run.model.stage_count() * usize::from(new.run.miners_per_stage),
    );
    if let Some(predicted) = summary.predicted {
        println!(
            "  foretold {:.0} tokens/s; measured over foretold {:.2}",
            predicted.tokens_per_second, predicted.measured_over_predicted
        );
    }
    if let (Some(first), Some(last)) = (view.first_nats, view.last_nats) {
        println!("  loss     {first:.3} -> {last:.3} nats per token (training text)");
    }
    if let Some(judged) = &summary.held_out {
        println!(
            "  held out {:.3} bits per byte ({} tokens, {} bytes)",
            judged.bits_per_byte, judged.tokens, judged.bytes
        );
    }
    if let Some((epoch, manifest)) = view.commits.last() {
        let count = view.commits.len();
        println!(
            "  commits  {count}; the last, epoch {epoch}: manifest {manifest} in the store, the pointer names it"
        );
    }
    println!(
        "  audits   {} windows replayed, every digest equal; {} epochs stable; {} sums of merges added up again",
        view.audits_equal, view.stable, view.sums_checked
    );
    for finding in &view.audits_unequal {
        println!("  UNEQUAL  {finding}");
    }
    for (_, why) in &view.convictions {
        println!("  BANNED   {why}");
    }
    for path in evidence_files(&new.folder)? {
        let path = path.display();
        println!("  evidence {path}; anybody can check it: iota verify evidence {path}");
    }
    println!(
        "  wire     {} tensors from miner to miner: {:.1} MB as {:?} blocks, {:.1} MB packed{}",
        view.wire_frames,
        view.wire_bytes_plain as f64 / 1e6,
        new.run.boundary,
        view.wire_bytes_sent as f64 / 1e6,
        match view.wire_direct.bytes_sent {
            0 => String::new(),
            direct => format!(", {:.1} MB of that without the relay", direct as f64 / 1e6),
        }
    );
    if view.tokens_lost > 0 {
        println!("  lost     {} epochs began again, {} tokens in vain", view.rewinds, view.tokens_lost);
    }
    if let Some(recovery) = &summary.recovery {
        println!("  recovery {recovery}");
    }
    for (name, times) in &summary.restarts {
        println!("  restart  {name}: started again {times} times with its key");
    }
    if let Some(model) = &summary.hugging_face {
        println!("  model    {} loads with Hugging Face's libraries", model.display());
    }
    println!("  report   {}", summary.report.display());
    println!("  folder   {}", root.display());
    if let Some(sample) = &summary.sample {
        println!("  sample   {}", sample.replace('\n', "\n           "));
    }
    Ok(())
}

/// Everything that a run leaves, and its exit code.
pub fn conclude(
    new: &NewRun,
    root: &Path,
    view: &View,
    began: Instant,
    predicted: Option<f64>,
    Fates { restarts, recovery, adversaries }: Fates,
    outcome: Result<()>,
) -> Result<()> {
    // A run that was broken off is told as it stood; `iota export` and `iota eval` take what was committed.
    let (harvest, outcome) = match outcome.and_then(|()| harvest(root, new)) {
        Ok(harvest) => (Some(harvest), Ok(())),
        Err(failure) => (None, Err(failure)),
    };
    let predicted = predicted.filter(|_| view.tokens > 0).map(|rate| Prediction {
        tokens_per_second: rate,
        measured_over_predicted: view.tokens_per_second / rate,
    });
    let summary = Summary {
        view,
        seconds: began.elapsed().as_secs(),
        source: &new.source,
        predicted,
        restarts,
        recovery,
        adversaries,
        held_out: harvest.as_ref().map(|harvest| harvest.held_out),
        sample: harvest.as_ref().map(|harvest| harvest.sample.clone()),
        hugging_face: harvest.map(|harvest| harvest.hugging_face),
        report: new.folder.path("report.html"),
    };
    write(&new.folder, &summary)?;
    print(new, root, &summary)?;
    outcome?;
    match (view.first_nats, view.last_nats) {
        (Some(first), Some(last)) if last < first => Ok(()),
        _ => Err(Failure::run("the run is complete but its loss did not fall")),
    }
}
