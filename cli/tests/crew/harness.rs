//! An orchestrator, miners and a validator as processes of their own, followed by the orchestrator's notices.

use orchestrator::{Ending, Notice, Report};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// No trial waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The processes of one run.
pub struct Crew {
    pub folder: PathBuf,
    pub notices: Vec<Notice>,
    processes: BTreeMap<String, Child>,
    stream: Receiver<Notice>,
    invitation: String,
    kernel_cache: Option<PathBuf>,
    /// Further arguments and environment of the orchestrator.
    led_with: (Vec<String>, Vec<(String, String)>),
    /// What a stand-in driver is told to do wrong in the process of this name.
    pub faults: Option<(String, String)>,
}

/// A small swarm over bytes.
const SMALL: [&str; 4] =
    ["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/swarm.toml"), "--tokenizer", "bytes"];

/// One of half the work.
pub const LIGHT: [&str; 4] =
    ["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/light.toml"), "--tokenizer", "bytes"];

/// Makes a run's folder by `iota run new`.
pub fn new_run(folder: &Path, arguments: &[&str]) {
    new_run_of(&SMALL, folder, arguments);
}

/// As [`new_run`], of another kind than the small one.
pub fn new_run_of(kind: &[&str], folder: &Path, arguments: &[&str]) {
    let text = folder.with_extension("txt");
    let words = ["the", "house", "of", "a", "miner", "stands", "near", "river", "and", "every", "night"];
    let written: String =
        (0..40_000u64).map(|i| words[(i * i % 37 % 11) as usize].to_owned() + " ").collect();
    std::fs::write(&text, written).unwrap();
    let status = iota()
        .args(["run", "new", "--folder", &folder.to_string_lossy(), "--text", &text.to_string_lossy()])
        .args(kind)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

fn iota() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iota"));
    command.env("RAYON_NUM_THREADS", "1");
    command
}

impl Crew {
    /// Leads the run in `folder`; nobody else is there yet.
    pub fn lead(folder: &Path) -> Self {
        Self::lead_with(folder, &[], &[])
    }

