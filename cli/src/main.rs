//! One binary, `iota`: a whole swarm on this machine, or one role of it.

mod bench;
mod config;
mod corpus;
mod data;
mod device;
mod doctor;
mod eval;
mod evidence;
mod export;
mod failure;
mod judge;
mod ledger;
mod model;
mod narrow;
mod new;
mod owner;
mod peak;
mod plan;
mod roles;
mod screen;
mod second;
mod shards;
mod simulate;
mod store;
mod train;
mod up;
mod verify;
mod weights;
mod whole;
mod witness;

use clap::{Parser, Subcommand};
use failure::Result;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: kernels::allocator::LineAligned = kernels::allocator::LineAligned;

/// Pretrain a language model on a swarm of ordinary machines, every step of it verifiable to the bit.
#[derive(Parser)]
#[command(name = "iota", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a Llama on text in this process; stop and go on at any step, to the same bits
    Train(Box<train::Arguments>),
    /// Loss and bits per byte of a model on a text
    Eval(eval::EvalArguments),
    /// Text from a model
    Generate(eval::GenerateArguments),
    /// What this machine has, and whether its arithmetic keeps the contract
    Doctor(doctor::Arguments),
    /// A whole swarm on this machine: orchestrator with embedded S3, three stages of two miners, one validator
    Up(Box<up::Arguments>),
    /// Make a run: text to token shards, initial weights, keys, run.toml
    #[command(subcommand)]
    Run(RunCommand),
    /// Text to tokens
    #[command(subcommand)]
    Data(data::Command),
    /// A run's model as a Hugging Face directory or a GGUF file
    Export(export::Arguments),
    /// Lead a run: assign work, keep the store, sign manifests, draw audits
    Orchestrator(roles::OrchestratorArguments),
    /// Compute a stage of a run
    Miner(roles::MinerArguments),
    /// Replay samples of a run's work and compare every digest
    Validator(roles::ValidatorArguments),
    /// An invitation to a run: for any role and for ever, or for less
    Invite(owner::InviteArguments),
    /// Take a run back to where an earlier epoch opens, and on from there
    Rollback(owner::RollbackArguments),
    /// Check a claim alone, from a file
    #[command(subcommand)]
    Verify(verify::Command),
    /// From evidence of a window to evidence of one tile: the two sides exchange files
    #[command(subcommand)]
    Evidence(narrow::Command),
    /// Who is paid what for a run's work, and why
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Run every role's core in virtual time from a seed, under named checkers
    Sim(simulate::Arguments),
    /// What models cost on a fleet: stages, memory, tokens/s, what limits
    Plan(plan::Arguments),
    /// Time this machine's training
    #[command(subcommand)]
    Bench(bench::Command),
}

#[derive(Subcommand)]
enum RunCommand {
    /// Make a new run's folder
    New(new::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("iota: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Train(arguments) => train::run(*arguments),
        Command::Eval(arguments) => eval::eval(arguments),
        Command::Generate(arguments) => eval::write(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Up(arguments) => up::run(*arguments),
        Command::Run(RunCommand::New(arguments)) => new::run(arguments),
        Command::Data(command) => data::run(command),
        Command::Export(arguments) => export::run(arguments),
        Command::Orchestrator(arguments) => roles::orchestrate(arguments),
        Command::Miner(arguments) => roles::mine(arguments),
        Command::Validator(arguments) => roles::validate(arguments),
        Command::Invite(arguments) => owner::invite(arguments),
        Command::Rollback(arguments) => owner::roll_back(arguments),
        Command::Verify(command) => verify::run(command),
        Command::Evidence(command) => narrow::run(command),
        Command::Ledger(command) => ledger::run(command),
        Command::Sim(arguments) => simulate::run(arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Bench(command) => bench::run(command),
    }
}

/// The log goes to standard error; `IOTA_LOG` sets what is in it (default: warnings).
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("IOTA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
