//! The device layer by itself.

use kernels::adamw;
use kernels::device::cache::{Key, ModuleCache};
use kernels::device::compile::Image;
use kernels::device::{CudaDevice, DeviceError, Grid, Source, compile};

use crate::support::{device, scratch_folder};

#[test]
fn the_device_says_who_it_is() {
    let Some(device) = device() else { return };
    let report = device.report().unwrap();
    assert!(!report.name.is_empty());
    assert_eq!(report.capability.0 * 10 + report.capability.1, device.capability());
    assert!(report.driver.0 >= 11, "{report:?}");
    assert_eq!(report.nvrtc, Some(compile::nvrtc_version().unwrap()));
    assert!(report.memory_bytes > 1 << 20, "{report:?}");
}

#[test]
fn a_device_that_is_not_there() {
    if device().is_none() {
        return;
    }
    let count = CudaDevice::count().unwrap();
    let error = CudaDevice::open(count).unwrap_err();
    assert!(
        matches!(error, DeviceError::NoSuchDevice { ordinal, count: c } if ordinal == count && c == count)
    );
}

#[test]
fn a_damaged_cache_entry_is_compiled_again() {
    let Some(device) = device() else { return };
    let folder = scratch_folder("damaged-modules");
    let _ = std::fs::remove_dir_all(&folder);
    let cache = ModuleCache::in_folder(&folder);
    let source = adamw::cuda::SOURCE;
    let target = compile::target_for(device.capability()).unwrap();
    let key = Key::new(&source.text(), &target, compile::nvrtc_version().unwrap());
    let path = cache.path(&key).unwrap();
    let open = || CudaDevice::open_with_cache(0, cache.clone()).unwrap();

    open().prepare(&source).unwrap();
    let first = std::fs::read(&path).unwrap();
    let mut damaged = first.clone();
    damaged[40] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    open().prepare(&source).unwrap();
    let second = std::fs::read(&path).unwrap();
    assert_ne!(second, damaged);
    let image = cache.get(&key).unwrap();
    assert_eq!(image.ptx, compile::compile(source.name, &source.text(), &target).unwrap().ptx);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "a partial file was left behind");
}

/// The entry in the cache is what is loaded: one that holds another kernel answers for the source.
#[test]
fn a_whole_cache_entry_is_taken() {
    let Some(device) = device() else { return };
    let folder = scratch_folder("taken-modules");
    let _ = std::fs::remove_dir_all(&folder);
    let cache = ModuleCache::in_folder(&folder);
    let asked = Source { name: "asked", pieces: &["extern \"C\" __global__ void asked() {}"] };
    let target = compile::target_for(device.capability()).unwrap();
    let other = compile::compile("other", "extern \"C\" __global__ void other() {}", &target).unwrap();
    cache.put(&Key::new(&asked.text(), &target, compile::nvrtc_version().unwrap()), &other);
    let device = CudaDevice::open_with_cache(0, cache).unwrap();
    assert!(device.launch(&asked, "other").is_ok());
    assert!(matches!(device.launch(&asked, "asked"), Err(DeviceError::NoSuchKernel { .. })));
}

/// Kernels of a compiler that is newer than the driver give way to the committed PTX.
#[test]
fn what_is_too_new_for_the_driver_is_replaced_by_the_committed() {
    let Some(device) = device() else { return };
    let folder = scratch_folder("future-modules");
    let _ = std::fs::remove_dir_all(&folder);
    let cache = ModuleCache::in_folder(&folder);
    let future = Image { ptx: ".version 99.9\n.target sm_75\n.address_size 64\n".to_owned(), cubin: vec![] };
    let target = compile::target_for(device.capability()).unwrap();
    let version = compile::nvrtc_version().unwrap();
    let asked = Source { name: "asked", pieces: &["extern \"C\" __global__ void asked() {}"] };
    for source in [&adamw::cuda::SOURCE, &asked] {
        cache.put(&Key::new(&source.text(), &target, version), &future);
    }
    let device = CudaDevice::open_with_cache(0, cache).unwrap();
    device.prepare(&adamw::cuda::SOURCE).unwrap();
    assert!(device.launch(&adamw::cuda::SOURCE, "adamw").is_ok());
    let error = device.prepare(&asked).unwrap_err();
    assert!(matches!(error, DeviceError::Driver { .. }), "{error}");
}

#[test]
fn a_source_that_does_not_compile_shows_the_compilers_words() {
    let Some(device) = device() else { return };
    let source =
        Source { name: "wrong", pieces: &["extern \"C\" __global__ void wrong() { undeclared(); }"] };
    let said = device.prepare(&source).unwrap_err().to_string();
    assert!(said.contains("wrong") && said.contains("undeclared") && said.contains("--fmad=false"), "{said}");
}

#[test]
fn arguments_that_are_not_the_kernels_are_refused() {
    let Some(device) = device() else { return };
    let source = Source {
        name: "two",
        pieces: &["extern \"C\" __global__ void two(float* x, unsigned n) { x[n] = 1.0f; }"],
    };
    let mut memory = device.upload(&[0.0f32; 2]).unwrap();
    let grid = Grid { x: 1, y: 1, threads: 1 };
    {
        let mut view = memory.view_mut();
        let launch = device.launch(&source, "two").unwrap().write(&mut view).f32(1.0);
        // SAFETY: nothing is launched, which is what is tested.
        let error = unsafe { launch.run(grid) }.unwrap_err();
        assert_eq!(error.to_string(), "kernel two takes (u64, u32), the launcher passes (u64, f32)");
    }
    {
        let mut view = memory.view_mut();
        let launch = device.launch(&source, "two").unwrap().write(&mut view).u32(1);
        // SAFETY: one thread writes the second of two elements.
        unsafe { launch.run(grid) }.unwrap();
    }
    assert_eq!(device.download(&memory.view()).unwrap(), [0.0, 1.0]);
}

#[test]
fn memory_of_no_size() {
    let Some(device) = device() else { return };
    let nothing = device.upload::<f32>(&[]).unwrap();
    assert_eq!(nothing.view().len(), 0);
    assert!(device.download(&nothing.view()).unwrap().is_empty());
}
