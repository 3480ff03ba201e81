//! `iota orchestrator`, `iota miner`, `iota validator`: one role of a swarm.

use crate::evidence::pack_cases;
use crate::failure::{Failure, Result};
use crate::second::SecondParty;
use crate::store::StoreArguments;
use crate::witness::Witness;
use engine::Device;
use orchestrator::{Ending, Notice, Place, RunFolder};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::S3;
use tokio::sync::{oneshot, watch};
use wire::guest::GuestError;

/// Bytes/s of a Mbit/s.
const BYTES_OF_A_MBIT: u64 = 125_000;

#[derive(clap::Args)]
pub struct OrchestratorArguments {
    /// The run's folder, made by `iota run new`
    #[arg(long, value_name = "FOLDER")]
    run: PathBuf,
    /// Where nodes call (UDP); port 0 takes that of the last time, or any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(flatten)]
    store: StoreArguments,
    /// Where the embedded S3 server listens (TCP); port 0 takes that of the last time, or any free one
    #[arg(long, default_value = "127.0.0.1:0", conflicts_with = "store")]
    store_listen: SocketAddr,
    /// Host that invitations name, where it is not the listening address
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Validators that must be there before work begins
    #[arg(long, default_value_t = 1)]
    validators: u16,
    /// Miners of each stage that must be there before work begins, where not all that run.toml names are waited for; who
    /// comes later takes a free seat and works from the next epoch on
    #[arg(long, value_name = "MINERS", default_value_t = 0, hide_default_value = true)]
    start_with: u16,
    /// Seconds until a lost node must be back that nobody stands in for
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seat_grace: u64,
    /// Where the dashboard is served (TCP), or `off` [default: 127.0.0.1:4780, or any free port]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_dashboard)]
    dashboard: Option<Place>,
    /// Seconds until a miner must have revealed what an audit drew from it, besides what its bytes take at --slowest-uplink
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    reveal_within: u64,
    /// Slowest uplink of a miner that is waited for, in Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    slowest_uplink: u64,
    /// Once half of the lanes are through an epoch, the others have so much more of that time (at least 5 s) before they
    /// merge with the steps that they took; 0 waits for every lane to the end
    #[arg(long, value_name = "PERCENT", default_value_t = 50)]
    lane_patience: u16,
    /// Make other routes of the miners in every epoch, so that losses tell them apart
    #[arg(long)]
    mix_routes: bool,
    /// How tensors go from miner to miner
    #[arg(long, value_enum, default_value_t)]
    route: Route,
    /// One JSON object a line instead of sentences
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    life: Life,
}

/// How tensors go from miner to miner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Route {
    /// Through the orchestrator: miners learn no other miner's address
    #[default]
    Relay,
    /// Directly between miners that can reach each other, through the orchestrator between the others
    Direct,
}

impl Route {
    /// The word that names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Direct => "direct",
        }
    }
}

#[derive(clap::Args)]
pub struct MinerArguments {
    /// The invitation: iota://host:port/<orchestrator key>/<token>
    #[arg(long, value_name = "INVITATION")]
    join: String,
    /// This node's key file; made if missing
    #[arg(long, value_name = "FILE", default_value = "iota-miner.key")]
    key: PathBuf,
    #[command(flatten)]
    device: crate::device::Arguments,
    /// Where this node calls from, and its neighbours call in a run with direct routes (UDP) [default: any free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where neighbours reach it, up to four times [default: where the orchestrator sees it, and its own address]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_reach)]
    reach: Vec<SocketAddr>,
    /// Lie in this way, to see it caught
    #[arg(long, hide = true)]
    adversary: Option<miner::Adversary>,
    #[command(flatten)]
    life: Life,
}

