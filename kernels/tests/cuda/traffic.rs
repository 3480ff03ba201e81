//! What hot kernels move, as the stand-in driver counts it: sectors of device memory against the bytes that must be
//! moved, and passes over the banks of shared memory against those without a conflict.
//!
//! *Asked* is what warps ask for, each instruction's sectors counted once. *Beyond L1* counts a sector once per block: what
//! a first-level cache that forgets nothing would let through. The ideal reads each operand once; that of a product or of
//! attention reads each block's own operands once. Counts do not depend on the machine, so a bound is a number that must
//! not be passed.

use std::process::Command;

use kernels::catalogue::{Case, find};
use kernels::device::{CudaDevice, trials};
use kernels::matmul;
use serde_json::Value;

use crate::support::{device, scratch_folder};

/// Where the stand-in driver writes its counters.
const COUNTERS: &str = "IOTA_EMULATED_COUNTERS";
/// Begins every line of the table, so that who runs this test can find them.
const MARK: &str = "traffic |";

/// A kernel of an op, what it must move, and how much more it may.
struct Kernel {
    /// Its name, or the beginning of the names of all that the op launches.
    name: &'static str,
    ideal_bytes: usize,
    /// Asked over ideal, at most.
    asked: f64,
    /// Beyond L1 over ideal, at most.
    beyond_l1: f64,
    /// Instructions of a warp for each sector, at most.
    issued: f64,
}

