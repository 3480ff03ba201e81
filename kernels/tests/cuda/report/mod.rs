//! `docs/kernels.md`: what each kernel takes of a multiprocessor on each architecture, what its main loop consists of, what
//! hot kernels move. Written by `cargo xtask kernels-report`; the tests hold the compiler's answers against it, so that
//! nothing gets worse unseen.

pub mod disassembly;
mod triton;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use disassembly::MainLoop;
use kernels::device::{Resources, SOURCES, compile, ptx};

use crate::support::compiler_present;

/// Set by the command that writes the report.
const WRITE: &str = "IOTA_KERNELS_REPORT";

/// An architecture and what a multiprocessor of it holds.
struct Architecture {
    sm: u32,
    threads: u32,
    blocks: u32,
    shared_bytes: u32,
}

const KIB: u32 = 1024;

#[rustfmt::skip]
const ARCHITECTURES: [Architecture; 7] = [
    Architecture { sm: 75, threads: 1024, blocks: 16, shared_bytes: 64 * KIB },
    Architecture { sm: 80, threads: 2048, blocks: 32, shared_bytes: 164 * KIB },
    Architecture { sm: 86, threads: 1536, blocks: 16, shared_bytes: 100 * KIB },
    Architecture { sm: 89, threads: 1536, blocks: 24, shared_bytes: 100 * KIB },
    Architecture { sm: 90, threads: 2048, blocks: 32, shared_bytes: 228 * KIB },
    Architecture { sm: 100, threads: 2048, blocks: 32, shared_bytes: 228 * KIB },
    Architecture { sm: 120, threads: 1536, blocks: 24, shared_bytes: 100 * KIB },
];

/// Registers of a multiprocessor, and in what portions a warp takes them.
const REGISTERS: u32 = 65_536;
const REGISTERS_OF_WARP: u32 = 256;

impl Architecture {
    /// Blocks that fit, and warps in flight of those that could be, percent.
    fn occupancy(&self, kernel: &Resources, threads: u32) -> (u32, u32) {
        let warps = threads.div_ceil(32);
        let by_registers = REGISTERS / ((kernel.registers * 32).next_multiple_of(REGISTERS_OF_WARP) * warps);
        // From 8.0 on the system keeps a KiB of each block's.
        let reserved = if self.sm >= 80 { KIB } else { 0 };
        let shared = (kernel.shared_bytes + reserved).next_multiple_of(256).max(1);
        let by_shared = if kernel.shared_bytes == 0 { u32::MAX } else { self.shared_bytes / shared };
        let blocks = by_registers.min(by_shared).min(self.threads / (32 * warps)).min(self.blocks);
        (blocks, 100 * blocks * warps / (self.threads / 32))
    }
}

/// What the committed report says of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    registers: u32,
    spill_bytes: u32,
    stack_bytes: u32,
    shared_bytes: u32,
    share: Option<f64>,
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md")
}

/// The report's tables: architecture such as `sm_86`, kernel.
pub fn committed() -> BTreeMap<(String, String), Committed> {
    let text = std::fs::read_to_string(path()).unwrap();
    let (mut architecture, mut found) = (String::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            architecture = title.to_owned();
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let numbers = |index: usize| cells.get(index).and_then(|cell| cell.parse().ok());
        if let (true, Some(registers), Some(spill_bytes), Some(stack_bytes), Some(shared_bytes)) =
            (architecture.starts_with("sm_"), numbers(2), numbers(3), numbers(4), numbers(5))
        {
            let share = cells.get(10).and_then(|cell| cell.parse().ok());
            let row = Committed { registers, spill_bytes, stack_bytes, shared_bytes, share };
            found.insert((architecture.clone(), cells[1].to_owned()), row);
        }
    }
    found
}

/// What got worse since the report was written, in words.
pub fn worse(
    committed: &BTreeMap<(String, String), Committed>,
    architecture: &str,
    kernel: &Resources,
    main: Option<&MainLoop>,
) -> Option<String> {
    let Some(before) = committed.get(&(architecture.to_owned(), kernel.entry.clone())) else {
        return Some(format!("{} is not in the report for {architecture}", kernel.entry));
    };
    let grown = |what: &str, before: u32, now: u32| {
        (now > before)
            .then(|| format!("{what} of {} on {architecture}: {now}, reported {before}", kernel.entry))
    };
    let fallen = || {
        let (before, now) = (before.share?, main?.share);
        (now < before - 0.1)
            .then(|| format!("FFMA share of {} on {architecture}: {now:.1}, reported {before}", kernel.entry))
    };
    grown("registers", before.registers, kernel.registers)
        .or_else(|| grown("spilled bytes", before.spill_bytes, kernel.spill_bytes))
        .or_else(|| grown("bytes of local memory", before.stack_bytes, kernel.stack_bytes))
        .or_else(|| grown("bytes of shared memory", before.shared_bytes, kernel.shared_bytes))
        .or_else(fallen)
}

