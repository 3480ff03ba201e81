//! `--device`: where arithmetic runs, opened and judged before anything else begins.

use crate::failure::{Failure, Result};
use engine::{CudaDevice, Device, DeviceError};
use kernels::device::{library, trials};
use std::fmt;
use std::str::FromStr;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The machine's own cores.
    Cpu,
    /// A CUDA device by its number.
    Cuda(usize),
}

/// The choice of one process.
#[derive(clap::Args, Debug, Clone)]
pub struct Arguments {
    /// Compute on cpu, cuda (its first device) or cuda:N; shows in no bit of the result
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: Choice,
    /// Compute there if the device cannot be used, or is lost: cpu, the only such place
    #[arg(long, value_name = "DEVICE", value_parser = ["cpu"])]
    pub fallback: Option<String>,
}

/// The choices of a whole swarm on one machine.
#[derive(clap::Args, Debug, Clone)]
pub struct OfSwarm {
    /// Where miners compute: cpu, cuda or cuda:N. Several, with commas between, are taken in turn by the miners of a stage
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', default_value = "cpu")]
    device: Vec<Choice>,
    /// Compute there where a device cannot be used, or is lost: cpu, the only such place
    #[arg(long, value_name = "DEVICE", value_parser = ["cpu"])]
    fallback: Option<String>,
    /// Where the validator computes [default: the first of --device]
    #[arg(long, value_name = "DEVICE")]
    validator_device: Option<Choice>,
}

impl OfSwarm {
    /// Opens every device once, before a process is started on it; what was compiled is in the cache then.
    ///
    /// # Errors
    /// As [`Arguments::open`].
    pub fn check(&self) -> Result<()> {
        let mut seen = Vec::new();
        for device in self.device.iter().copied().chain(self.validator_device) {
            if !seen.contains(&device) {
                Arguments { device, fallback: self.fallback.clone() }.open()?;
                seen.push(device);
            }
        }
        Ok(())
    }

    /// Whether nobody computes anywhere else.
    pub fn all_on_cpu(&self) -> bool {
        self.device.iter().chain(&self.validator_device).all(|&device| device == Choice::Cpu)
    }

    /// Where miner `lane` of a stage computes.
    pub fn of_miner(&self, lane: usize) -> Choice {
        self.device.get(lane % self.device.len().max(1)).copied().unwrap_or(Choice::Cpu)
    }

    /// Where they compute instead, if that was asked for.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Where the validator computes.
    pub fn of_validator(&self) -> Choice {
        self.validator_device.unwrap_or_else(|| self.of_miner(0))
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let refused = || format!("expected cpu, cuda or cuda:N such as cuda:1, found {text:?}");
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", ordinal)) => ordinal.parse().map(Self::Cuda).map_err(|_| refused()),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl Arguments {
    /// Whether the CPU takes the place of `device` when it is lost.
    pub fn falls_back_from(&self, device: &Device) -> bool {
        self.fallback.is_some() && matches!(device, Device::Cuda(_))
    }

    /// The device, after it has shown that it keeps the arithmetic; the CPU if it cannot be used and that was asked for.
    ///
    /// # Errors
    /// One sentence: no driver, no kernels that it could load, no such device, or one that deviates.
    pub fn open(&self) -> Result<Device> {
        let Choice::Cuda(ordinal) = self.device else { return Ok(Device::Cpu) };
        match open(ordinal) {
            Ok(device) => Ok(Device::Cuda(device)),
            Err(why) if self.fallback.is_some() => {
                eprintln!("--device {}: {why}; computing on the CPU instead", self.device);
                Ok(Device::Cpu)
            }
            Err(why) => Err(Failure::input(format!("--device {}: {why}", self.device))),
        }
    }
}

fn open(ordinal: usize) -> std::result::Result<CudaDevice, String> {
    let said = |error: DeviceError| error.to_string();
    let device = CudaDevice::open(ordinal).map_err(said)?;
    device.prepare_all().map_err(said)?;
    if let Err(why) = library::require_nvrtc() {
        eprintln!(
            "cuda:{ordinal}: {why}; going on with the kernels that iota carries, which are not made for this device alone"
        );
    }
    let deviations = trials::deviations(&device)?;
    match deviations.first() {
        None => Ok(device),
        Some(first) => Err(format!("{first}; choose another, or run with --device cpu")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written() {
        for (text, choice) in [("cpu", Choice::Cpu), ("cuda:0", Choice::Cuda(0)), ("cuda:7", Choice::Cuda(7))]
        {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "cuda:1:2"] {
            assert!(text.parse::<Choice>().unwrap_err().contains("expected cpu, cuda or cuda:N"), "{text}");
        }
    }
}
