//! What a soak came to so far, as `docs/soak.md` tells it: written after every slice, read again by one that goes on.

use crate::root;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// What one part came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What is done, as the table calls it.
    pub name: String,
    /// How often it is to be done.
    pub asked: u64,
    /// How often it was done, and held.
    pub passed: u64,
    /// How long that took, all processes together.
    pub seconds: f64,
    /// The commits whose code that was.
    pub at: String,
    /// What does not hold, as the command that shows it.
    pub failed: Option<String>,
}

impl Part {
    /// One of which nothing was done yet.
    pub fn new(name: String, asked: u64) -> Self {
        Self { name, asked, passed: 0, seconds: 0.0, at: String::new(), failed: None }
    }

    /// Adds what was just done.
    pub fn add(&mut self, passed: u64, seconds: f64, commit: &str) {
        self.passed += passed;
        self.seconds += seconds;
        if !self.at.contains(commit) {
            self.at = if self.at.is_empty() { commit.into() } else { format!("{}, {commit}", self.at) };
        }
    }

    /// Takes over what an earlier soak came to: of a version that is tried again, where it held so far; of one that is not tried
    /// now, whatever it was. Where another version is tried nothing of the one before counts.
    pub fn go_on_from(&mut self, before: &Self, tried: Option<&String>) {
        if tried.is_none_or(|commit| before.at == *commit && before.failed.is_none()) {
            *self = Self { asked: self.asked, ..before.clone() };
        }
    }

    /// Whether there is more to do.
    pub fn is_open(&self) -> bool {
        self.failed.is_none() && self.passed < self.asked
    }

    fn row(&self) -> String {
        let Self { name, asked, passed, seconds, at, failed } = self;
        let each = seconds / (*passed).max(1) as f64;
        let holds = match failed {
            Some(command) => format!("NO: `{command}`"),
            None if self.passed == 0 => "not tried".into(),
            None if self.is_open() => "so far".into(),
            None => "yes".into(),
        };
        format!("| {name} | {asked} | {passed} | {seconds:.1} | {each:.3} | {at} | {holds} |")
    }

    /// The part that a line of the table tells of, if it is one.
    fn read(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [name, asked, passed, seconds, _, at, holds] = cells[..] else { return None };
        Some(Self {
            name: name.into(),
            asked: asked.parse().ok()?,
            passed: passed.parse().ok()?,
            seconds: seconds.parse().ok()?,
            at: at.into(),
            failed: holds.strip_prefix("NO: `").and_then(|rest| rest.strip_suffix('`')).map(str::to_owned),
        })
    }
}

const HEAD: &str = "# The last long run

Written by `cargo xtask soak` as it goes on, so a row that is not at its end says how far it came: swarms in the simulator, each seed
under every checker, and processes. The rows of some fifty miners share ten thousand seeds: a half goes to the swarms of cheats, a twentieth to each
misfortune. In a swarm of cheats a tenth of all miners changes values, a tenth withholds, a tenth signs wrong sums: `honest_never_slashed` and
`cheat_is_caught_within_n` look on. A row goes on where it was while the version stays, and begins anew with another. Seconds are those of
the processes, as many of which ran at a time as had been asked for, whatever else the machine did.

| what | asked | passed | seconds | seconds each | at | holds |
|---|---|---|---|---|---|---|
";

/// The page that tells of these parts.
pub fn page(parts: &[Part]) -> String {
    let mut page = String::from(HEAD);
    for part in parts {
        // Writing into a string cannot fail.
        let _ = writeln!(page, "{}", part.row());
    }
    page
}

/// The parts that a page tells of.
pub fn read(page: &str) -> Vec<Part> {
    page.lines().filter_map(Part::read).collect()
}

/// Where it is written.
pub fn path() -> PathBuf {
    root().join("docs/soak.md")
}

/// What a person wrote below the table of a page.
fn remarks(page: &str) -> &str {
    page.rsplit_once("|\n").map_or("", |(_, below)| below)
}

/// Writes what there is so far, above what a person remarked.
pub fn write(parts: &[Part]) -> Result<()> {
    let before = std::fs::read_to_string(path()).unwrap_or_default();
    let page = page(parts) + remarks(&before);
    std::fs::write(path(), page).with_context(|| path().display().to_string())
}

/// The commit that is tried, with a plus where the tree has more than it.
pub fn commit() -> Result<String> {
    let git = |arguments: &[&str]| Command::new("git").args(arguments).current_dir(root()).output();
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let is_clean = git(&["diff", "--quiet", "HEAD", "--", ".", ":!docs/soak.md"])?.status.success();
    let commit = String::from_utf8_lossy(&commit.stdout).trim().to_owned();
    Ok(if is_clean { commit } else { commit + "+" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_on_while_its_version_stays() {
        let mut before = Part::new("churn".into(), 10);
        before.add(4, 2.0, "abc1234");
        let goes_on = |before: &Part, tried: Option<&str>| {
            let mut part = Part::new("churn".into(), 20);
            part.go_on_from(before, tried.map(str::to_owned).as_ref());
            (part.asked, part.passed, part.failed.is_some())
        };
        assert_eq!(goes_on(&before, Some("abc1234")), (20, 4, false));
        assert_eq!(goes_on(&before, Some("def5678")), (20, 0, false), "of another version nothing counts");
        assert_eq!(goes_on(&before, None), (20, 4, false), "what is not tried now stays");
        before.failed = Some("iota sim --seed 5".into());
        assert_eq!(goes_on(&before, Some("abc1234")), (20, 0, false));
        assert_eq!(goes_on(&before, None), (20, 4, true), "and is not hushed up");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut parts = ["churn, 51 miners", "mixed", "large"].map(|name| Part::new(name.into(), 10));
        parts[0].add(4, 2.0, "abc1234");
        parts[0].add(6, 2.5, "def5678+");
        parts[1].add(3, 1.0, "abc1234");
        parts[1].add(1, 1.0, "abc1234");
        parts[2].failed = Some("iota sim --scenario mixed --seed 5".into());
        let page = page(&parts);
        assert_eq!(read(&page), parts);
        let again = page.clone() + "\nSomething | of note.\n";
        assert_eq!(
            (read(&again), remarks(&again), remarks(&page)),
            (parts.to_vec(), "\nSomething | of note.\n", "")
        );
        assert_eq!(parts.map(|part| part.is_open()), [false, true, false]);
        assert!(
            page.contains("| churn, 51 miners | 10 | 10 | 4.5 | 0.450 | abc1234, def5678+ | yes |"),
            "{page}"
        );
        assert!(page.contains("| mixed | 10 | 4 | 2.0 | 0.500 | abc1234 | so far |"), "{page}");
    }
}
