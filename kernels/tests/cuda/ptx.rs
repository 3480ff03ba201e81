//! The compiler held to the contract: no instruction that rounds in a way of its own, on any architecture.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::device::cache::Key;
use kernels::device::compile::Image;
use kernels::device::{Resources, SOURCES, Source, compile, ptx};

use crate::report::{self, disassembly};
use crate::support::{compiler_present, modules};

/// One of each kind of machine code and of PTX: before `cp.async`, after it, and from 100 on, where NVRTC has another
/// compiler inside.
const ARCHITECTURES: [&str; 3] = ["sm_75", "sm_86", "sm_120"];

/// Kernels whose registers hold what their speed lives on: not one of them may wait in local memory.
#[test]
fn no_kernel_rounds_in_its_own_way_or_spills_or_takes_more_than_reported() {
    if !compiler_present() {
        return;
    }
    // The longest first: they keep all cores busy to the end.
    let mut wanted: Vec<_> =
        SOURCES.iter().flat_map(|source| ARCHITECTURES.map(|architecture| (source, architecture))).collect();
    wanted.sort_by_key(|(source, _)| std::cmp::Reverse(source.text().len()));
    let reported = report::committed();
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((source, architecture)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    judge(source, architecture, &reported);
                }
            });
        }
    });
}

fn judge(source: &Source, architecture: &str, reported: &BTreeMap<(String, String), report::Committed>) {
    let name = source.name;
    let (image, resources) = compiled(source, architecture);
    assert!(!image.cubin.is_empty(), "{name} has no machine code for {architecture}");
    let found = banned(&image.ptx);
    assert!(found.is_empty(), "{name} on {architecture}: {found:#?}");
    let mut entries = ptx::entry_names(&image.ptx);
    entries.sort_unstable();
    let mut judged: Vec<&str> = resources.iter().map(|kernel| kernel.entry.as_str()).collect();
    judged.sort_unstable();
    assert!(
        !entries.is_empty() && entries == judged,
        "{name} has kernels {entries:?}, judged are {judged:?}"
    );
    let loops = disassembly::main_loops(&image.cubin, &format!("{name}-{architecture}"));
    for kernel in resources {
        let main = loops.as_ref().and_then(|loops| loops.get(&kernel.entry));
        let worse = report::worse(reported, architecture, &kernel, main);
        assert_eq!(worse, None, "if that is wanted: cargo xtask kernels-report");
        assert!(kernel.registers > 0, "{kernel:?} on {architecture}");
        assert!(kernel.spill_bytes == 0 && kernel.stack_bytes == 0, "{kernel:?} on {architecture}");
    }
}

/// What a source becomes, and what its kernels take. What was compiled once from this text, by this version, is not
/// compiled again; devices under test find the image as well.
fn compiled(source: &Source, architecture: &str) -> (Image, Vec<Resources>) {
    let key = Key::new(&source.text(), architecture, compile::nvrtc_version().unwrap());
    let cache = modules();
    let beside = cache.path(&key).unwrap().with_extension("resources");
    let known = || Some((cache.get(&key)?, read(&std::fs::read_to_string(&beside).ok()?)?));
    known().unwrap_or_else(|| {
        let (image, resources) =
            compile::compile_with_resources(source.name, &source.text(), architecture).unwrap();
        cache.put(&key, &image);
        // Whole or not at all: another process may read it at the same time.
        let part = beside.with_extension(format!("{}.part", std::process::id()));
        std::fs::write(&part, written(&resources)).unwrap();
        std::fs::rename(&part, &beside).unwrap();
        (image, resources)
    })
}

/// A line for each kernel, and one that says how many there are.
fn written(resources: &[Resources]) -> String {
    let lines = resources.iter().map(|kernel| {
        let Resources { entry, registers, stack_bytes, spill_bytes, shared_bytes } = kernel;
        format!("{entry} {registers} {stack_bytes} {spill_bytes} {shared_bytes}\n")
    });
    format!("{}{}\n", lines.collect::<String>(), resources.len())
}

fn read(text: &str) -> Option<Vec<Resources>> {
    let (kernels, count) = text.trim_end().rsplit_once('\n')?;
    let resources: Option<Vec<Resources>> = kernels
        .lines()
        .map(|line| {
            let (entry, numbers) = line.split_once(' ')?;
            let numbers: Vec<u32> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
            let &[registers, stack_bytes, spill_bytes, shared_bytes] = numbers.as_slice() else {
                return None;
            };
            Some(Resources { entry: entry.to_owned(), registers, stack_bytes, spill_bytes, shared_bytes })
        })
        .collect();
    resources.filter(|resources| Some(resources.len()) == count.parse().ok())
}

