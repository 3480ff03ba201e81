//! A full disk: how it shows, and how long it is waited for.

use std::io;
use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long a full disk is waited for, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(100);
const PAUSE: Duration = Duration::from_secs(1);

/// Whether something was not written for want of room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// A wait for room, from the first attempt that failed on.
pub(crate) struct Wait {
    until: Instant,
}

impl Wait {
    /// One that begins now.
    pub fn begin() -> Self {
        Self { until: Instant::now() + PATIENCE }
    }

    /// Waits until the next attempt is due; `false` where none is: it took too long, or the owner asked for the end.
    pub async fn goes_on(&self, stop: &mut watch::Receiver<bool>) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => false,
            () = sleep(PAUSE) => true,
        }
    }
}

/// A small disk of its own, for trials: not every process may mount one.
#[cfg(test)]
pub(crate) struct SmallDisk(tempfile::TempDir);

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a trial that cannot go on has failed
impl SmallDisk {
    /// Of 64 KiB; `None`, which is said, where this process may not.
    pub fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = command("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs"], place.path());
        if !mounted {
            println!("not run: this process may not mount a small disk");
        }
        mounted.then_some(Self(place))
    }

    pub fn path(&self, inside: &str) -> std::path::PathBuf {
        self.0.path().join(inside)
    }

    /// Leaves no room.
    pub fn fill(&self) {
        assert!(is_full(&std::fs::write(self.path("filler"), vec![7; 65 << 10]).unwrap_err()));
    }

    pub fn make_room(&self) {
        std::fs::remove_file(self.path("filler")).unwrap();
    }
}

#[cfg(test)]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        command("umount", &["--lazy"], self.0.path());
    }
}

#[cfg(test)]
fn command(name: &str, arguments: &[&str], place: &std::path::Path) -> bool {
    let command = std::process::Command::new(name).args(arguments).arg(place).output();
    command.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_has_an_end_and_a_stop_is_heard_at_once() {
        let (stop, mut stopped) = watch::channel(false);
        let (wait, began) = (Wait::begin(), Instant::now());
        assert!(wait.goes_on(&mut stopped).await);
        assert!(began.elapsed() >= PAUSE);
        let over = Wait { until: Instant::now() };
        assert!(!over.goes_on(&mut stopped).await, "it took too long");
        let began = Instant::now();
        let asking = async { stop.send(true).unwrap() };
        let (goes_on, ()) = tokio::join!(wait.goes_on(&mut stopped), asking);
        assert!(!goes_on && began.elapsed() < PAUSE);
        assert!(!Wait::begin().goes_on(&mut stopped).await, "it stays asked for");
    }
}
