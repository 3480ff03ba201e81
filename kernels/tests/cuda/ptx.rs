//! The compiler held to the contract: no instruction that rounds in a way of its own, on any architecture.

use std::path::Path;

use kernels::device::{SOURCES, compile, ptx};

use crate::support::compiler_present;

/// Compute capabilities that people own; from 100 on NVRTC runs another compiler inside.
const ARCHITECTURES: [&str; 7] = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];

#[test]
fn no_kernel_rounds_in_its_own_way() {
    if !compiler_present() {
        return;
    }
    std::thread::scope(|scope| {
        for source in SOURCES {
            scope.spawn(move || {
                for architecture in ARCHITECTURES {
                    let image = compile::compile(source.name, &source.text(), architecture).unwrap();
                    assert!(
                        !image.cubin.is_empty(),
                        "{} has no machine code for {architecture}",
                        source.name
                    );
                    assert!(!ptx::entry_names(&image.ptx).is_empty(), "{} has no kernels", source.name);
                    let found = banned(&image.ptx);
                    assert!(found.is_empty(), "{} on {architecture}: {found:#?}", source.name);
                }
            });
        }
    });
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
