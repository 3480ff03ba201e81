//! The architecture, checked: who may import whom, what no crate may call, module docs.
//!
//! The table is the one of `ARCHITECTURE.md`. It is checked against `cargo metadata`, so that an import
//! which is not in it fails the test command.

use crate::root;
use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Ours that a crate may import, besides `spec`, which all may. Development dependencies are free.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("spec", &[]),
    ("kernels", &[]),
    ("emulator", &[]),
    ("engine", &["kernels"]),
    ("wire", &[]),
    ("butterfly", &["wire"]),
    ("store", &["wire"]),
    ("bucket", &[]),
    ("transport", &["wire", "store"]),
    ("plan", &[]),
    ("credit", &["wire"]),
    ("orchestrator-core", &["wire", "butterfly", "plan", "credit"]),
    ("miner-core", &["wire", "butterfly"]),
    ("validator-core", &["wire", "butterfly"]),
    ("orchestrator", &["orchestrator-core", "credit", "wire", "transport", "store", "butterfly"]),
    ("miner", &["miner-core", "wire", "transport", "store", "butterfly", "engine"]),
    ("validator", &["validator-core", "wire", "transport", "store", "butterfly", "engine"]),
    (
        "sim",
        &[
            "orchestrator-core",
            "miner-core",
            "validator-core",
            "plan",
            "credit",
            "butterfly",
            "store",
            "wire",
        ],
    ),
    ("benches", &["kernels", "engine", "butterfly", "transport"]),
    // The one place that puts the parts together.
    (
        "cli",
        &[
            "orchestrator",
            "miner",
            "validator",
            "sim",
            "plan",
            "credit",
            "engine",
            "kernels",
            "bucket",
            "store",
            "transport",
            "wire",
        ],
    ),
    ("fuzz", &["wire", "transport", "engine", "credit", "orchestrator", "validator"]),
    ("xtask", &[]),
];

/// Crates that must not reach an asynchronous runtime, not even through others.
const WITHOUT_RUNTIME: &[&str] = &[
    "spec",
    "kernels",
    "emulator",
    "engine",
    "wire",
    "butterfly",
    "plan",
    "credit",
    "orchestrator-core",
    "miner-core",
    "validator-core",
];

/// Calls that a folder's sources must not hold, and why. Test modules are not excepted: what judges the
/// arithmetic has its own f64 helpers.
const BANNED: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "orchestrator/core",
            "miner/core",
            "validator/core",
            "transport/butterfly",
            "orchestrator/plan",
            "orchestrator/credit",
        ],
        &["Instant::now", "SystemTime", "HashMap", "HashSet", "thread::", "rand::"],
        "a pure core has no clock, no thread, no chance and no order but its own",
    ),
    (
        &["engine/src", "engine/spec"],
        &["Instant::now", "SystemTime", "TcpStream", "UdpSocket", "tokio::"],
        "the learner knows no clock and no network",
    ),
    (
        &["kernels/src", "engine/src"],
        &["algebraic_add", "algebraic_mul", "par_iter().sum"],
        "the order of every floating-point operation is part of the contract",
    ),
];

/// Checks everything; the error lists each breach.
pub fn run() -> Result<()> {
    let metadata =
        MetadataCommand::new().current_dir(root()).exec().context("cargo metadata did not answer")?;
    let mut breaches = check_imports(&metadata);
    breaches.extend(check_runtime(&metadata));
    breaches.extend(check_sources(&metadata)?);
    if breaches.is_empty() {
        return Ok(());
    }
    bail!("the architecture does not hold:\n  {}", breaches.join("\n  "))
}

fn members(metadata: &Metadata) -> BTreeMap<&str, &Package> {
    metadata.workspace_packages().into_iter().map(|package| (package.name.as_str(), package)).collect()
}

fn check_imports(metadata: &Metadata) -> Vec<String> {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let members = members(metadata);
    let mut breaches = vec![];
    for (name, package) in &members {
        let Some(allowed) = table.get(name) else {
            breaches.push(format!("{name} is not in the table of allowed imports (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in &package.dependencies {
            let ours = members.contains_key(dependency.name.as_str());
            let named = dependency.name == "spec" || allowed.contains(&dependency.name.as_str());
            if ours && !named && dependency.kind == DependencyKind::Normal {
                breaches.push(format!("{name} imports {}, which the table does not allow", dependency.name));
            }
        }
    }
    breaches.extend(
        table.keys().filter(|name| !members.contains_key(*name)).map(|name| format!("{name} is missing")),
    );
    breaches
}

fn check_runtime(metadata: &Metadata) -> Vec<String> {
    let members = members(metadata);
    let Some(resolve) = &metadata.resolve else { return vec!["cargo metadata resolves nothing".into()] };
    let mut breaches = vec![];
    for name in WITHOUT_RUNTIME {
        let Some(package) = members.get(name) else { continue };
        let (mut seen, mut todo) = (BTreeSet::new(), vec![&package.id]);
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            if metadata[id].name == "tokio" {
                breaches.push(format!("{name} reaches tokio, which a crate without I/O must not"));
            }
            let node = resolve.nodes.iter().find(|node| node.id == *id);
            todo.extend(node.iter().flat_map(|node| &node.deps).filter_map(|dep| {
                let normal = dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
                normal.then_some(&dep.pkg)
            }));
        }
    }
    breaches
}

fn check_sources(metadata: &Metadata) -> Result<Vec<String>> {
    let mut breaches = vec![];
    for (name, package) in members(metadata) {
        for target in &package.targets {
            let text = std::fs::read_to_string(&target.src_path)?;
            let library_or_binary = target.is_lib() || target.is_bin() || target.is_cdylib();
            if library_or_binary && !text.starts_with("//!") {
                breaches.push(format!("{name}: {} has no module doc", target.src_path));
            }
        }
    }
    for (folders, words, why) in BANNED {
        for folder in *folders {
            for file in rust_files(&root().join(folder))? {
                let text = std::fs::read_to_string(&file)?;
                for (number, line) in text.lines().enumerate() {
                    let code = line.split("//").next().unwrap_or_default();
                    if let Some(word) = words.iter().find(|word| code.contains(**word)) {
                        let place = file.strip_prefix(root()).unwrap_or(&file).display();
                        breaches.push(format!("{place}:{}: `{word}`: {why}", number + 1));
                    }
                }
            }
        }
    }
    Ok(breaches)
}

fn rust_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = vec![];
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} is missing", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_architecture_holds() {
        super::run().unwrap();
    }
}
