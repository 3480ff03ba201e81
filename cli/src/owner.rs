//! `iota invite`, `iota rollback`: what a run's owner does beside its orchestrator.

use crate::failure::{Failure, Result};
use crate::roles::runtime;
use crate::store::StoreArguments;
use orchestrator::{OwnerError, RunFolder, owner};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wire::{Role, Terms};

/// Longest time for which an invitation may hold: a century.
const EXPIRES_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[derive(clap::Args)]
pub struct InviteArguments {
    /// The run's folder
    run: PathBuf,
    /// Where nodes reach the orchestrator [default: where it listens, or did when it was last led]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// For this role alone [default: any]
    #[arg(long, value_name = "ROLE", value_parser = parse_role)]
    role: Option<Role>,
    /// How long newcomers may use it, such as 90m, 48h or 7d; who has a seat keeps it [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<Duration>,
}

#[derive(clap::Args)]
pub struct RollbackArguments {
    /// The run's folder; its orchestrator may be running or not
    run: PathBuf,
    /// Back to where this epoch opens [default: the newest that is stable]
    #[arg(long, value_name = "EPOCH")]
    to: Option<u32>,
    #[command(flatten)]
    store: StoreArguments,
}

pub fn invite(arguments: InviteArguments) -> Result<()> {
    let folder = RunFolder::open(&arguments.run).map_err(|error| Failure::input(error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires_s = arguments.expires.map(|time| (now + time).as_secs());
    let terms = Terms { role: arguments.role, expires_s };
    let invitation = owner::invite(&folder, arguments.address.as_deref(), terms).map_err(failure)?;
    println!("{invitation}");
    Ok(())
}

pub fn roll_back(arguments: RollbackArguments) -> Result<()> {
    let folder = RunFolder::open(&arguments.run).map_err(|error| Failure::input(error.to_string()))?;
    let store = async || {
        let loopback = ([127, 0, 0, 1], 0).into();
        let opened = arguments.store.open(&folder, loopback).await;
        let (server, store) = opened.map_err(|error| error.to_string())?;
        Ok::<_, String>((store, server))
    };
    let done = runtime()?.block_on(owner::roll_back(&folder, arguments.to, store)).map_err(failure)?;
    println!("{done}");
    Ok(())
}

fn failure(error: OwnerError) -> Failure {
    match error {
        OwnerError::Transport(_) | OwnerError::Silent | OwnerError::Store(_) => {
            Failure::run(error.to_string())
        }
        _ => Failure::input(error.to_string()),
    }
}

fn parse_role(text: &str) -> std::result::Result<Role, String> {
    match text {
        "miner" => Ok(Role::Miner),
        "validator" => Ok(Role::Validator),
        _ => Err("expected miner or validator".into()),
    }
}

/// A number with its unit: seconds, minutes, hours or days.
fn parse_time(text: &str) -> std::result::Result<Duration, String> {
    let expected = || "expected a number and s, m, h or d, such as 48h".to_owned();
    let unit = text.chars().next_back().ok_or_else(expected)?;
    let unit_s: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(expected()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| expected())?;
    let time = number.checked_mul(unit_s).map(Duration::from_secs);
    match time.filter(|time| !time.is_zero() && *time <= EXPIRES_MAX) {
        Some(time) => Ok(time),
        None => Err("expected 1s to 36500d".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_time;
    use std::time::Duration;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, seconds) in [("1s", 1), ("90m", 5400), ("48h", 172_800), ("7d", 604_800)] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "7", "-1h", "1.5h", "7w", "7\u{e9}", "0s", "36501d", "99999999999999999999d"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
