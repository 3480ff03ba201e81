//! What the environment says about the device, read once.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::status::Status;
use crate::exec::launch::JUMP_LIMIT;

/// The device to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// Limits of the compute capability.
    pub model: Model,
    /// How many devices there are.
    pub devices: u32,
    /// Device memory in bytes.
    pub memory_bytes: u64,
    /// Whether kernels are checked.
    pub check: bool,
    /// How often a warp may jump back in one launch.
    pub jump_limit: u64,
    /// CUDA version that the driver claims to serve, 1000 * major + 10 * minor.
    pub driver: u32,
    /// What goes wrong on purpose.
    pub faults: Faults,
}

/// Faults to order: which allocation or launch, counted from 1; 0 for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// The allocation that finds the memory full.
    pub allocation: u64,
    /// The launch that is refused.
    pub launch: u64,
    /// The launch whose kernel touches what it must not: its error sticks.
    pub sticky: u64,
    /// The launch with which the device is gone for good.
    pub lost: u64,
}

/// Where counters go, if anywhere.
pub(super) fn counters_path() -> Option<&'static Path> {
    static READ: OnceLock<Option<PathBuf>> = OnceLock::new();
    READ.get_or_init(|| {
        env::var_os("IOTA_EMULATED_COUNTERS").filter(|path| !path.is_empty()).map(PathBuf::from)
    })
    .as_deref()
}

/// What differs between compute capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model {
    /// Compute capability such as 86.
    pub sm: u32,
    /// Shared memory a block may opt into, bytes.
    pub shared_per_block: u32,
    /// Shared memory of a multiprocessor, bytes.
    pub shared_per_sm: u32,
    pub threads_per_sm: u32,
    pub blocks_per_sm: u32,
}

const KIB: u32 = 1024;

#[rustfmt::skip]
const MODELS: &[Model] = &[
    Model { sm: 75, shared_per_block: 64 * KIB, shared_per_sm: 64 * KIB, threads_per_sm: 1024, blocks_per_sm: 16 },
    Model { sm: 80, shared_per_block: 163 * KIB, shared_per_sm: 164 * KIB, threads_per_sm: 2048, blocks_per_sm: 32 },
    Model { sm: 86, shared_per_block: 99 * KIB, shared_per_sm: 100 * KIB, threads_per_sm: 1536, blocks_per_sm: 16 },
    Model { sm: 89, shared_per_block: 99 * KIB, shared_per_sm: 100 * KIB, threads_per_sm: 1536, blocks_per_sm: 24 },
    Model { sm: 90, shared_per_block: 227 * KIB, shared_per_sm: 228 * KIB, threads_per_sm: 2048, blocks_per_sm: 32 },
    Model { sm: 100, shared_per_block: 227 * KIB, shared_per_sm: 228 * KIB, threads_per_sm: 2048, blocks_per_sm: 32 },
    Model { sm: 120, shared_per_block: 99 * KIB, shared_per_sm: 100 * KIB, threads_per_sm: 1536, blocks_per_sm: 24 },
];

/// The most devices of a machine.
const DEVICES_MAX: u32 = 16;

/// The settings, or why there are none.
pub(super) fn settings() -> Result<Settings, Status> {
    static READ: OnceLock<Result<Settings, String>> = OnceLock::new();
    match READ.get_or_init(|| read(|name| env::var(name).ok())) {
        Ok(settings) => Ok(*settings),
        Err(why) => {
            eprintln!("emulated GPU: {why}");
            Err(Status::InvalidValue)
        }
    }
}

fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let sm = variable("IOTA_EMULATED_SM").unwrap_or_else(|| "86".to_string());
    let model = MODELS.iter().find(|model| model.sm.to_string() == sm);
    let model = *model.ok_or_else(|| {
        let known: Vec<String> = MODELS.iter().map(|model| model.sm.to_string()).collect();
        format!("IOTA_EMULATED_SM is `{sm}`; known are {}", known.join(", "))
    })?;
    let devices = variable("IOTA_EMULATED_DEVICES").unwrap_or_else(|| "1".to_string());
    let devices = devices
        .parse()
        .ok()
        .filter(|count| *count <= DEVICES_MAX)
        .ok_or_else(|| format!("IOTA_EMULATED_DEVICES is `{devices}`; give 0 to {DEVICES_MAX}"))?;
    let mib = variable("IOTA_EMULATED_MEMORY_MIB").unwrap_or_else(|| "16384".to_string());
    let mib: u32 =
        mib.parse().map_err(|_| format!("IOTA_EMULATED_MEMORY_MIB is `{mib}`, not a number of MiB"))?;
    let check = match variable("IOTA_EMULATED_CHECK").as_deref() {
        None | Some("" | "0") => false,
        Some("1") => true,
        Some(other) => return Err(format!("IOTA_EMULATED_CHECK is `{other}`; give 1 or 0")),
    };
    let jump_limit = match variable("IOTA_EMULATED_JUMPS") {
        None => JUMP_LIMIT,
        Some(jumps) => jumps
            .parse()
            .map_err(|_| format!("IOTA_EMULATED_JUMPS is `{jumps}`, not a number of jumps back"))?,
    };
    let driver = driver_version(&variable("IOTA_EMULATED_DRIVER").unwrap_or_else(|| "12.9".to_string()))?;
    let faults = faults(&variable("IOTA_EMULATED_FAULTS").unwrap_or_default())?;
    Ok(Settings { model, devices, memory_bytes: u64::from(mib) << 20, check, jump_limit, driver, faults })
}

fn driver_version(text: &str) -> Result<u32, String> {
    let parts = text.split_once('.').map(|(major, minor)| (major.parse::<u32>(), minor.parse::<u32>()));
    match parts {
        Some((Ok(major @ 11..=99), Ok(minor @ 0..=9))) => Ok(1000 * major + 10 * minor),
        _ => Err(format!("IOTA_EMULATED_DRIVER is `{text}`; give a CUDA version such as 12.4")),
    }
}

fn faults(text: &str) -> Result<Faults, String> {
    let mut faults = Faults::default();
    for one in text.split(',').filter(|one| !one.is_empty()) {
        let wrong = || {
            format!(
                "IOTA_EMULATED_FAULTS has `{one}`; give allocation:N, launch:N, sticky:N or lost:N, with commas between"
            )
        };
        let (what, number) = one.split_once(':').ok_or_else(wrong)?;
        let place = match what {
            "allocation" => &mut faults.allocation,
            "launch" => &mut faults.launch,
            "sticky" => &mut faults.sticky,
            "lost" => &mut faults.lost,
            _ => return Err(wrong()),
        };
        *place = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_refusals() {
        let plain = read(|_| None).unwrap();
        assert_eq!((plain.model.sm, plain.memory_bytes, plain.check), (86, 16 << 30, false));
        let set = |name: &'static str, value: &'static str| {
            read(move |asked| (asked == name).then(|| value.to_string()))
        };
        assert_eq!(set("IOTA_EMULATED_SM", "120").unwrap().model.sm, 120);
        assert!(set("IOTA_EMULATED_SM", "61").unwrap_err().contains("61"));
        assert_eq!((plain.devices, set("IOTA_EMULATED_DEVICES", "0").unwrap().devices), (1, 0));
        assert!(set("IOTA_EMULATED_DEVICES", "17").unwrap_err().contains("0 to 16"));
        assert!(set("IOTA_EMULATED_CHECK", "1").unwrap().check);
        assert!(set("IOTA_EMULATED_CHECK", "yes").is_err());
        assert!(set("IOTA_EMULATED_MEMORY_MIB", "lots").is_err());
        assert_eq!(set("IOTA_EMULATED_JUMPS", "7").unwrap().jump_limit, 7);
        assert!(set("IOTA_EMULATED_JUMPS", "-1").is_err());
        assert_eq!((plain.driver, set("IOTA_EMULATED_DRIVER", "11.8").unwrap().driver), (12090, 11080));
        assert!(set("IOTA_EMULATED_DRIVER", "new").is_err());
        let faults = set("IOTA_EMULATED_FAULTS", "allocation:3,lost:1").unwrap().faults;
        assert_eq!(faults, Faults { allocation: 3, lost: 1, ..Faults::default() });
        assert!(set("IOTA_EMULATED_FAULTS", "allocation:0").is_err());
        assert!(set("IOTA_EMULATED_FAULTS", "fire:1").unwrap_err().contains("sticky:N"));
    }
}