#[test]
fn what_kernels_take_is_read_as_it_was_written() {
    let kernel = |entry: &str, registers| Resources {
        entry: entry.to_owned(),
        registers,
        stack_bytes: 1,
        spill_bytes: 2,
        shared_bytes: 3,
    };
    let all = vec![kernel("a", 40), kernel("b", 50)];
    let text = written(&all);
    assert_eq!(read(&text), Some(all));
    assert_eq!(read(&text.replacen("a 40 1 2 3\n", "", 1)), None, "a lost line is seen");
    assert_eq!(read(&text.replace("40", "forty")), None);
    assert_eq!(read(""), None);
}

/// The judge sees a spill: a kernel that is given fewer registers than it needs.
#[test]
fn a_spill_is_seen() {
    if !compiler_present() {
        return;
    }
    let text = "extern \"C\" __global__ void __launch_bounds__(1024) hold(float* x) {
        float held[64];
        for (int i = 0; i < 64; ++i) held[i] = x[i * 7];
        for (int r = 0; r < 100; ++r)
            for (int i = 0; i < 64; ++i) held[i] = __fmaf_rn(held[i], held[(i + 1) % 64], x[r]);
        for (int i = 0; i < 64; ++i) x[i] = held[i];
    }";
    let (_, resources) = compile::compile_with_resources("hold", text, "sm_86").unwrap();
    assert!(resources[0].spill_bytes > 0, "{resources:?}");
}

/// Every banned instruction is found in what the compiler makes of the construct that leads to it.
#[test]
fn the_search_finds_what_is_banned() {
    if !compiler_present() {
        return;
    }
    for (expression, instruction) in [
        ("rsqrtf(y)", "rsqrt.approx.f32"),
        ("__fdividef(x[0], y)", "div.approx.f32"),
        ("__expf(y)", "ex2.approx.f32"),
        ("__logf(y)", "lg2.approx.f32"),
        ("__sinf(y)", "sin.approx.f32"),
        ("__cosf(y)", "cos.approx.f32"),
        ("atomicAdd(x, y)", "atom.global.add.f32"),
    ] {
        let text = format!(
            "extern \"C\" __global__ void probe(float* x, float y) {{ const float z = {expression}; x[1] = z; }}"
        );
        for architecture in ["sm_86", "sm_120"] {
            let image = compile::compile("probe", &text, architecture).unwrap();
            let found = banned(&image.ptx);
            assert!(
                found.iter().any(|line| line.contains(instruction)),
                "{expression} on {architecture}: {instruction} is not among {found:?} of\n{}",
                image.ptx
            );
        }
    }
    // With the contract's options the compiler writes `.rn` even where the source does not ask for it, so these forms
    // come only from text.
    for line in [
        "mul.f32 %f1, %f2, %f3;",
        "@%p1 add.f32 %f1, %f2, %f3;",
        "sub.f32 %f1, %f2, %f3;",
        "mad.f32 %f1, %f2, %f3, %f4;",
        "@!%p1 fma.rn.ftz.f32 %f1, %f2, %f3, %f4;",
        "div.full.f32 %f1, %f2, %f3;",
        "{ red.global.add.f32 [%rd1], %f1; }",
        "tanh.approx.f32 %f1, %f2;",
    ] {
        assert_eq!(banned(line), [line]);
    }
    assert!(banned("fma.rn.f32 %f1, %f2, %f3, %f4; // mul.f32\nmul.wide.u32 %rd1, %r1, 4;").is_empty());
}

/// A source that is not in the list above would escape the search.
#[test]
fn every_source_is_searched() {
    let rooms = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: Vec<String> = std::fs::read_dir(rooms)
        .unwrap()
        .map(|room| room.unwrap().path())
        .filter(|room| room.is_dir())
        .flat_map(|room| std::fs::read_dir(room).unwrap().map(|file| file.unwrap().path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "cu"))
        .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut listed: Vec<String> = SOURCES.iter().map(|source| source.name.to_owned()).collect();
    listed.sort();
    assert_eq!(found, listed);
}

/// The instructions of `ptx` whose result another machine might round otherwise.
fn banned(ptx: &str) -> Vec<&str> {
    let lines = ptx.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    lines.filter(|line| line.split_whitespace().any(is_banned)).collect()
}

fn is_banned(word: &str) -> bool {
    let word = word.trim_end_matches(';');
    let parts: Vec<&str> = word.split('.').collect();
    let has = |part: &str| parts[1..].contains(&part);
    let of_floats = ["f16", "f16x2", "bf16", "bf16x2", "f32", "f64"].into_iter().any(has);
    match parts[0] {
        "ex2" | "lg2" | "sin" | "cos" | "tanh" | "rsqrt" => true,
        "mul" | "add" | "sub" | "mad" | "fma" if of_floats && !has("rn") => true,
        "atom" | "red" => of_floats,
        _ => has("approx") || has("ftz") || has("full"),
    }
}
