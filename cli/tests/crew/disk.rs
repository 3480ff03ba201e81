//! A disk with no room left under everything that a run writes: journal, store, snapshots.

use crate::harness::{Crew, new_run, stepped};
use orchestrator::{Journal, Notice, Report};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    crew.wait_for(|notices| {
        let is_full = |notice: &Notice| {
            matches!(notice, Notice::Report { report: Report::Note { text }, .. } if text.contains("disk is full"))
        };
        notices.iter().any(is_full)
    });
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(crew.wait_for_the_end().len(), 3);
    crew.wait_for_exit("orchestrator");
    // Nothing is missing or written in half: the chain over the entries holds.
    let (_, entries) = Journal::open(&folder.join("journal.redb")).unwrap();
    assert!(!entries.is_empty());
    drop(crew);
    drop(disk);
}
