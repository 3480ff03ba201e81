//! The main loop of a kernel in the machine code: which share of its issue slots does arithmetic that the op asked for.

use std::collections::BTreeMap;
use std::process::Command;

/// Names NVIDIA's disassembler; without it there are no shares.
pub const DISASSEMBLER: &str = "IOTA_NVDISASM";

/// The loop in which most fused multiply-adds of a kernel stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MainLoop {
    /// Instructions of the innermost loop.
    pub instructions: usize,
    /// Of them fused multiply-adds, percent.
    pub share: f64,
    /// The same of the loop around it, everything counted once; of the loop itself if there is none around it.
    pub share_around: f64,
}

/// The main loop of each kernel of `cubin` that has one with fused multiply-adds; `None` without a disassembler.
pub fn main_loops(cubin: &[u8], name: &str) -> Option<BTreeMap<String, MainLoop>> {
    let tool = std::env::var_os(DISASSEMBLER)?;
    let file = crate::support::scratch_folder(&format!("{name}.{}.cubin", std::process::id()));
    std::fs::write(&file, cubin).unwrap();
    let output = Command::new(&tool).arg("-c").arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let kernels = text.split("\n.text.").skip(1).filter_map(|part| {
        let (name, code) = part.split_once(":\n")?;
        Some((name.to_owned(), main_loop(code)?))
    });
    Some(kernels.collect())
}

fn main_loop(code: &str) -> Option<MainLoop> {
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ops: Vec<&str> = Vec::new();
    let mut loops: Vec<(usize, usize)> = Vec::new();
    for line in code.lines().take_while(|line| !line.contains("//-----")) {
        if let Some(label) = line.strip_suffix(':').filter(|label| label.starts_with(".L")) {
            labels.insert(label, ops.len());
            continue;
        }
        let Some((_, text)) = line.split_once("*/").filter(|_| line.trim_start().starts_with("/*")) else {
            continue;
        };
        let op = text.split_whitespace().find(|word| !word.starts_with('@') && *word != "{");
        let Some(op) = op else { continue };
        let target = text.split_once("`(").and_then(|(_, rest)| rest.split_once(')'));
        if op.starts_with("BRA")
            && let Some(begin) = target.and_then(|(label, _)| labels.get(label))
        {
            loops.push((*begin, ops.len()));
        }
        ops.push(op);
    }
    let fused =
        |range: (usize, usize)| ops[range.0..=range.1].iter().filter(|op| op.starts_with("FFMA")).count();
    let within = |inner: (usize, usize), outer: (usize, usize)| {
        inner != outer && outer.0 <= inner.0 && inner.1 <= outer.1
    };
    let innermost = loops.iter().copied().filter(|outer| !loops.iter().any(|inner| within(*inner, *outer)));
    // A loop that is all arithmetic goes before one that only holds more of it.
    let weight = |range: &(usize, usize)| {
        let (fused, length) = (fused(*range), range.1 - range.0 + 1);
        if fused >= 64 { (1, 1000 * fused / length) } else { (0, fused) }
    };
    let main = innermost.max_by_key(weight).filter(|range| fused(*range) > 8)?;
    let around =
        loops.iter().copied().filter(|outer| within(main, *outer)).min_by_key(|range| range.1 - range.0);
    let share = |range: (usize, usize)| 100.0 * fused(range) as f64 / (range.1 - range.0 + 1) as f64;
    Some(MainLoop {
        instructions: main.1 - main.0 + 1,
        share: share(main),
        share_around: share(around.unwrap_or(main)),
    })
}

#[test]
fn the_loop_with_most_products_is_found() {
    let line = |op: &str| format!("        /*0000*/                   {op} ;\n");
    let products = line("FFMA R1, R2, R3, R1").repeat(12);
    let code = format!(
        ".text.x:\n{}.L_x_0:\n{}.L_x_1:\n{products}{}{}{}{}",
        line("MOV R1, R2"),
        line("LDG.E R1, [R2]").repeat(4),
        line("LDS.128 R4, [R5]").repeat(2),
        line("@P0 BRA `(.L_x_1)"),
        line("BAR.SYNC 0x0"),
        line("@!P1 BRA `(.L_x_0)"),
    );
    let found = main_loop(&code).unwrap();
    assert_eq!((found.instructions, found.share), (15, 80.0));
    assert_eq!(found.share_around, 100.0 * 12.0 / 21.0);
    assert_eq!(main_loop(&line("FFMA R1, R2, R3, R1")), None);
}
