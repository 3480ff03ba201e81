//! What the arena says, against what was computed.

use crate::run;
use crate::support::scratch_folder;
use crate::testing::Pipeline;
use engine::memory::StageMemory;
use engine::state::Keeping;
use engine::{CudaDevice, Device};
use kernels::device::cache::ModuleCache;

/// A device whose account is this test's alone.
fn fresh() -> Option<CudaDevice> {
    crate::support::device()?;
    Some(CudaDevice::open_with_cache(0, ModuleCache::in_folder(scratch_folder("shared-modules"))).unwrap())
}

/// The account of real steps is the one that was computed, to the byte, and further steps reserve nothing.
#[test]
fn a_stage_reserves_what_was_computed_and_then_nothing() {
    let cuts =
        [(&[1, 1, 1][..], 0, 0), (&[1, 1, 1], 1, 0), (&[1, 1, 1], 2, 0), (&[2], 0, 0), (&[1, 1, 1], 1, 1)];
    for (cut, stage, staleness) in cuts {
        for keeping in
            [3, 1, 0].map(Keeping::Activations).into_iter().chain([Keeping::BlockInputs, Keeping::StageInput])
        {
            let Some(device) = fresh() else { return };
            let mut run = run(cut);
            run.inner.staleness = staleness;
            let mut chain = Pipeline::new(&run);
            let state = chain.stages.remove(stage).to_device(&Device::Cuda(device.clone())).unwrap();
            chain.stages.insert(stage, state);
            chain.stages[stage].keep(keeping);
            let at_rest = device.usage().in_use_bytes;
            // Where steps are stale it takes a window more until everything was met.
            drop(chain.steps_ahead(0, 0..2 + 2 * u32::from(staleness)));
            let (computed, usage) = (StageMemory::of(&run, stage, keeping).unwrap(), device.usage());
            let place = format!("{cut:?}, stage {stage}, who {keeping}");
            assert_eq!(usage.peak_bytes, computed.peak_bytes, "{place}");
            assert_eq!(usage.peak_reserved_bytes, computed.reserved_bytes, "{place}");
            // At rest there are the spare and, if any, the stash besides, which the first step made.
            let made = 4 * computed.parameters * (1 + u64::from(staleness));
            assert_eq!(usage.in_use_bytes, at_rest + made, "{place}");
            drop(chain.steps_ahead(1, 0..2));
            assert_eq!(device.usage(), usage, "{place}");
        }
    }
}
