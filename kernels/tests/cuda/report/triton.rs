//! The report's table of kernels that Triton makes of the same shape, beside ours. They are compiled by
//! `triton_kernels.py`, which `cargo xtask kernels-report --triton` runs; without it the table stays as it was.

use std::collections::BTreeMap;
use std::path::Path;

use kernels::device::Resources;

use super::disassembly::{MainLoop, main_loops};

/// Names the folder with Triton's machine code and `resources.tsv`.
const FOLDER: &str = "IOTA_TRITON";

const TITLE: &str = "\n## Beside Triton\n";

const HEAD: &str = "
Kernels of the same shape, written in [Triton](../kernels/tests/cuda/report/triton_kernels.py) 3.9.0 with products in binary32
(`input_precision=\"ieee\"`) and compiled without a GPU by `cargo xtask kernels-report --triton`: first ours, then Triton's. Triton
chooses its own order of additions, and its exponential is an approximation; ours may not. The last column is the difference of the
shares of fused multiply-adds in the main loop; a share is not a speed. Of attention it flatters ours: our products are loops of their
own, of which this is one, while Triton's only loop holds the softmax as well.

Norms and AdamW take more registers than Triton's because a lane has more on its way. The contract's 128 accumulators are one warp's, so
a warp keeps a row of its own, 8 KiB of 2048 elements, where Triton spreads it over eight; and a division or a root that is rounded
as the contract wants has a long way round for the rare case, where Triton's are approximations. Registers in use are no loss where
memory is the bound: to keep it busy, 18 bytes a cycle for the thousand cycles that an answer takes, 18 KiB must be on their way to a
multiprocessor; of the norm these are 64 KiB in eight warps, of AdamW 80 KiB in forty.

| kernel | architecture | registers | spilled, bytes | shared, bytes | threads | main loop, instructions | FFMA, % | ours - Triton's |
|---|---|---|---|---|---|---|---|---|
";

/// What the table says of one kernel.
pub struct Numbers {
    registers: u32,
    spilled_bytes: u32,
    shared_bytes: u32,
    threads: u32,
    main: Option<MainLoop>,
}

impl Numbers {
    /// Of a kernel of ours.
    pub fn of(kernel: &Resources, threads: u32, main: Option<&MainLoop>) -> Self {
        Self {
            registers: kernel.registers,
            spilled_bytes: kernel.spill_bytes,
            shared_bytes: kernel.shared_bytes,
            threads,
            main: main.copied(),
        }
    }

    /// Of a line of `resources.tsv`: the kernel, the architecture and the numbers.
    fn of_line(line: &str, folder: &Path) -> Option<((String, String), Self)> {
        let cells: Vec<&str> = line.split('\t').collect();
        let [name, architecture, numbers @ ..] = &cells[..] else { return None };
        let numbers: Vec<u32> = numbers.iter().filter_map(|cell| cell.parse().ok()).collect();
        let [registers, spilled_bytes, shared_bytes, threads] = numbers[..] else { return None };
        let cubin = std::fs::read(folder.join(format!("{name}-{architecture}.cubin"))).ok()?;
        // There is one kernel in each file.
        let main = main_loops(&cubin, &format!("triton-{name}-{architecture}"))
            .and_then(|loops| loops.into_values().next());
        let numbers = Self { registers, spilled_bytes, shared_bytes, threads, main };
        Some((((*name).to_owned(), (*architecture).to_owned()), numbers))
    }
}

/// The table: anew if there are Triton's kernels, otherwise as it stands in `before`, the report so far.
pub fn section(ours: &BTreeMap<(String, String), Numbers>, before: &str) -> String {
    let Some(folder) = std::env::var_os(FOLDER) else {
        let section = before.split_once(TITLE).map(|(_, rest)| rest.split("\n## ").next().unwrap_or(rest));
        return section.map_or(String::new(), |section| format!("{TITLE}{section}"));
    };
    let folder = Path::new(&folder);
    let lines = std::fs::read_to_string(folder.join("resources.tsv")).unwrap();
    let mut text = format!("{TITLE}{HEAD}");
    for line in lines.lines() {
        let (kernel, theirs) =
            Numbers::of_line(line, folder).unwrap_or_else(|| panic!("a line of Triton's: {line}"));
        let ours = ours.get(&kernel).unwrap_or_else(|| panic!("no kernel of ours is {kernel:?}"));
        text += &row(&kernel, ours, &theirs);
    }
    text
}

fn row((kernel, architecture): &(String, String), ours: &Numbers, theirs: &Numbers) -> String {
    let both = |number: fn(&Numbers) -> u32| format!("{} / {}", number(ours), number(theirs));
    let of_loop = |show: fn(&MainLoop) -> String| {
        let one = |numbers: &Numbers| numbers.main.as_ref().map_or("none".to_owned(), show);
        format!("{} / {}", one(ours), one(theirs))
    };
    let gap = ours.main.zip(theirs.main).map(|(ours, theirs)| format!("{:+.1}", ours.share - theirs.share));
    format!(
        "| {kernel} | {architecture} | {} | {} | {} | {} | {} | {} | {} |\n",
        both(|numbers| numbers.registers),
        both(|numbers| numbers.spilled_bytes),
        both(|numbers| numbers.shared_bytes),
        both(|numbers| numbers.threads),
        of_loop(|main| main.instructions.to_string()),
        of_loop(|main| format!("{:.1}", main.share)),
        gap.unwrap_or_default(),
    )
}

#[test]
fn a_row_names_ours_first() {
    let main = MainLoop { instructions: 571, share: 89.7, share_around: 89.7 };
    let ours =
        Numbers { registers: 123, spilled_bytes: 0, shared_bytes: 16384, threads: 256, main: Some(main) };
    let theirs = Numbers { registers: 216, main: Some(MainLoop { share: 80.0, ..main }), ..ours };
    let kernel = ("k".to_owned(), "sm_86".to_owned());
    let expected =
        "| k | sm_86 | 123 / 216 | 0 / 0 | 16384 / 16384 | 256 / 256 | 571 / 571 | 89.7 / 80.0 | +9.7 |\n";
    assert_eq!(row(&kernel, &ours, &theirs), expected);
    let straight = Numbers { main: None, ..theirs };
    assert!(row(&kernel, &ours, &straight).ends_with("| 571 / none | 89.7 / none |  |\n"));
}

#[test]
fn without_triton_the_table_stays() {
    if std::env::var_os(FOLDER).is_none() {
        let before = format!("# R\n{TITLE}\n| k |\n\n## sm_75\nrest");
        assert_eq!(section(&BTreeMap::new(), &before), format!("{TITLE}\n| k |\n"));
        assert_eq!(section(&BTreeMap::new(), "# R\n"), "");
    }
}