#[derive(clap::Args)]
pub struct ValidatorArguments {
    /// The invitation: iota://host:port/<orchestrator key>/<token>
    #[arg(long, value_name = "INVITATION")]
    join: String,
    /// This node's key file; made if missing
    #[arg(long, value_name = "FILE", default_value = "iota-validator.key")]
    key: PathBuf,
    #[command(flatten)]
    device: crate::device::Arguments,
    /// Lie in this way, to see it found out
    #[arg(long, hide = true)]
    adversary: Option<validator::Adversary>,
    #[command(flatten)]
    life: Life,
}

/// When a role ends besides Ctrl-C.
#[derive(clap::Args)]
struct Life {
    /// End in good order when standard input closes: a parent's death ends its children
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

impl Life {
    /// Becomes true when the role is asked to end; in a runtime.
    fn watched(self) -> watch::Receiver<bool> {
        let (sender, over) = watch::channel(false);
        tokio::spawn(async move {
            self.over().await;
            // Nobody listens once the role has ended by itself.
            let _ = sender.send(true);
        });
        over
    }

    /// Completes when the role is asked to end.
    async fn over(self) {
        let interrupted = async {
            // Without a handler there is no Ctrl-C to wait for.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let closed = async {
            if !self.until_stdin_closes || stdin_closed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = interrupted => {}
            () = closed => {}
        }
    }
}

/// Told once standard input closes. A thread of its own reads it: the runtime waits for its own threads when it ends, and a
/// role that ends by itself must not wait for its parent to close a pipe.
fn stdin_closed() -> oneshot::Receiver<()> {
    let (closed, hears) = oneshot::channel();
    let reading = std::thread::Builder::new().name("stdin".into()).spawn(move || {
        // Whatever ends it, nobody holds the other end any more.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = closed.send(());
    });
    if let Err(error) = reading {
        tracing::warn!(%error, "nobody watches standard input");
    }
    hears
}

/// An address to serve the dashboard at, or `off`.
pub fn parse_dashboard(text: &str) -> std::result::Result<Place, String> {
    match text {
        "off" => Ok(Place::Nowhere),
        _ => text.parse().map(Place::At).map_err(|_| "expected ADDRESS:PORT or off".into()),
    }
}

/// An address that can be called.
fn parse_reach(text: &str) -> std::result::Result<SocketAddr, String> {
    let address = text.parse().ok().filter(wire::neighbours::is_callable);
    address.ok_or_else(|| "expected ADDRESS:PORT of one machine, such as 203.0.113.7:4701".into())
}

pub fn orchestrate(arguments: OrchestratorArguments) -> Result<()> {
    let folder = RunFolder::open(&arguments.run).map_err(input)?;
    let json = arguments.json;
    runtime()?.block_on(async move {
        let (server, store) = arguments.store.open(&folder, arguments.store_listen).await?;
        let options = orchestrator::Options {
            folder: folder.clone(),
            listen: arguments.listen,
            advertise: arguments.advertise,
            store: store.clone(),
            validators: arguments.validators,
            lanes_at_start: arguments.start_with,
            seat_grace: Duration::from_secs(arguments.seat_grace),
            dashboard: arguments.dashboard.unwrap_or_default(),
            reveal_within: Duration::from_secs(arguments.reveal_within),
            uplink_bytes_per_s: arguments.slowest_uplink * BYTES_OF_A_MBIT,
            lane_patience_percent: arguments.lane_patience,
            mixes_routes: arguments.mix_routes,
            direct: arguments.route == Route::Direct,
            judge: Arc::new(SecondParty { folder: folder.clone() }),
        };
        // Each case is packed as soon as it is kept: whoever doubts it need not wait for the end.
        let (kept, mut cases) = tokio::sync::mpsc::unbounded_channel();
        let packer = tokio::spawn({
            let (folder, store) = (folder.clone(), S3::new(store.clone()).map_err(input)?);
            async move {
                while let Some(()) = cases.recv().await {
                    // What cannot be packed now, on a full disk say, is tried again at the end.
                    if let Err(error) = pack_cases(&folder, &store).await {
                        tracing::warn!(%error, "a case is not packed yet");
                    }
                }
            }
        });
        let tell = move |notice: &Notice| {
            if let Notice::Report {
                report: orchestrator::Report::Convicted { evidence: Some(_), .. }, ..
            } = notice
            {
                // Who packs has ended only if it panicked, which is told at the end.
                let _ = kept.send(());
            }
            let line = if json { serde_json::to_string(notice).ok() } else { notice.sentence() };
            // A parent that no longer reads is about to close our input.
            let _ = line.map(|line| writeln!(std::io::stdout(), "{line}"));
        };
        let ending = orchestrator::run(options, arguments.life.over(), tell).await.map_err(input)?;
        // The sender went with `tell`.
        let packed = match packer.await {
            Ok(()) => pack_cases(&folder, &S3::new(store).map_err(input)?).await,
            Err(error) => Err(Failure::run(error.to_string())),
        };
        if let Some(server) = server {
            server.shutdown().await;
        }
        packed?;
        match ending {
            Ending::Complete => Ok(()),
            Ending::Stopped => Err(Failure::run("stopped as asked before the run was complete")),
            Ending::Failed { why } => Err(Failure::run(why)),
        }
    })
}

pub fn mine(arguments: MinerArguments) -> Result<()> {
    if arguments.reach.len() > wire::limits::ADDRESSES_MAX {
        let (found, most) = (arguments.reach.len(), wire::limits::ADDRESSES_MAX);
        return Err(Failure::input(format!("--reach is given {found} times, expected at most {most}")));
    }
    let invitation = arguments.join.parse().map_err(input)?;
    let key = transport::identity::load_or_create(&arguments.key).map_err(input)?;
    let state = arguments.key.with_extension("state");
    let mut device = arguments.device.open()?;
    let outcome = runtime()?.block_on(async {
        let over = arguments.life.watched();
        loop {
            let options = miner::Options {
                invitation: Clone::clone(&invitation),
                key: key.clone(),
                state: state.clone(),
                listen: arguments.listen,
                reach: arguments.reach.clone(),
                device: device.clone(),
                adversary: arguments.adversary,
                answerer: Arc::new(Witness),
            };
            let mut over = over.clone();
            // Whoever watched is gone only if the runtime is.
            let stop = async move { _ = over.wait_for(|over| *over).await };
            match miner::run(options, stop, say).await {
                Err(miner::MinerError::Device(why)) if arguments.device.falls_back_from(&device) => {
                    say(&format!("{why}; coming back to compute on the CPU instead"));
                    device = Device::Cpu;
                }
                outcome => break outcome,
            }
        }
    });
    outcome.map(|why| say(&why)).map_err(|error| match error {
        miner::MinerError::Join(_) => input(error),
        miner::MinerError::Ended(why) => ended(&why),
        _ => Failure::run(error.to_string()),
    })
}

pub fn validate(arguments: ValidatorArguments) -> Result<()> {
    let invitation = arguments.join.parse().map_err(input)?;
    let key = transport::identity::load_or_create(&arguments.key).map_err(input)?;
    let device = arguments.device.open()?;
    let falls_back = arguments.device.falls_back_from(&device);
    let options = validator::Options { invitation, key, device, falls_back, adversary: arguments.adversary };
    let outcome = runtime()?.block_on(validator::run(options, arguments.life.over(), say));
    outcome.map(|why| say(&why)).map_err(|error| match error {
        validator::ValidatorError::Join(_) => input(error),
        validator::ValidatorError::Ended(why) => ended(&why),
    })
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// How a node fails that came to its run: who is not let in for what it brings must bring something else.
fn ended(why: &GuestError) -> Failure {
    match why {
        GuestError::Refused(refusal) if refusal.is_of_what_it_brings() => input(why),
        _ => Failure::run(why.to_string()),
    }
}

fn input(error: impl std::fmt::Display) -> Failure {
    Failure::input(error.to_string())
}

/// A small runtime: it moves bytes, and compute has threads of its own.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::run(format!("the runtime cannot be started: {error}")))
}
