//! The PTX that lies in the repository is what the compiler makes of the sources, and serves where there is no compiler.

use std::path::Path;

use kernels::device::cache::{Key, ModuleCache};
use kernels::device::{SOURCES, committed, compile};

use crate::support::{compiler_present, scratch_folder};

/// Set by the command that writes the files.
const WRITE: &str = "IOTA_WRITE_PTX";

/// The version whose PTX is committed.
const NVRTC: (u32, u32) = (12, 9);

#[test]
fn every_source_has_ptx_of_its_own_text() {
    if std::env::var_os(WRITE).is_some() {
        return;
    }
    for source in SOURCES {
        let name = source.name;
        assert!(
            committed::image(source).is_some(),
            "kernels/ptx/{name}.ptx.gz is stale: cargo xtask nvrtc --ptx"
        );
    }
}

#[test]
fn the_committed_ptx_is_what_the_compiler_makes() {
    if !compiler_present() {
        return;
    }
    let version = compile::nvrtc_version().unwrap();
    if version != NVRTC {
        println!(
            "not run: freshness of the committed PTX: NVRTC is {version:?}, the files come from {NVRTC:?}"
        );
        return;
    }
    // What was compiled once from this text, by this version, is not compiled again.
    let cache = ModuleCache::in_folder(scratch_folder("virtual-modules"));
    for source in SOURCES {
        let key = Key::new(&source.text(), committed::TARGET, version);
        let compiled = || compile::compile(source.name, &source.text(), committed::TARGET).unwrap();
        let image = cache.get(&key).unwrap_or_else(compiled);
        cache.put(&key, &image);
        let ptx = image.ptx;
        if std::env::var_os(WRITE).is_some() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("ptx/{}.ptx.gz", source.name));
            std::fs::write(&file, committed::pack(source, &ptx).unwrap()).unwrap();
            println!("written: kernels/ptx/{}.ptx.gz", source.name);
        } else {
            let image = committed::image(source).map(|image| image.ptx);
            assert!(image.as_ref() == Some(&ptx), "{} is stale: cargo xtask nvrtc --ptx", source.name);
        }
    }
}
