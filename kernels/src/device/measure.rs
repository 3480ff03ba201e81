//! How long the device takes, and what it could do at most.

use cudarc::driver::sys::CUdevice_attribute as Attribute;

use super::{CudaDevice, DeviceError};

/// What a device's clocks allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Floating-point operations in f32 per second, a fused multiply-add being two.
    pub flops_per_s: f64,
    /// Bytes of device memory per second.
    pub bytes_per_s: f64,
}

impl CudaDevice {
    /// Milliseconds that the device takes for what `work` queues, by events before and after it.
    ///
    /// # Errors
    /// Those of `work`; [`DeviceError::Driver`], also for a kernel that failed.
    pub fn time_ms(&self, work: impl FnOnce() -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
        let begin = self.event()?;
        work()?;
        let end = self.event()?;
        let (Some(begin), Some(end)) = (begin, end) else { return Ok(0.0) };
        let elapsed = begin.elapsed_ms(&end).map_err(DeviceError::driver("to time queued work"))?;
        Ok(f64::from(elapsed))
    }

    /// What the device could do at the highest clocks that it names.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] if the driver does not answer.
    pub fn peaks(&self) -> Result<Peaks, DeviceError> {
        let [clock_khz, memory_khz, bus_bits] = [
            Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE,
            Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE,
            Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH,
        ]
        .map(|attribute| self.attribute(attribute));
        let lanes = f64::from(lanes(self.capability()) * self.multiprocessors());
        Ok(Peaks {
            flops_per_s: 2.0 * lanes * 1e3 * f64::from(clock_khz?),
            // Memory moves twice in a clock.
            bytes_per_s: 2.0 * 1e3 * f64::from(memory_khz?) * f64::from(bus_bits?) / 8.0,
        })
    }
}

/// Fused multiply-adds of a multiprocessor in a clock.
fn lanes(capability: u32) -> u32 {
    if matches!(capability, 70..=80) { 64 } else { 128 }
}
