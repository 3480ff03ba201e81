//! What a run says of itself: a line of JSON and a TensorBoard record a step, and the curve.

use super::folder::{TrainFolder, unix_time_s};
use super::tensorboard;
use crate::failure::Result;
use crate::judge::Judgement;
use crate::whole::{replace, trouble};
use engine::train::StepReport;
use orchestrator::page::{Chart, Line};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// The open files of a run's metrics, and the curve so far.
pub struct Metrics {
    lines: File,
    lines_path: PathBuf,
    events: File,
    events_path: PathBuf,
    /// (step, nats) of every training step.
    pub losses: Vec<(u64, f64)>,
    held_out: Vec<(u64, f64)>,
}

impl Metrics {
    /// Goes on after `steps` steps: what a killed run wrote beyond them is dropped, for it will be done again.
    pub fn open(folder: &TrainFolder, steps: u64) -> Result<Self> {
        let lines_path = folder.path("metrics.jsonl");
        let old = std::fs::read_to_string(&lines_path).unwrap_or_default();
        let (mut kept, mut losses, mut held_out) = (String::new(), vec![], vec![]);
        for line in old.lines() {
            let Ok(value) = serde_json::from_str::<Value>(line) else { break };
            let Some(step) = value["step"].as_u64().filter(|step| *step <= steps) else { break };
            kept.push_str(line);
            kept.push('\n');
            losses.extend(value["loss"].as_f64().map(|nats| (step, nats)));
            held_out.extend(value["held_out"].as_f64().map(|nats| (step, nats)));
        }
        replace(&lines_path, kept.as_bytes())?;
        let lines = File::options().append(true).open(&lines_path).map_err(|e| trouble(&lines_path, &e))?;
        let now = unix_time_s();
        let events_path = folder.path(&format!("events.out.tfevents.{now:.0}.{}.iota", std::process::id()));
        let mut events = File::create(&events_path).map_err(|e| trouble(&events_path, &e))?;
        events.write_all(&tensorboard::opening(now)).map_err(|e| trouble(&events_path, &e))?;
        Ok(Self { lines, lines_path, events, events_path, losses, held_out })
    }

    /// One training step, and at which rate and which share of the peak of fused multiply-adds the run goes.
    pub fn step(&mut self, report: &StepReport, tokens_per_s: f64, fma_share: f64) -> Result<()> {
        let loss = nats(report.loss_q32);
        self.losses.push((report.steps_done, loss));
        self.line(&json!({
            "step": report.steps_done,
            "epoch": report.epoch,
            "loss": loss,
            "loss_q32": report.loss_q32,
            "lr": report.lr,
            "gradient_norm": report.gradient_norm,
            "tokens_per_s": tokens_per_s.round(),
            "fma_share": (fma_share * 1e3).round() / 1e3,
        }))?;
        let values = [
            ("loss/train", loss),
            ("lr", f64::from(report.lr)),
            ("gradient_norm", report.gradient_norm),
            ("tokens_per_s", tokens_per_s),
            ("fma_share", fma_share),
        ];
        self.event(report.steps_done, &values)
    }

    /// What the model makes of held-out text after `steps` steps.
    pub fn held_out(&mut self, steps: u64, judged: &Judgement) -> Result<()> {
        // A complete run that is resumed says nothing new.
        if self.held_out.last().is_some_and(|(last, _)| *last == steps) {
            return Ok(());
        }
        self.held_out.push((steps, judged.nats_per_token));
        self.line(&json!({
            "step": steps,
            "held_out": judged.nats_per_token,
            "bits_per_byte": judged.bits_per_byte,
            "tokens": judged.tokens,
            "bytes": judged.bytes,
        }))?;
        let values = [("loss/held_out", judged.nats_per_token), ("bits_per_byte", judged.bits_per_byte)];
        self.event(steps, &values)
    }

    /// Draws `loss.svg`.
    pub fn draw(&self, folder: &TrainFolder) -> Result<()> {
        let title = format!("{} {}", folder.run().name, folder.run().id().short());
        let points = |curve: &[(u64, f64)]| curve.iter().map(|(step, nats)| (*step as f64, *nats)).collect();
        let (training, held_out): (Vec<_>, Vec<_>) = (points(&self.losses), points(&self.held_out));
        let lines = [
            Line { name: "training", points: &training, marked: false },
            Line { name: "held out", points: &held_out, marked: true },
        ];
        let svg =
            Chart { title: &title, x: "steps", y: "nats per token:", from_zero: false, lines: &lines }.svg();
        replace(&folder.path("loss.svg"), svg.as_bytes())
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        writeln!(self.lines, "{value}").map_err(|e| trouble(&self.lines_path, &e))
    }

    fn event(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let record = tensorboard::scalars(unix_time_s(), step, values);
        self.events.write_all(&record).map_err(|e| trouble(&self.events_path, &e))
    }
}

/// Fixed-point nats as a number.
pub fn nats(loss_q32: i64) -> f64 {
    loss_q32 as f64 / 4_294_967_296.0
}