/// An op at a stated shape.
struct Subject {
    op: &'static str,
    dims: Vec<(&'static str, usize)>,
    way: usize,
    kernels: Vec<Kernel>,
}

/// What elementwise kernels and norms may move beyond the ideal.
const NEAR: f64 = 1.05;
/// Instructions of a warp that four schedulers issue while the fastest of memories, at 18 bytes a cycle and multiprocessor,
/// moves a sector: what is bound by memory may need no more.
const ISSUED: f64 = 7.0;
/// Products, of the minimum of their tiles.
const TILED: f64 = 1.15;
/// Attention, of the minimum of its tiles.
const ATTENTION: f64 = 1.2;

fn kernel(name: &'static str, floats: usize, asked: f64, beyond_l1: f64) -> Kernel {
    let issued = if asked == NEAR { ISSUED } else { f64::INFINITY };
    Kernel { name, ideal_bytes: 4 * floats, asked, beyond_l1, issued }
}

fn subjects() -> Vec<Subject> {
    let mut all = vec![];
    let mut add = |op, dims: &[(&'static str, usize)], way, kernels| {
        all.push(Subject { op, dims: dims.to_vec(), way, kernels });
    };
    let n = 1 << 18;
    add("residual.add", &[("rows", n)], 0, vec![kernel("residual_", 3 * n, NEAR, NEAR)]);
    add("residual.accumulate", &[("rows", n)], 0, vec![kernel("residual_", 3 * n, NEAR, NEAR)]);
    add("adamw.step", &[("rows", n), ("step", 3)], 0, vec![kernel("adamw", 7 * n, NEAR, NEAR)]);
    add("swiglu.forward", &[("rows", n)], 0, vec![kernel("swiglu_", 3 * n, NEAR, NEAR)]);
    add("swiglu.backward", &[("rows", n)], 0, vec![kernel("swiglu_", 5 * n, NEAR, NEAR)]);
    add("reduce.sum_squares", &[("count", n)], 0, vec![kernel("reduce_squares", n, NEAR, NEAR)]);
    // Random numbers are made, not moved.
    let random = Kernel { issued: f64::INFINITY, ..kernel("philox_", n, NEAR, NEAR) };
    add("philox.normal", &[("first", 0), ("count", n)], 0, vec![random]);
    all.extend(norms());
    all.extend(rows());
    all.extend(integers());
    all.extend(products());
    all.extend(attention());
    all
}

fn norms() -> Vec<Subject> {
    let of =
        |op, rows, dim, kernels| Subject { op, dims: vec![("rows", rows), ("dim", dim)], way: 0, kernels };
    let (rows, short, long) = (1024, 512, 2048);
    let forward = |dim| 2 * rows * dim + dim + rows;
    let backward = |dim| 3 * rows * dim + dim + rows;
    let blocks = |dim| 2 * rows * dim + rows + rows / 64 * dim;
    let fold = |dim| rows / 64 * dim + 2 * dim;
    let gradients = |name, dim| {
        vec![
            kernel(name, backward(dim), NEAR, NEAR),
            kernel("rms_norm_backward_dw_blocks", blocks(dim), NEAR, NEAR),
            kernel("rms_norm_backward_dw_fold", fold(dim), NEAR, NEAR),
        ]
    };
    vec![
        of(
            "rms_norm.forward",
            rows,
            short,
            vec![kernel("rms_norm_forward_held_8", forward(short), NEAR, NEAR)],
        ),
        of(
            "rms_norm.forward",
            rows,
            long,
            vec![kernel("rms_norm_forward_held_32", forward(long), NEAR, NEAR)],
        ),
        of("rms_norm.backward", rows, short, gradients("rms_norm_backward_held_8", short)),
        of("rms_norm.backward", rows, long, gradients("rms_norm_backward_held_16", long)),
    ]
}

/// Ops on rows: rotation, embedding, cross-entropy.
fn rows() -> Vec<Subject> {
    let (batch, seq, heads, head_dim) = (2, 256, 8, 64);
    let rotated = 2 * batch * seq * heads * head_dim + seq * head_dim;
    let rope = [("batch", batch), ("seq", seq), ("heads", heads), ("head_dim", head_dim)];
    let (tokens, dim, vocab) = (1024, 512, 4096);
    let (short, long) = (1024, 8192);
    let entropy = |rows: usize, vocab: usize| 2 * rows * vocab + 2 * rows;
    vec![
        Subject {
            op: "rope.forward",
            dims: rope.to_vec(),
            way: 0,
            kernels: vec![kernel("rope_", rotated, NEAR, NEAR)],
        },
        Subject {
            op: "embedding.forward",
            dims: vec![("rows", tokens), ("dim", dim), ("vocab", vocab)],
            way: 0,
            kernels: vec![kernel("embedding_forward", 2 * tokens * dim + tokens, NEAR, NEAR)],
        },
        Subject {
            op: "cross_entropy.forward",
            dims: vec![("rows", 256), ("vocab", short)],
            way: 0,
            kernels: vec![kernel("cross_entropy_", entropy(256, short), NEAR, NEAR)],
        },
        Subject {
            op: "cross_entropy.forward",
            dims: vec![("rows", 64), ("vocab", long)],
            way: 0,
            kernels: vec![kernel("cross_entropy_", entropy(64, long), NEAR, NEAR)],
        },
    ]
}

/// What is not all floats: codes, their exponents, sums.
fn integers() -> Vec<Subject> {
    let n = 1 << 16;
    let exponents = n / 128;
    let bytes = |name, ideal_bytes| Kernel { ideal_bytes, ..kernel(name, 0, NEAR, NEAR) };
    let of = |op, kernels| Subject { op, dims: vec![("count", n), ("bits", 8)], way: 0, kernels };
    let (tokens, dim) = (1024, 512);
    let dims = vec![("rows", tokens), ("dim", dim), ("vocab", 4096)];
    let distinct = match find("embedding.backward").map(|op| op.inputs(&Case::new("traffic", &dims))) {
        Some(inputs) => inputs.u32("tokens").iter().collect::<std::collections::BTreeSet<_>>().len(),
        None => 0,
    };
    vec![
        of("codec.bf16", vec![bytes("codec_check", 8 * n), bytes("codec_feedback_bf16", 14 * n)]),
        of("codec.int8", vec![bytes("codec_check", 8 * n), bytes("codec_feedback_int8", 13 * n + exponents)]),
        of("codec.decode_int8", vec![bytes("codec_decode_int8", 5 * n + exponents)]),
        of("merge.exponents", vec![bytes("merge_exponents", 12 * n + exponents)]),
        of(
            "merge.contribute",
            vec![bytes("merge_check", 12 * n), bytes("merge_contribute", 18 * n + exponents)],
        ),
        of("merge.accumulate", vec![bytes("merge_accumulate", 18 * n)]),
        of("merge.nesterov", vec![bytes("merge_nesterov", 24 * n + exponents)]),
        of("merge.none", vec![bytes("merge_plain", 16 * n + exponents)]),
        Subject {
            op: "embedding.backward",
            dims,
            way: 0,
            kernels: vec![bytes("embedding_backward", 4 * dim * (tokens + 2 * distinct))],
        },
    ]
}

/// Each block reads its rows of one operand and its columns of the other once, and writes its tile.
fn tiled(side: usize, tile: usize) -> usize {
    let tiles = (side / tile) * (side / tile);
    tiles * 2 * tile * side + side * side
}

fn products() -> Vec<Subject> {
    let side = 256;
    let mut all = vec![];
    for (op, base, layout) in [("matmul.nn", 0, "nn"), ("matmul.nt", 0, "nt"), ("matmul.tn", 1, "tn")] {
        for (way, tile) in [(1, 128), (2, 64)] {
            let name: &'static str = match (layout, tile) {
                ("nn", 128) => "matmul_nn_128",
                ("nt", 128) => "matmul_nt_128",
                ("tn", 128) => "matmul_tn_128",
                ("nn", _) => "matmul_nn_64",
                ("nt", _) => "matmul_nt_64",
                _ => "matmul_tn_64",
            };
            all.push(Subject {
                op,
                dims: vec![("rows", side), ("n", side), ("k", side)],
                way,
                kernels: vec![kernel(name, tiled(side, tile) + base * side * side, TILED, TILED)],
            });
        }
    }
    all
}

/// What a block of 64 rows must read of `visible` rows of `each` operands of the other side, in floats: tiles of 64 on and
/// below the diagonal.
fn visible(seq: usize, head_dim: usize, each: usize) -> usize {
    let tiles = seq / 64;
    tiles * (tiles + 1) / 2 * 64 * each * head_dim
}

fn attention() -> Vec<Subject> {
    let mut all = vec![];
    for (head_dim, forward, queries, keys) in [
        (64, "attention_forward_64", "attention_backward_queries_64", "attention_backward_keys_64"),
        (128, "attention_forward_128", "attention_backward_queries_128", "attention_backward_keys_128"),
    ] {
        let (seq, heads, kv_heads) = (512, 2, 1);
        let dims =
            [("batch", 1), ("seq", seq), ("heads", heads), ("kv_heads", kv_heads), ("head_dim", head_dim)];
        let (q, kv) = (heads * seq * head_dim, kv_heads * seq * head_dim);
        let stats = heads * seq;
        // Queries read and outputs written, statistics written; keys and values once for each tile that sees them.
        let ideal_forward = 2 * q + 2 * stats + heads * visible(seq, head_dim, 2);
        // q, dout read, dq written; m, 1/l, D read; keys and values once for each tile that sees them.
        let ideal_queries = 3 * q + 3 * stats + heads * visible(seq, head_dim, 2);
        // k, v read, dk, dv written; q, dout and three statistics once for each tile of keys that they see.
        let ideal_keys = 4 * kv + heads * (visible(seq, head_dim, 2) + visible(seq, 1, 3));
        all.push(Subject {
            op: "attention.forward",
            dims: dims.to_vec(),
            way: 0,
            kernels: vec![kernel(forward, ideal_forward, ATTENTION, ATTENTION)],
        });
        all.push(Subject {
            op: "attention.backward",
            dims: dims.to_vec(),
            way: 0,
            kernels: vec![
                kernel("attention_prepare", 2 * q + 3 * stats, NEAR, NEAR),
                kernel(queries, ideal_queries, ATTENTION, ATTENTION),
                kernel(keys, ideal_keys, ATTENTION, ATTENTION),
            ],
        });
    }
    all
}

/// What one kernel did, over all its launches.
#[derive(Default)]
struct Counts {
    /// The kernel's own name.
    name: String,
    launches: u64,
    asked: u64,
    beyond_l1: u64,
    wavefronts: u64,
    conflict_free: u64,
    local_bytes: u64,
    fused: u64,
    instructions: u64,
}

impl Counts {
    fn of(lines: &[Value], name: &str) -> Self {
        let mut counts = Self::default();
        for line in lines.iter().filter(|line| line["kernel"].as_str().is_some_and(|k| k.starts_with(name))) {
            let number = |group: &str, what: &str| line[group][what].as_u64().unwrap();
            counts.launches += 1;
            counts.name = line["kernel"].as_str().unwrap().to_owned();
            for group in ["load", "store", "atomic"] {
                counts.asked += 32 * number(group, "sectors");
                counts.beyond_l1 += 32 * number(group, "block_sectors");
            }
            for group in ["shared_load", "shared_store"] {
                counts.wavefronts += number(group, "wavefronts");
                counts.conflict_free += number(group, "ideal");
            }
            counts.local_bytes += line["local_bytes"].as_u64().unwrap();
            for (class, count) in line["instructions"].as_object().unwrap() {
                let count = count.as_u64().unwrap();
                counts.fused += if class == "ffma" { count } else { 0 };
                counts.instructions += if class == "move" { 0 } else { count };
            }
        }
        counts
    }
}

/// Counters are written only by a driver that was asked to before it began: a process of its own.
#[test]
fn hot_kernels_move_little_more_than_they_must() {
    let Some(device) = device() else { return };
    if let Some(path) = std::env::var_os(COUNTERS) {
        return measure(&device, path.as_ref());
    }
    let path = scratch_folder("counters.jsonl");
    let _ = std::fs::remove_file(&path);
    let judged = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "traffic::hot_kernels_move_little_more_than_they_must", "--nocapture"])
        .env(COUNTERS, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stdout);
    for line in said.lines().filter(|line| line.starts_with(MARK) || line.starts_with("not run")) {
        println!("{line}");
    }
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
}

