//! What a run is: the default of one process or of a swarm, and over it whatever the user's TOML says.

use crate::data::prepare::Choice;
use crate::failure::{Failure, Result};
use spec::{
    Admission, Audit, BoundaryCodec, Data, Epoch, Inner, Mode, Model, Outer, RopeScaling, Run, SpecError,
    Tokenizer,
};
use std::path::Path;
use toml::{Table, Value};

/// Keys whose value may be a word or a table, so that their inside is left to `spec`.
const CHOICES: [&str; 3] = ["outer", "admission", "data.tokenizer"];

/// The outer step of several replicas that are told no other: the best of `docs/merges.md`.
pub const OUTER: Outer = Outer::Nesterov { lr: 1.0, momentum: 0.5, bits: 8 };

/// The tokenizer of a run that is told no other: byte-level BPE of so many ids.
pub const TOKENIZER: Choice = Choice::Train(4096);

/// What a run is whose user says nothing, of this text.
pub type Base = fn(Data) -> Run;

/// A configuration over a default, still without its text.
pub struct Config {
    given: Table,
    name: String,
    base: Base,
}

/// A run that has a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// What a run is that is told nothing
    #[default]
    Default,
    /// 0.15 million parameters over bytes in three stages, 16 steps: to see everything work, also on an emulated device
    Tiny,
}

impl Preset {
    /// What it says over the default.
    fn toml(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Tiny => include_str!("presets/tiny.toml"),
        }
    }
}

impl Config {
    /// Of the preset, and over it of the file at `path`.
    pub fn read(preset: Preset, path: Option<&Path>, base: Base) -> Result<Self> {
        let mut given = preset.toml().parse::<Table>().map_err(|e| Failure::run(e.to_string()))?;
        let Some(path) = path else { return Ok(Self { given, name: "run.toml".into(), base }) };
        let file = Self::of_file(path, base)?;
        overlay(&mut given, &file.given);
        Ok(Self { given, ..file })
    }

