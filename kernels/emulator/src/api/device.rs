//! The devices, one unless the environment says otherwise, all alike.

use std::ffi::{c_char, c_int};

use super::settings::{Settings, settings};
use super::state::ready;
use super::status::Status;
use super::{driver_calls, give};

/// Multiprocessors. Few, so that a launch sized by their number stays small; no arithmetic may depend on it.
pub(super) const MULTIPROCESSORS: u32 = 16;
/// Threads of a block.
pub(super) const MAX_THREADS: u32 = 1024;
/// Shared memory of a block that has not opted into more, bytes.
pub(super) const SHARED_BYTES: u32 = 48 << 10;

driver_calls! {
    /// How many devices there are.
    fn cuDeviceGetCount(count: *mut c_int) {
        let settings = ready()?;
        // SAFETY: the contract of every call here.
        unsafe { give(count, settings.devices as c_int) }
    }

    /// The device of a number.
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        ready()?;
        exists(ordinal)?;
        // SAFETY: the contract of every call here.
        unsafe { give(device, ordinal) }
    }

    /// The device's name, which says what it is.
    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) {
        let settings = ready()?;
        exists(device)?;
        let words = format!("iota emulated GPU (sm_{})", settings.model.sm);
        let room = usize::try_from(length).ok().and_then(|length| length.checked_sub(1));
        let room = room.filter(|_| !name.is_null()).ok_or(Status::InvalidValue)?;
        let kept = words.len().min(room);
        // SAFETY: the contract of every call here; one byte more than `room` was offered.
        unsafe {
            std::ptr::copy_nonoverlapping(words.as_ptr(), name.cast(), kept);
            name.add(kept).write(0);
        }
        Ok(())
    }

    /// An identifier that says the same on every machine, but for the device's number.
    fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) {
        exists(device)?;
        // SAFETY: the contract of every call here.
        unsafe { give(uuid, identifier(device)) }
    }

    /// As `cuDeviceGetUuid`.
    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) {
        exists(device)?;
        // SAFETY: the contract of every call here.
        unsafe { give(uuid, identifier(device)) }
    }

    /// Device memory in bytes.
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        let settings = ready()?;
        exists(device)?;
        // SAFETY: the contract of every call here.
        unsafe { give(bytes, settings.memory_bytes as usize) }
    }

    /// Major and minor compute capability.
    fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, device: c_int) {
        let settings = ready()?;
        exists(device)?;
        // SAFETY: the contract of every call here.
        unsafe {
            give(major, settings.model.sm as c_int / 10)?;
            give(minor, settings.model.sm as c_int % 10)
        }
    }

    /// An attribute by number; features this device lacks are 0.
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) {
        let settings = ready()?;
        exists(device)?;
        let found = attribute_value(attribute, &settings).ok_or(Status::InvalidValue)?;
        // SAFETY: the contract of every call here.
        unsafe { give(value, found as c_int) }
    }
}

/// Refuses the numbers that no device has.
pub(super) fn exists(device: c_int) -> Result<(), Status> {
    let exists = u32::try_from(device).is_ok_and(|device| device < settings().map_or(0, |s| s.devices));
    if exists { Ok(()) } else { Err(Status::InvalidDevice) }
}

fn identifier(device: c_int) -> [u8; 16] {
    let mut identifier = *b"iota-emulated-00";
    identifier[15] += device as u8;
    identifier
}

/// The largest `CUdevice_attribute` any version of the header lists.
const LAST_ATTRIBUTE: c_int = 160;

fn attribute_value(attribute: c_int, settings: &Settings) -> Option<u32> {
    let model = &settings.model;
    Some(match attribute {
        1..=3 => MAX_THREADS,
        4 => 64,
        5 => i32::MAX as u32,
        6 | 7 => 65535,
        8 => SHARED_BYTES,
        9 => 64 << 10,
        10 => 32,
        11 => i32::MAX as u32,
        12 | 82 => 65536,
        13 => 1_000_000,
        14 => 512,
        16 => MULTIPROCESSORS,
        // Overlap of copies and kernels, concurrent kernels, a copy engine, unified addresses, priorities.
        15 | 19 | 31 | 40 | 41 | 78 => 1,
        36 => 1_000_000,
        37 => 256,
        38 => 4 << 20,
        39 => model.threads_per_sm,
        75 => model.sm / 10,
        76 => model.sm % 10,
        81 => model.shared_per_sm,
        97 => model.shared_per_block,
        106 => model.blocks_per_sm,
        111 => {
            if model.sm >= 80 {
                1 << 10
            } else {
                0
            }
        }
        // Stream-ordered allocation.
        115 => 1,
        17..=LAST_ATTRIBUTE => 0,
        _ => return None,
    })
}
