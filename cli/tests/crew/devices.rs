//! Roles that compute on a CUDA device: the manifests of the CPU, audits across kinds of device, and every device that
//! cannot be used, in one sentence.
//!
//! Needs libcuda and NVRTC on the library path (`cargo xtask test` sees to it); without them `not run: …` is printed.

use crate::harness::{Crew, new_run, new_run_of};
use crate::replicas::{in_one_process, make_keys};
use crate::support::{Place, TINY, only};
use kernels::device::cache::{Key, ModuleCache};
use kernels::device::{CudaDevice, SOURCES, compile, library};
use orchestrator::{Notice, Report};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether there is a device to compute on; says why if not.
fn device_present() -> bool {
    let found = library::require_nvrtc().and_then(|()| CudaDevice::count());
    found.map_err(|error| println!("not run: {error}")).is_ok()
}

/// Where compiled kernels are kept between trials, those of other crates too.
fn kernel_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("shared-modules")
}

fn iota(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iota"));
    command.args(arguments).env("IOTA_KERNEL_CACHE", kernel_cache());
    command
}

/// Exit code, and what was said.
fn outcome(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// A swarm on devices, judged by a validator on the CPU, commits what the same swarm on the CPU does, routes mixed and all.
#[test]
fn up_on_a_device_commits_the_manifests_of_the_cpu() {
    if !device_present() {
        return;
    }
    let place = Place::new(TINY);
    let text = place.path("text.txt");
    let up = |runs: &str, more: &[&str]| {
        let runs = place.path(runs);
        let mut command =
            iota(&["up", "--preset", "tiny", "--steps", "4", "--epochs", "2", "--dashboard", "off"]);
        command.arg("--text").arg(&text).arg("--runs").arg(&runs).args(more);
        let (code, said) = outcome(&mut command);
        // Eight steps may be too few for a loss that falls, and `up` says so at the end of a run that is complete.
        assert!(code == 0 || said.contains("the run is complete but its loss did not fall"), "{said}");
        assert!(said.contains("windows replayed, every digest equal"), "{said}");
        let folder = only(&runs);
        let summary = std::fs::read_to_string(folder.join("summary.json")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["commits"].as_array().unwrap().len(), 2);
        (summary["commits"].clone(), folder.join("keys").to_string_lossy().into_owned())
    };
    let (on_cpu, keys) = up("cpu", &[]);
    let (on_device, _) = up("device", &["--device", "cuda", "--validator-device", "cpu", "--keys", &keys]);
    assert_eq!(on_device, on_cpu);
    let (others, _) = up("others", &[]);
    assert_ne!(others, on_cpu, "manifests name the miners, so other keys make others");
}

/// In every stage one miner on the CPU and one on a device, judged by a validator on a device.
#[test]
fn a_swarm_of_both_kinds_is_the_run_in_one_process() {
    if !device_present() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    new_run(&folder, &["--steps", "2", "--epochs", "1", "--miners-per-stage", "2"]);
    make_keys(&folder, 6);
    let mut crew = Crew::lead(&folder);
    let cache = kernel_cache();
    crew.man_on(
        6,
        |name| match name {
            "miner-0" | "miner-1" | "miner-2" => &["--device", "cpu"],
            _ => &["--device", "cuda"],
        },
        &cache,
    );
    assert_eq!(crew.wait_for_the_end(), in_one_process(&folder));
}

/// How often a process launches kernels before it has anything to compute: to see that the device keeps the arithmetic.
fn launches_of_opening() -> usize {
    let place = tempfile::tempdir().unwrap();
    let counters = place.path().join("counters");
    let (code, said) = outcome(train_on("cuda").env("IOTA_EMULATED_COUNTERS", &counters));
    assert!(code == 2 && said.contains("none.txt"), "{said}");
    std::fs::read_to_string(counters).unwrap().lines().count()
}

/// A device that is lost in the middle of a step: its miner says so and leaves, the other of its stage does its work, and
/// it comes back on the CPU, as it was asked to.
#[test]
fn a_device_lost_in_the_middle_of_a_step_loses_no_work() {
    if !device_present() || !CudaDevice::open(0).unwrap().report().unwrap().name.contains("emulated") {
        println!("not run: a lost device: a real one is not lost when it is told to");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    let sizes = ["--steps", "8", "--epochs", "2", "--miners-per-stage", "2"];
    new_run_of(&["--preset", "tiny"], &folder, &sizes);
    make_keys(&folder, 6);
    let mut crew = Crew::lead(&folder);
    let victim = "miner-4";
    let id = transport::identity::load(&folder.join(format!("keys/{victim}.key"))).unwrap().id();
    // A body's microbatch of one block takes more than twenty launches there and back.
    crew.faults = Some((victim.into(), format!("lost:{}", launches_of_opening() + 100)));
    crew.man_on(
        6,
        |name| match name {
            "miner-4" => &["--device", "cuda", "--fallback", "cpu"],
            _ => &["--device", "cpu"],
        },
        &kernel_cache(),
    );
    assert_eq!(crew.wait_for_the_end().len(), 2);
    let reissued = |report: &Report| matches!(report, Report::Reissued { from, .. } if *from == id);
    assert!(crew.reports().any(reissued), "its work did not go to the other of its stage");
    let seated =
        |report: &&Report| matches!(report, Report::Joined { node, stage: Some(1), .. } if *node == id);
    assert_eq!(crew.reports().filter(seated).count(), 2, "it did not come back");
    let said = crew.log(victim);
    for part in ["CUDA_ERROR_DEVICE_UNAVAILABLE", "coming back to compute on the CPU instead"] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    let lost =
        crew.notices.iter().filter_map(Notice::sentence).find(|said| said.contains("DEVICE_UNAVAILABLE"));
    assert!(lost.is_some(), "the swarm did not hear why it left");
}

#[test]
fn training_on_a_device_leaves_the_checkpoints_of_the_cpu() {
    if !device_present() {
        return;
    }
    let place = Place::new(TINY);
    let train = |runs: &str, more: &[&str], path: Option<&OsString>| {
        let arguments = ["train", "--config", "c.toml", "--text", "text.txt", "--steps", "6", "--runs", runs];
        let mut command = iota(&arguments);
        if let Some(path) = path {
            command.env("LD_LIBRARY_PATH", path).env_remove("IOTA_NVRTC");
        }
        let (code, said) = outcome(command.args(more).current_dir(place.folder.path()));
        assert_eq!(code, 0, "{said}");
        let run = only(&place.path(runs));
        let state =
            |n: usize| std::fs::read(run.join(format!("checkpoints/step-00000006/state-{n}.safetensors")));
        (state(0).unwrap(), state(1).unwrap(), std::fs::read(run.join("sample.txt")).unwrap())
    };
    let here = train("cpu", &[], None);
    assert!(here == train("cuda", &["--device", "cuda"], None));
    // Without a compiler the kernels that iota carries serve, as far as the driver is new enough for them.
    let path = without_compiler();
    assert!(here == train("carried", &["--device", "cuda"], Some(&path)));
    if CudaDevice::open(0).unwrap().report().unwrap().name.contains("emulated") {
        let mut command = train_on("cuda");
        command.env("LD_LIBRARY_PATH", &path).env_remove("IOTA_NVRTC").env("IOTA_EMULATED_DRIVER", "12.4");
        let reasons =
            ["compiled here, the CUDA ", "from the PTX that iota carries", "UNSUPPORTED_PTX_VERSION"];
        let said = refused(&mut command, &reasons).unwrap();
        if !said.contains("compiled here, the CUDA compiler NVRTC was not found") {
            println!(
                "not run: a device without a compiler: this machine finds NVRTC without the library path"
            );
        }
    }
}

/// One sentence and code 2; `None` where this machine has what the trial takes away.
fn refused(command: &mut Command, parts: &[&str]) -> Option<String> {
    let (code, said) = outcome(command);
    if said.contains("none.txt") {
        println!("not run: this machine finds its CUDA libraries without the library path");
        return None;
    }
    // What the stand-in driver says of itself is not the product's.
    let lines = said.lines().filter(|line| !line.starts_with("emulated GPU:")).count();
    assert_eq!((code, lines), (2, 1), "{said}");
    for part in parts {
        assert!(said.contains(part), "`{said}` does not say `{part}`");
    }
    Some(said)
}

const TRAIN: [&str; 4] = ["train", "--text", "none.txt", "--device"];

fn train_on(device: &str) -> Command {
    let mut command = iota(&TRAIN);
    command.arg(device);
    command
}

#[test]
fn without_a_driver_there_is_no_device() {
    let parts =
        ["iota: --device cuda:0: the CUDA driver was not found; looked for libcuda.so.1", "run on the CPU"];
    refused(train_on("cuda").env_remove("LD_LIBRARY_PATH"), &parts);
    // In every command that takes a device, before anything is made.
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().join("runs");
    let mut up =
        iota(&["up", "--text", "none.txt", "--device", "cpu,cuda", "--runs", &runs.to_string_lossy()]);
    if refused(up.env_remove("LD_LIBRARY_PATH"), &parts).is_some() {
        assert!(!runs.exists());
        // Asked to, it goes on on the CPU, as far as there is a text.
        let (code, said) =
            outcome(train_on("cuda").args(["--fallback", "cpu"]).env_remove("LD_LIBRARY_PATH"));
        assert!(said.contains("computing on the CPU instead") && said.contains("none.txt"), "{said}");
        assert_eq!(code, 2, "{said}");
    }
}

/// The library path without the folders of NVRTC.
fn without_compiler() -> OsString {
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let without = std::env::split_paths(&path).filter(|folder| !folder.join("libnvrtc.so.12").exists());
    std::env::join_paths(without).unwrap()
}

#[test]
fn devices_that_are_not_there_or_too_small_are_refused() {
    let said = outcome(&mut train_on("gpu"));
    assert!(said.0 == 2 && said.1.contains("expected cpu, cuda or cuda:N"), "{}", said.1);
    if !device_present() {
        return;
    }
    let count = CudaDevice::count().unwrap();
    let wanted = [&*format!("CUDA device 63 does not exist: the driver reports {count}")];
    refused(&mut train_on("cuda:63"), &wanted).unwrap();
    // Of a stand-in driver one can ask for cards as small and as many as this; a real one ignores the variables.
    if CudaDevice::open(0).unwrap().report().unwrap().name.contains("emulated") {
        let mut command = train_on("cuda");
        refused(
            command.env("IOTA_EMULATED_MEMORY_MIB", "1"),
            &["has no room to reserve", "make the work smaller"],
        )
        .unwrap();
        let none = ["--device cuda:0: the CUDA driver failed to start", "NO_DEVICE", "CUDA_VISIBLE_DEVICES"];
        refused(train_on("cuda").env("IOTA_EMULATED_DEVICES", "0"), &none).unwrap();
        let (code, said) = outcome(iota(&["doctor"]).env("IOTA_EMULATED_DEVICES", "0"));
        assert!(code == 0 && said.contains("CUDA devices none: the CUDA driver failed to start"), "{said}");
        // Where there are two, the second is one too: what is missed then is the text.
        let (code, said) = outcome(train_on("cuda:1").env("IOTA_EMULATED_DEVICES", "2"));
        assert!(code == 2 && said.contains("none.txt"), "{said}");
    }
}

/// A device whose additions subtract: what it compiled for one room was exchanged in the cache.
#[test]
fn a_device_that_deviates_is_refused() {
    if !device_present() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let cache = ModuleCache::in_folder(place.path());
    let device = CudaDevice::open_with_cache(0, cache.clone()).unwrap();
    let source = SOURCES.iter().find(|source| source.name == "residual").unwrap();
    let target = compile::target_for(device.capability()).unwrap();
    let wrong = source.text().replace("__fadd_rn", "__fsub_rn");
    assert_ne!(wrong, source.text());
    let image = compile::compile("residual", &wrong, &target).unwrap();
    cache.put(&Key::new(&source.text(), &target, compile::nvrtc_version().unwrap()), &image);
    let mut command = train_on("cuda");
    command.env("IOTA_KERNEL_CACHE", place.path());
    let parts = ["op residual.add hashes to", "this device does not keep the arithmetic", "--device cpu"];
    refused(&mut command, &parts).unwrap();
}
