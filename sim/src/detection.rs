//! How soon a miner is caught that lies in one inner step of each epoch, against the rate of audits.

use crate::{Options, Report, SimError};

/// Runs of which a lie was found within so many epochs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Within {
    /// Epochs with a lie.
    pub epochs: u32,
    /// Share of the runs in which it was found by then.
    pub found: f64,
    /// What follows from the rate: 1 - (1 - p)^epochs.
    pub expected: f64,
}

/// The share of audited windows among those that may be drawn, and how soon the lies of `reports` were found: runs of
/// the scenario `sparse` with the same options.
///
/// # Errors
/// Options that make no run.
pub fn detection(reports: &[Report], options: &Options) -> Result<(f64, Vec<Within>), SimError> {
    let (run, _) = crate::scenarios::small_run(options)?;
    let rate = run.audit_draws() as f64 / run.audit_candidates().len() as f64;
    let within = |epochs: u32| {
        let caught = |report: &&Report| !report.convicted.is_empty() && report.escaped < epochs;
        let found = reports.iter().filter(caught).count() as f64 / reports.len() as f64;
        Within { epochs, found, expected: 1.0 - (1.0 - rate).powi(epochs as i32) }
    };
    Ok((rate, (1..=options.epochs).map(within).collect()))
}