#[test]
fn worse_is_told_from_better() {
    let kernel = Resources {
        entry: "k".to_owned(),
        registers: 40,
        stack_bytes: 0,
        spill_bytes: 0,
        shared_bytes: 1024,
    };
    let row =
        Committed { registers: 40, spill_bytes: 0, stack_bytes: 0, shared_bytes: 1024, share: Some(90.0) };
    let of = |row: Committed| BTreeMap::from([(("sm_86".to_owned(), "k".to_owned()), row)]);
    let main = |share| MainLoop { instructions: 100, share, share_around: share };
    assert_eq!(worse(&of(row.clone()), "sm_86", &kernel, Some(&main(90.0))), None);
    assert_eq!(worse(&of(Committed { registers: 50, ..row.clone() }), "sm_86", &kernel, None), None);
    let said = worse(&of(Committed { registers: 39, ..row.clone() }), "sm_86", &kernel, None).unwrap();
    assert_eq!(said, "registers of k on sm_86: 40, reported 39");
    assert!(worse(&of(row.clone()), "sm_86", &kernel, Some(&main(89.0))).unwrap().contains("89.0"));
    assert!(worse(&of(row), "sm_89", &kernel, None).unwrap().contains("not in the report"));
    let best = ARCHITECTURES[2].occupancy(&kernel, 256);
    assert_eq!(best, (6, 100), "40 registers leave room for all warps of sm_86");
}

/// On the architectures too that are not compiled for in every test.
#[test]
fn nothing_reported_spills() {
    if std::env::var_os(WRITE).is_some() {
        return;
    }
    let reported = committed();
    for Architecture { sm, .. } in ARCHITECTURES {
        assert!(reported.keys().any(|(architecture, _)| *architecture == format!("sm_{sm}")), "sm_{sm}");
    }
    for (of, kernel) in reported {
        assert!(kernel.spill_bytes == 0 && kernel.stack_bytes == 0, "{of:?}: {kernel:?}");
    }
}

/// Writes the report, when `cargo xtask kernels-report` asks for it.
#[test]
fn is_written() {
    if std::env::var_os(WRITE).is_none() || !compiler_present() {
        return;
    }
    let wanted: Vec<_> = ARCHITECTURES
        .iter()
        .flat_map(|architecture| SOURCES.iter().map(move |source| (architecture, source)))
        .collect();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<u32, BTreeMap<String, String>>::new()));
    let ours = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((architecture, source)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let target = format!("sm_{}", architecture.sm);
                    let (image, resources) =
                        compile::compile_with_resources(source.name, &source.text(), &target).unwrap();
                    let loops = disassembly::main_loops(&image.cubin, &format!("{}-{target}", source.name));
                    for kernel in resources {
                        let main = loops.as_ref().and_then(|loops| loops.get(&kernel.entry));
                        let threads = threads_of(&image.ptx, &kernel.entry);
                        let line = row(architecture, &kernel, threads, main);
                        let one = triton::Numbers::of(&kernel, threads, main);
                        ours.lock().unwrap().insert((kernel.entry.clone(), target.clone()), one);
                        let mut rows = rows.lock().unwrap();
                        rows.entry(architecture.sm).or_default().insert(kernel.entry, line);
                    }
                }
            });
        }
    });
    let mut text = HEAD.to_owned();
    text += &traffic();
    text +=
        &triton::section(&ours.into_inner().unwrap(), &std::fs::read_to_string(path()).unwrap_or_default());
    for (sm, rows) in rows.into_inner().unwrap() {
        let _ = write!(text, "\n## sm_{sm}\n\n{TITLES}");
        rows.values().for_each(|row| text += row);
    }
    std::fs::write(path(), text).unwrap();
    println!("\nwritten: docs/kernels.md");
}

fn row(architecture: &Architecture, kernel: &Resources, threads: u32, main: Option<&MainLoop>) -> String {
    let (blocks, occupancy) = architecture.occupancy(kernel, threads);
    let (length, share, around) = main.map_or(Default::default(), |main| {
        (main.instructions.to_string(), format!("{:.1}", main.share), format!("{:.1}", main.share_around))
    });
    format!(
        "| {} | {} | {} | {} | {} | {threads} | {blocks} | {occupancy} | {length} | {share} | {around} |\n",
        kernel.entry, kernel.registers, kernel.spill_bytes, kernel.stack_bytes, kernel.shared_bytes
    )
}