    /// The same, the orchestrator with further arguments and environment.
    pub fn lead_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let (_, stream) = channel();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        let mut crew = Self {
            folder: folder.into(),
            notices: Vec::new(),
            processes: BTreeMap::new(),
            stream,
            invitation: String::new(),
            kernel_cache: None,
            led_with: (arguments.collect(), environment.collect()),
            faults: None,
        };
        crew.start_orchestrator();
        crew
    }

    /// Starts `miners` miners, one after another so that miner k has the same seat in every run, and a validator.
    pub fn man(&mut self, miners: usize) {
        self.man_with(miners, |_| vec![]);
    }

    /// As [`Crew::man`], everybody with the options about devices that `options` says; compiled kernels are kept in `cache`.
    pub fn man_on(&mut self, miners: usize, options: impl Fn(&str) -> &'static [&'static str], cache: &Path) {
        self.kernel_cache = Some(cache.into());
        self.man_with(miners, |name| options(name).iter().map(|option| (*option).into()).collect());
    }

    /// As [`Crew::man`], everybody with the further arguments that `more` says.
    pub fn man_with(&mut self, miners: usize, more: impl Fn(&str) -> Vec<String>) {
        for index in 0..miners {
            let name = format!("miner-{index}");
            self.start("miner", &name, &more(&name));
            self.wait_for(|notices| joined(notices) > index);
        }
        self.start("validator", "validator", &more("validator"));
    }

    /// Starts (again) a miner or the validator.
    pub fn start_node(&mut self, role: &str, name: &str) {
        self.start(role, name, &[]);
    }

    fn start(&mut self, role: &str, name: &str, more: &[String]) {
        let key = self.folder.join("keys").join(format!("{name}.key"));
        let log = self.folder.join("logs").join(format!("{name}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = iota()
            .args([role, "--join", &self.invitation, "--key", &key.to_string_lossy(), "--until-stdin-closes"])
            .args(more)
            .envs(self.kernel_cache.iter().map(|folder| ("IOTA_KERNEL_CACHE", folder)))
            .envs(
                self.faults
                    .iter()
                    .filter(|(of, _)| of == name)
                    .map(|(_, what)| ("IOTA_EMULATED_FAULTS", what)),
            )
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.processes.insert(name.into(), child);
    }

    /// The secret part of the invitation.
    pub fn token(&self) -> &str {
        self.invitation.rsplit('/').next().unwrap()
    }

    /// Runs iota as the run's owner: its exit code, and what it said.
    pub fn own(&self, command: &str, more: &[&str]) -> (i32, String) {
        let folder = self.folder.to_string_lossy();
        let output = iota().args([command, &folder]).args(more).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// Whoever is started from now on comes with this invitation.
    pub fn invite_with(&mut self, invitation: String) {
        self.invitation = invitation;
    }

    /// Waits until any of the processes has said this.
    pub fn wait_for_word(&self, word: &str) {
        let began = Instant::now();
        let said = |path: PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.contains(word));
        while !self.folder.join("logs").read_dir().unwrap().any(|entry| said(entry.unwrap().path())) {
            assert!(began.elapsed() < DEADLINE, "nobody says `{word}`; {}", self.logs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a process ends by itself: its exit code, and the last line that it said.
    pub fn wait_for_exit(&mut self, name: &str) -> (i32, String) {
        let mut child = self.processes.remove(name).unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < DEADLINE, "{name} does not end; {}", self.logs());
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = std::fs::read_to_string(self.folder.join("logs").join(format!("{name}.log"))).unwrap();
        (status.code().unwrap_or(-1), said.lines().last().unwrap_or_default().to_owned())
    }

    /// Asks a process to end in good order, as Ctrl-C does.
    pub fn ask_to_end(&mut self, name: &str) {
        drop(self.processes.get_mut(name).unwrap().stdin.take());
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) {
        let mut child = self.processes.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts the orchestrator again; it knows where it was.
    pub fn lead_again(&mut self) {
        self.start_orchestrator();
    }

    fn start_orchestrator(&mut self) {
        let log = self.folder.join("logs/orchestrator.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut child = iota()
            .args(["orchestrator", "--run", &self.folder.to_string_lossy(), "--json"])
            .arg("--until-stdin-closes")
            // Held against one process, in which no lane is slow, however busy this machine is.
            .args(["--lane-patience", "0"])
            .args(&self.led_with.0)
            .envs(self.led_with.1.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        self.processes.insert("orchestrator".into(), child);
        let (sender, stream) = channel();
        std::thread::spawn(move || {
            let notices = output.lines().map_while(Result::ok);
            let notices = notices.filter_map(|line| serde_json::from_str(&line).ok());
            notices.take_while(|notice: &Notice| sender.send(notice.clone()).is_ok()).for_each(drop);
        });
        self.stream = stream;
        let seen = self.notices.len();
        self.wait_for(|notices| notices[seen..].iter().any(|n| matches!(n, Notice::Listening { .. })));
        for notice in &self.notices[seen..] {
            if let Notice::Listening { invitation, .. } = notice {
                self.invitation.clone_from(invitation);
            }
        }
    }

    /// Waits until the notices so far are as wanted.
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&[Notice]) -> bool) {
        let began = Instant::now();
        while !wanted(&self.notices) {
            let left = DEADLINE.saturating_sub(began.elapsed());
            match self.stream.recv_timeout(left) {
                Ok(notice) => self.notices.push(notice),
                Err(error) => {
                    let said: Vec<String> = self.notices.iter().filter_map(Notice::sentence).collect();
                    panic!(
                        "{error} after {:?}; said so far:\n{}\n{}",
                        began.elapsed(),
                        said.join("\n"),
                        self.logs()
                    );
                }
            }
        }
    }

    /// Waits until the run has ended; the digests of its manifests.
    pub fn wait_for_the_end(&mut self) -> Vec<String> {
        self.wait_for(|notices| notices.iter().any(|notice| matches!(notice, Notice::Ended { .. })));
        let ending = self.notices.iter().find_map(|notice| match notice {
            Notice::Ended { ending } => Some(ending.clone()),
            _ => None,
        });
        assert_eq!(ending, Some(Ending::Complete), "{}", self.logs());
        let committed = |report: &Report| match report {
            Report::Committed { manifest, .. } => Some(manifest.to_string()),
            _ => None,
        };
        self.reports().filter_map(committed).collect()
    }

    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.notices.iter().filter_map(|notice| match notice {
            Notice::Report { report, .. } => Some(report),
            _ => None,
        })
    }

    /// Tokens of the inner steps that count.
    pub fn tokens(&self) -> u64 {
        let (mut epochs, mut open) = (0, 0);
        for report in self.reports() {
            match report {
                Report::Stepped { tokens, .. } => open += tokens,
                Report::Rewound { .. } => open = 0,
                Report::Committed { .. } => epochs += std::mem::take(&mut open),
                _ => {}
            }
        }
        epochs
    }

    /// What a process has said so far.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("logs/{name}.log"))).unwrap_or_default()
    }

    fn logs(&self) -> String {
        let logs = self.folder.join("logs").read_dir().unwrap().flatten();
        let tail = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(4).collect();
            format!("{}: {}", path.display(), last.into_iter().rev().collect::<Vec<_>>().join(" | "))
        };
        logs.map(|entry| tail(entry.path())).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            // One that has ended cannot be killed, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn joined(notices: &[Notice]) -> usize {
    let seated = |notice: &&Notice| {
        matches!(notice, Notice::Report { report: Report::Joined { stage: Some(_), .. }, .. })
    };
    notices.iter().filter(seated).count()
}

/// Whether an inner step of at least this number was taken in this epoch.
pub fn stepped(notices: &[Notice], epoch: u32, step: u32) -> bool {
    let taken = |notice: &Notice| {
        matches!(notice, Notice::Report { report: Report::Stepped { epoch: e, step: s, .. }, .. }
            if (*e, *s) >= (epoch, step))
    };
    notices.iter().any(taken)
}
