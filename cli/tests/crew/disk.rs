//! A disk with no room left under everything that a run writes: journal, store, snapshots.

use crate::harness::{Crew, new_run, stepped};
use orchestrator::{Journal, Notice, Report};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A small disk of its own, as long as this is there.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn mount(place: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=192m", "tmpfs"])
            .arg(place)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(place.into()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(&self.0).status();
    }
}

/// Leaves no room on the disk of `path`.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for bytes in [1 << 20, 4096, 1] {
        while file.write_all(&vec![7; bytes]).is_ok() {}
    }
}

/// How often the orchestrator said that it waits for room for this file.
fn waits(notices: &[Notice], file: &str) -> usize {
    let said = format!("{file}: the disk is full: the run waits");
    let full = |notice: &&Notice| matches!(notice, Notice::Report { report: Report::Note { text }, .. } if text.contains(&said));
    notices.iter().filter(full).count()
}

#[test]
fn a_full_disk_is_waited_for_and_the_run_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(place.path()) else {
        println!("not run: this process may not mount a small disk");
        return;
    };
    let folder = disk.0.join("run");
    new_run(&folder, &["--epochs", "3", "--steps", "6", "--audits", "0"]);
    let mut crew = Crew::lead(&folder);
    crew.man(3);
    crew.wait_for(|notices| stepped(notices, 0, 0));
    let filler = disk.0.join("filler");
    fill(&filler);
    crew.wait_for(|notices| waits(notices, "journal.redb") > 0);
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(crew.wait_for_the_end().len(), 3);
    crew.wait_for_exit("orchestrator");
    // Nothing is missing or written in half: the chain over the entries holds.
    let (_, entries) = Journal::entries(&folder.join("journal.redb")).unwrap();
    assert!(!entries.is_empty());
    drop(crew);
    drop(disk);
}

/// Only the journal lies on the small disk, so that the processes' logs say what they have to say.
#[test]
fn a_stop_is_heard_while_a_full_disk_is_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let small = place.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let Some(disk) = SmallDisk::mount(&small) else {
        println!("not run: this process may not mount a small disk");
        return;
    };
    let folder = place.path().join("run");
    new_run(&folder, &["--epochs", "2", "--steps", "4", "--audits", "0"]);
    std::os::unix::fs::symlink(small.join("journal.redb"), folder.join("journal.redb")).unwrap();
    let mut crew = Crew::lead(&folder);
    crew.man(3);
    crew.wait_for(|notices| stepped(notices, 0, 0));
    let filler = small.join("filler");
    fill(&filler);
    crew.wait_for(|notices| waits(notices, "journal.redb") > 0);
    let asked = Instant::now();
    crew.ask_to_end("orchestrator");
    let (code, said) = crew.wait_for_exit("orchestrator");
    assert!(
        code == 2 && said.contains("the disk is full; make room, then start the orchestrator"),
        "{code}: {said}"
    );
    assert!(asked.elapsed() < Duration::from_secs(30), "it waited for {:?}", asked.elapsed());
    std::fs::remove_file(&filler).unwrap();
    crew.lead_again();
    assert!(!crew.wait_for_the_end().is_empty());
    drop(crew);
    drop(disk);
}
