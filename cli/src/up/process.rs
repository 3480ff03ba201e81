//! A child process that ends with its parent.

use crate::failure::{Failure, Result};
use std::fmt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Sets the size of a process's compute pool; the user's own setting stands.
const THREADS: &str = "RAYON_NUM_THREADS";

/// A role's process. Its standard input is a rope: when it is let go, even by a parent's death, the child
/// ends in good order.
pub struct Process {
    rope: Option<ChildStdin>,
    killer: Option<oneshot::Sender<()>>,
    waiter: JoinHandle<()>,
}

/// A child that ended.
pub struct Exited {
    /// Which.
    pub name: String,
    status: std::io::Result<ExitStatus>,
}

impl Exited {
    /// Whether it died of something that another try may not meet: no good end, and no refusal of its input.
    pub fn is_accident(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| !status.success() && status.code() != Some(2))
    }
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.status {
            Ok(status) => write!(f, "process {} ended ({status})", self.name),
            Err(error) => write!(f, "process {} cannot be followed ({error})", self.name),
        }
    }
}

impl Process {
    /// Starts this program again with other arguments, on so many compute threads; its standard error goes
    /// to `log`.
    pub fn start(
        name: &str,
        arguments: &[&str],
        threads: usize,
        log: &Path,
        exits: mpsc::Sender<Exited>,
    ) -> Result<(Self, ChildStdout)> {
        let failed = |e: std::io::Error| Failure::run(format!("{name} cannot be started: {e}"));
        let program = std::env::current_exe().map_err(failed)?;
        // Appended to, as the child's output is: the two never write over each other.
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true);
        if std::env::var_os(THREADS).is_none() {
            command.env(THREADS, threads.to_string());
        }
        // A Ctrl-C in the terminal is for the parent, which ends its children in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let rope = child.stdin.take();
        let output = child.stdout.take();
        let output = output.ok_or_else(|| Failure::run(format!("{name} has no output")))?;
        let name = name.to_owned();
        let (killer, killed) = oneshot::channel();
        let waiter = tokio::spawn(async move {
            let status = tokio::select! {
                status = child.wait() => status,
                // Without a killer's word the child is let go with its rope.
                Ok(()) = killed => {
                    let _ = child.start_kill();
                    child.wait().await
                }
            };
            let _ = exits.send(Exited { name, status }).await;
        });
        Ok((Self { rope, killer: Some(killer), waiter }, output))
    }

    /// Kills the child at once, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.killer.take().map(|killer| killer.send(()));
    }

    /// Lets the rope go and waits; kills the child if it does not end in time.
    pub async fn end(mut self, deadline: Duration) {
        drop(self.rope.take());
        if tokio::time::timeout(deadline, &mut self.waiter).await.is_err() {
            // Dropping the child kills it.
            self.waiter.abort();
        }
    }
}

/// Appends a child's output to its log.
pub fn to_log(mut output: ChildStdout, log: &Path) {
    let log = log.to_owned();
    tokio::spawn(async move {
        let Ok(file) = tokio::fs::OpenOptions::new().append(true).open(&log).await else { return };
        let mut file = tokio::io::BufWriter::new(file);
        let _ = tokio::io::copy(&mut output, &mut file).await;
        let _ = file.flush().await;
    });
}