    fn of_file(path: &Path, base: Base) -> Result<Self> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::input(format!("--config {name}: cannot be read ({e})")))?;
        let given = text.parse::<Table>().map_err(|e| {
            let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count());
            Failure::input(format!("{name}: line {}: {}", line.max(1), e.message().replace('\n', " ")))
        })?;
        let config = Self { given, name, base };
        let mut every_key = base(placeholder());
        every_key.model.rope_scaling = Some(RopeScaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 8192,
        });
        let known = table(&every_key)?;
        config.check_keys(&known, &config.given, "")?;
        Ok(config)
    }

    /// Checks a run made of this.
    pub fn check(&self, run: &Run) -> Result<()> {
        run.check().map_err(|e| match e {
            SpecError::Value { key, found, expected } => {
                Failure::input(format!("{}: {key} is {found}, expected {expected}", self.name))
            }
            SpecError::Toml(_) => Failure::input(e.to_string()),
        })
    }

    /// Whether the file sets this dotted key.
    pub fn sets(&self, section: &str, key: &str) -> bool {
        self.given.get(section).and_then(|value| value.get(key)).is_some()
    }

    /// Sequences of a microbatch.
    pub fn sequences(&self) -> Result<u32> {
        Ok(self.over((self.base)(placeholder()))?.data.sequences)
    }

    /// The tokenizer that the file asks for.
    pub fn tokenizer(&self) -> Result<Option<Choice>> {
        if !self.sets("data", "tokenizer") {
            return Ok(None);
        }
        Ok(Some(match self.over((self.base)(placeholder()))?.data.tokenizer {
            Tokenizer::Bytes => Choice::Bytes,
            // Training gives the same file again, or another text was given: then the digests differ.
            Tokenizer::Bpe { vocab, .. } => Choice::Train(vocab),
        }))
    }

    /// The run with this text.
    pub fn run(&self, data: Data) -> Result<Run> {
        let run = self.over((self.base)(data.clone()))?;
        if run.data.tokenizer != data.tokenizer {
            return Err(Failure::input(format!(
                "{}: data.tokenizer is {}, the text comes with {}; give the tokenizer.json that the run was made with, \
                 or leave [data] out",
                self.name,
                said(run.data.tokenizer),
                said(data.tokenizer)
            )));
        }
        for (key, expected, found) in
            [("train", run.data.train, data.train), ("validation", run.data.validation, data.validation)]
        {
            if expected != found {
                return Err(Failure::input(format!(
                    "{}: data.{key} is {expected}, the text gives {found}; give the text that the run was made of, \
                     or leave [data] out",
                    self.name
                )));
            }
        }
        Ok(run)
    }

    fn over(&self, default: Run) -> Result<Run> {
        let mut merged = table(&default)?;
        overlay(&mut merged, &self.given);
        let run: Run = merged.try_into().map_err(|e: toml::de::Error| {
            Failure::input(format!("{}: {}", self.name, e.message().replace('\n', " ")))
        })?;
        Ok(run)
    }

    /// Every key must be known, and its value of the kind that stands in the default.
    fn check_keys(&self, known: &Table, given: &Table, prefix: &str) -> Result<()> {
        for (key, value) in given {
            let dotted = format!("{prefix}{key}");
            let Some(expected) = known.get(key) else {
                let nearest = known.keys().min_by_key(|name| distance(name, key));
                let hint = nearest.map(|name| format!("; did you mean `{prefix}{name}`?"));
                return Err(Failure::input(format!(
                    "{}: unknown key `{dotted}`{}",
                    self.name,
                    hint.unwrap_or_default()
                )));
            };
            if CHOICES.contains(&dotted.as_str()) {
                continue;
            }
            match (expected, value) {
                (Value::Table(known), Value::Table(given)) => {
                    self.check_keys(known, given, &format!("{dotted}."))?;
                }
                (Value::Float(_), Value::Integer(_)) => {}
                (expected, found) if !expected.same_type(found) => {
                    return Err(Failure::input(format!(
                        "{}: {dotted} is {found} ({}), expected a value of type {}, such as {expected}",
                        self.name,
                        found.type_str(),
                        expected.type_str()
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn said(tokenizer: Tokenizer) -> String {
    match tokenizer {
        Tokenizer::Bytes => "bytes".into(),
        Tokenizer::Bpe { file, vocab } => format!("the tokenizer.json {file} of {vocab} ids"),
    }
}

/// A Llama of 3 million parameters besides its tables, in one stage: 400 steps of it take two cores a couple of minutes.
pub fn one_process(data: Data) -> Run {
    Run {
        name: "llama".into(),
        mode: Mode::Portable,
        seed: 1,
        miners_per_stage: 1,
        model: Model {
            dim: 256,
            heads: 4,
            kv_heads: 4,
            ffn: 688,
            vocab: data.tokenizer.vocab(),
            context: 256,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            stages: vec![4],
            rope_scaling: None,
        },
        data,
        inner: Inner {
            lr: 3e-3,
            lr_final: 3e-4,
            warmup_steps: 20,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            members: 1,
            staleness: 0,
        },
        outer: Outer::None,
        epoch: Epoch { steps: 400, count: 1, digest_every: 50 },
        boundary: BoundaryCodec::F32,
        audit: Audit { windows: 0, lag: 2 },
        admission: Admission::Invitation,
    }
}

/// The same model in three stages of two miners, on as many tokens.
pub fn swarm(data: Data) -> Run {
    let alone = one_process(Data { sequences: 4, ..data });
    Run {
        name: "swarm".into(),
        miners_per_stage: 2,
        model: Model { stages: dealt(4, 3), ..alone.model },
        inner: Inner { members: 2, ..alone.inner },
        outer: OUTER,
        epoch: Epoch { steps: 20, count: 10, digest_every: 3 },
        boundary: BoundaryCodec::Int8,
        audit: Audit { windows: 1, lag: 2 },
        ..alone
    }
}

/// Where one miner alone holds each stage nobody works while it waits: of `p` stages `A` microbatches keep `A p / (A + p - 1)`
/// busy in a step. So its steps are cut into twice as many, of half the size, unless the file says how many there are.
pub fn fit_microbatches(run: &mut Run, config: &Config) {
    let (sequences, members) = (run.data.sequences, run.inner.members);
    let said = config.sets("data", "sequences") || config.sets("inner", "members");
    if run.miners_per_stage == 1 && run.model.stage_count() > 1 && !said && sequences.is_multiple_of(2) {
        (run.data.sequences, run.inner.members) = (sequences / 2, members * 2);
    }
}

/// What it says of staleness.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Staleness {
    /// Steps by which weights may lag within a window: 1 lets forwards of the next step run while one is in work [default: 0]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u8).range(0..=1))]
    staleness: Option<u8>,
}

impl Staleness {
    /// Over what the configuration says.
    pub fn apply(self, run: &mut Run) {
        run.inner.staleness = self.staleness.unwrap_or(run.inner.staleness);
    }
}

/// Receipts of a window, for a run that is told nothing else: some minutes of work, and far below what an order may hold.
const AUDITED_RECEIPTS: u32 = 512;

/// Sets what follows from a run's length, unless the file says it.
pub fn fit_length(run: &mut Run, config: &Config) {
    if !config.sets("inner", "warmup_steps") {
        run.inner.warmup_steps = (run.total_steps() / 20).clamp(1, 100) as u32;
    }
    if !config.sets("epoch", "digest_every") {
        // A window's receipts travel in one audit order, two of each microbatch and one of the step.
        let fit = AUDITED_RECEIPTS / (2 * u32::from(run.inner.members) + 1);
        // A sixth of an epoch, for what is drawn is done again. Within a window of one step no weights are stale.
        let least = 1 + u32::from(run.inner.staleness);
        run.epoch.digest_every = (run.epoch.steps / 6).clamp(least, fit.max(least));
    }
}

/// What audits cost a run, for people: proving, in every step, and doing a drawn window again.
pub fn price_of_audits(run: &Run) -> String {
    let (steps, window) = (run.epoch.steps, run.epoch.digest_every.min(run.epoch.steps));
    format!(
        "windows of {window} inner steps: proving costs {:.1} % of a step, replaying one {:.0} % of an epoch's work",
        100.0 * plan::proving(run).share(),
        100.0 * f64::from(window) / f64::from(steps)
    )
}

/// Blocks dealt to `stages` stages.
pub fn cut(blocks: u32, stages: u32) -> Result<Vec<u32>> {
    if stages == 0 || stages > blocks {
        return Err(Failure::input(format!(
            "--stages is {stages}, expected 1 to {blocks}: a stage holds at least one of the model's {blocks} blocks"
        )));
    }
    Ok(dealt(blocks, stages))
}

/// What does not divide goes to the stages in the middle, then to the first: the last has the vocabulary's product besides, and while the
/// first ends an inner step and begins the next all others wait for it.
fn dealt(blocks: u32, stages: u32) -> Vec<u32> {
    let (each, over) = (blocks / stages, blocks % stages);
    let has_more = |stage: u32| match stage {
        0 => over > 0 && over + 1 == stages,
        last if last + 1 == stages => false,
        middle => middle <= over,
    };
    (0..stages).map(|stage| each + u32::from(has_more(stage))).collect()
}

fn placeholder() -> Data {
    Data {
        tokenizer: Tokenizer::Bytes,
        train: spec::Digest::default(),
        train_tokens: 0,
        validation: spec::Digest::default(),
        validation_tokens: 0,
        sequences: 8,
    }
}

fn table(run: &Run) -> Result<Table> {
    Table::try_from(run).map_err(|e| Failure::run(format!("the default run cannot be written as TOML: {e}")))
}

fn overlay(base: &mut Table, given: &Table) {
    for (key, value) in given {
        match (base.get_mut(key), value) {
            (Some(Value::Table(base)), Value::Table(given)) => overlay(base, given),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Edits between two words: insertions, deletions, replacements.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let replaced = diagonal + usize::from(letter != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