/// Threads of a block, as the kernel declares them.
fn threads_of(text: &str, entry: &str) -> u32 {
    ptx::threads(text, entry).unwrap_or_else(|| panic!("{entry} declares no block size"))
}

/// The lines that the trial of `traffic` prints.
fn traffic() -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "traffic::hot_kernels_move_little_more_than_they_must", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let mut rows: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("traffic ")).collect();
    rows.dedup();
    assert!(!rows.is_empty(), "no counters: is the stand-in driver on the library path?\n{said}");
    rows.join("\n") + "\n"
}

const TITLES: &str = "\
| kernel | registers | spilled, bytes | local, bytes | shared, bytes | threads | blocks | occupancy, % | main loop, instructions | FFMA, % | FFMA around, % |
|---|---|---|---|---|---|---|---|---|---|---|
";

const HEAD: &str = "\
# Kernels in numbers

Written by `cargo xtask kernels-report`; do not edit. Nothing here was timed on a GPU: registers, spills and shared memory are the
assembler's (NVRTC 12.9), instructions those of its machine code, traffic is counted by the [emulator](../kernels/emulator/src/lib.rs)
on sm_86. `cargo xtask test` compiles sm_75, sm_86 and sm_120 anew and fails when a number got worse, and counts the traffic anew.

## Traffic

Bytes that the op must move at least, each operand once (of products and attention: each block's operands once), and what is moved
over that. *Asked* is what warps ask for in sectors of 32 bytes; *beyond L1* counts a sector once per block, as a first-level cache
that forgets nothing would. Passes are those over the banks of shared memory. *Issued* are the instructions of PTX, moves between
registers aside, that warps need for each sector they ask for, and the last column is the share of fused multiply-adds among them.

Memory gives a multiprocessor 3 bytes a cycle (RTX 4090) to 18 (H200): a sector takes it 10 to 1.7 cycles, in which its four schedulers
issue 41 to 7 instructions. So what is bound by memory may issue 7 for each sector, and is bound by memory on every card.

Wanted are 1.05 for elementwise kernels and norms, 1.15 for products, 1.2 for attention, and no conflict. All of it is met.

A block of attention's backward pass is eight warps that share 64 rows: four make the weights, four their gradients, and each a part
of the outputs, so that a lane keeps the outputs of one product. sm_86, sm_89 and sm_120 give a block 99 KiB of shared memory, and
their multiprocessors hold eight such warps: 255 registers for each thread, and a block more would not fit. Of heads up to 64 the rows
of two operands, a block and a half of both columns and the weights take 97 KiB, and nothing is fetched twice.

Of heads of 128 the rows take 64 KiB, 64 columns of both operands as much again, and the weights 16. What scores need of the columns
passes through in slices of 16 elements; what outputs need of them again waits in registers, of which scores leave that many:

| 64 columns of heads of 128, per block | by query | by key |
|---|---|---|
| both operands, fetched once | 64 KiB | 64 KiB |
| needed by scores and outputs: fetched twice before | K, 32 KiB | Q and dO, 64 KiB |
| the same in registers, per thread | 32 | 64 |
| in use beside them: outputs, scores, operands of a product | 32 + 32 + 36 | 64 + 32 + 36 |
| passes over the banks to take it, of all | 256 of 19954 | 512 of 24607 |
| multiplications at the peak, cycles | 12288 | 16384 |
| asked of the second-level cache, bytes a cycle | 5.3, was 8 | 4.0, was 8 |

What would have met the number otherwise costs more. In blocks of 16 columns a lane multiplies fewer scores with what it reads, and
shared memory, whose passes are 1.6 times the cycles of the multiplications, is asked for more again. Rows in registers, 64 of each
thread and handed around by shuffles, leave room for the columns but take sixteen shuffles, a pass each, where four loads do.

Before sm_80, where a multiprocessor has 64 KiB, rows do not stay: they come again for every 64 columns, with their slices, in the same
kernels. That is 1.3 of the ideal forward, 1.6 by query and 1.7 by key. Here sm_86 is counted.

| kernel | shape | ideal, bytes | asked | beyond L1 | conflicts of passes | local, bytes | issued | FFMA, % |
|---|---|---|---|---|---|---|---|---|
";