fn measure(device: &CudaDevice, path: &std::path::Path) {
    // The name of the test stands on the line.
    println!();
    let mut read = 0;
    let mut fresh_lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<Value> =
            text.lines().skip(read).map(|line| serde_json::from_str(line).unwrap()).collect();
        read += lines.len();
        lines
    };
    let mut excesses = vec![];
    let mut judge = |lines: &[Value], shape: &str, kernel: &Kernel| {
        let counts = Counts::of(lines, kernel.name);
        assert!(counts.launches > 0, "{} was not launched for {shape}", kernel.name);
        let over = |bytes: u64| bytes as f64 / kernel.ideal_bytes as f64;
        let (asked, beyond_l1) = (over(counts.asked), over(counts.beyond_l1));
        let conflicts = counts.wavefronts - counts.conflict_free;
        let issued = counts.instructions as f64 / (counts.asked / 32) as f64;
        println!(
            "{MARK} {} | {shape} | {} | {asked:.3} | {beyond_l1:.3} | {conflicts} of {} | {} | {issued:.1} | {:.1} |",
            counts.name,
            kernel.ideal_bytes,
            counts.wavefronts,
            counts.local_bytes,
            100.0 * counts.fused as f64 / counts.instructions as f64
        );
        // Less than the ideal would be an ideal that is none.
        let sound =
            asked >= 0.999 && asked <= kernel.asked && beyond_l1 >= 0.999 && beyond_l1 <= kernel.beyond_l1;
        if !sound || conflicts > 0 || counts.local_bytes > 0 || issued > kernel.issued {
            excesses.push(format!(
                "{} at {shape}: {asked:.3} (at most {}), {beyond_l1:.3} beyond L1 (at most {}), {conflicts} conflicts, \
                 {} bytes of local memory, {issued:.1} instructions a sector (at most {})",
                kernel.name, kernel.asked, kernel.beyond_l1, counts.local_bytes, kernel.issued
            ));
        }
    };
    for subject in subjects() {
        let (op, trial) = (find(subject.op).unwrap(), trials::find(subject.op).unwrap());
        let case = Case::new("traffic", &subject.dims);
        trial.run(device, subject.way, 0, &case, &op.inputs(&case), &op.outputs(&case)).unwrap();
        let lines = fresh_lines();
        if lines.is_empty() {
            println!("not run: traffic: this driver counts nothing, it is a real one");
            return;
        }
        let shape: Vec<String> = subject.dims.iter().map(|(name, size)| format!("{name} {size}")).collect();
        for kernel in &subject.kernels {
            judge(&lines, &shape.join(", "), kernel);
        }
    }
    let (m, n, k) = (256, 256, 256);
    gated(device, m, n, k);
    let lines = fresh_lines();
    // A tile of x for as many outputs as half a tile is wide, of which gate and up give one each; three outputs.
    let ideal = (m / 64) * (n / 32) * (64 + 64) * k + 3 * m * n;
    judge(&lines, "rows 256, n 256, k 256", &kernel("matmul_gated_64", ideal, TILED, TILED));
    assert!(excesses.is_empty(), "{excesses:#?}");
}

fn gated(device: &CudaDevice, m: usize, n: usize, k: usize) {
    let [x, gate, up] = [m * k, n * k, n * k].map(|len| device.upload(&vec![0.5f32; len]).unwrap());
    let [mut g, mut u, mut h] = [(); 3].map(|()| device.scratch::<f32>(m * n).unwrap());
    let (x, gate, up) = (x.view(), gate.view(), up.view());
    let args = matmul::cuda::Gated { m, n, k, x: &x, gate: &gate, up: &up };
    let (mut g, mut u, mut h) = (g.view_mut(), u.view_mut(), h.view_mut());
    let rung = matmul::cuda::Rung::Tile64;
    matmul::cuda::gated_on(device, rung, &args, Some((&mut g, &mut u)), &mut h).unwrap();
}
