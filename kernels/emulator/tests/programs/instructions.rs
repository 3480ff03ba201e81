//! Instructions between threads, one small program each, over edge values: what the table of opcodes does not hold.

use super::Run;

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// Runs checked and unchecked on fresh copies; what became of the arrays.
fn run(source: &str, block: u32, arrays: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut results = [false, true].map(|check| {
        let mut copies = arrays.to_vec();
        let mut slices: Vec<&mut [u32]> = copies.iter_mut().map(Vec::as_mut_slice).collect();
        let run = Run { block, check, ..Run::new(source, "k") };
        run.on(&mut slices).unwrap_or_else(|report| panic!("{report}\n{source}"));
        copies
    });
    assert_eq!(results[0], results[1], "checks changed the result of\n{source}");
    std::mem::take(&mut results[0])
}

/// 64 words of edge values, different for each `seed`.
fn edges(seed: u64) -> Vec<u64> {
    let special = [0, 1, 5, 9, u64::MAX, 1 << 31, (1 << 31) - 1, 1 << 63, (1 << 63) - 1, 0xffff_ffff];
    let random = |i: u64| (i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ seed;
    (0..32).map(|i| if i % 3 == 2 { random(i) } else { special[((i + seed) % 10) as usize] }).collect()
}

fn words(values: &[u64]) -> Vec<u32> {
    values.iter().flat_map(|value| [*value as u32, (value >> 32) as u32]).collect()
}

/// 32 lanes change one cell, in global or shared memory, and keep what they found.
fn atomic_program(returns: bool, space: &str, what: &str, ty: &str) -> String {
    let bits = &ty[1..];
    let place = if space == "shared" { "board" } else { "%rd1" };
    let sources = if what == "cas" { "%x1, %x2" } else { "%x1" };
    let old = if returns { "atom" } else { "red" };
    let to = if returns { "%x3, " } else { "" };
    format!(
        "{HEAD}.visible .entry k(.param .u64 cell, .param .u64 a, .param .u64 b, .param .u64 out)\n{{\n\
         .shared .align 8 .b8 board[8];\n.reg .pred %p<2>;\n.reg .b32 %r<4>;\n.reg .b64 %rd<9>;\n.reg .b{bits} %x<6>;\n\
         ld.param.u64 %rd1, [cell];\nld.param.u64 %rd2, [a];\nld.param.u64 %rd3, [b];\nld.param.u64 %rd4, [out];\n\
         mov.u32 %r1, %tid.x;\nmul.wide.u32 %rd5, %r1, 8;\nadd.s64 %rd2, %rd2, %rd5;\nadd.s64 %rd3, %rd3, %rd5;\n\
         add.s64 %rd4, %rd4, %rd5;\nld.global.b{bits} %x1, [%rd2];\nld.global.b{bits} %x2, [%rd3];\n\
         setp.eq.u32 %p1, %r1, 0;\n@%p1 ld.global.b{bits} %x4, [%rd1];\n@%p1 st.shared.b{bits} [board], %x4;\n\
         bar.sync 0;\nmov.b{bits} %x3, 0;\n{old}.{space}.{what}.{ty} {to}[{place}], {sources};\nbar.sync 0;\n\
         @%p1 ld.shared.b{bits} %x5, [board];\nst.global.b{bits} [%rd4], %x3;\n{}ret;\n}}\n",
        if space == "shared" { format!("@%p1 st.global.b{bits} [%rd1], %x5;\n") } else { String::new() }
    )
}

/// What the cell holds after one lane.
fn changed(what: &str, ty: &str, old: u64, a: u64, b: u64) -> u64 {
    let wide = ty.ends_with("64");
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let signed = |value: u64| if wide { value as i64 } else { i64::from(value as i32) };
    let (old, a, b) = (cut(old), cut(a), cut(b));
    let first_is_less = if ty.starts_with('s') { signed(old) < signed(a) } else { old < a };
    cut(match what {
        "add" => old.wrapping_add(a),
        "min" => {
            if first_is_less {
                old
            } else {
                a
            }
        }
        "max" => {
            if first_is_less {
                a
            } else {
                old
            }
        }
        "and" => old & a,
        "or" => old | a,
        "xor" => old ^ a,
        "exch" => a,
        "cas" => {
            if old == a {
                b
            } else {
                old
            }
        }
        "inc" => {
            if old >= a {
                0
            } else {
                old + 1
            }
        }
        "dec" => {
            if old == 0 || old > a {
                a
            } else {
                old - 1
            }
        }
        other => unreachable!("{other}"),
    })
}

#[test]
fn every_atomic() {
    let forms = [
        ("add", &["u32", "s32", "u64"][..]),
        ("min", &["u32", "s32", "u64", "s64"]),
        ("max", &["u32", "s32", "u64", "s64"]),
        ("and", &["b32", "b64"]),
        ("or", &["b32", "b64"]),
        ("xor", &["b32", "b64"]),
        ("exch", &["b32", "b64"]),
        ("cas", &["b32", "b64"]),
        ("inc", &["u32"]),
        ("dec", &["u32"]),
    ];
    for (what, types) in forms {
        for ty in types {
            for (returns, space) in [(true, "global"), (true, "shared"), (false, "global"), (false, "shared")]
            {
                if !returns && matches!(what, "exch" | "cas") {
                    continue;
                }
                for begin in [0u64, 7, u64::MAX, 0x8000_0000] {
                    let (a, b) = (edges(begin % 11), edges(3));
                    let source = atomic_program(returns, space, what, ty);
                    let arrays = [words(&[begin]), words(&a), words(&b), vec![0; 64]];
                    let found = run(&source, 32, &arrays);
                    let (mut cell, mut olds) = (begin, vec![]);
                    let cut = if ty.ends_with("64") { u64::MAX } else { 0xffff_ffff };
                    for lane in 0..32 {
                        olds.push(if returns { cell & cut } else { 0 });
                        cell = changed(what, ty, cell, a[lane], b[lane]);
                    }
                    // Of 64 bits a narrow one leaves the upper half alone.
                    let last = cell & cut | begin & !cut;
                    assert_eq!(found[0], words(&[last]), "{what}.{ty} {space} from {begin:#x}");
                    assert_eq!(found[3], words(&olds), "{what}.{ty} {space} from {begin:#x}");
                }
            }
        }
    }
}

#[test]
fn every_shuffle() {
    for mode in ["up", "down", "bfly", "idx"] {
        // The last lane that may be read from, and which bits of a lane's number name its segment.
        for (clamp, segment) in [(31, 0), (0, 0), (31, 24), (7, 24), (0, 24), (5, 16), (31, 31), (12, 0)] {
            let source = format!(
                "{HEAD}.visible .entry k(.param .u64 from, .param .u64 out)\n{{\n.reg .pred %p<2>;\n.reg .b32 %r<6>;\n\
                 .reg .b64 %rd<5>;\nld.param.u64 %rd1, [from];\nld.param.u64 %rd2, [out];\nmov.u32 %r1, %tid.x;\n\
                 mul.wide.u32 %rd3, %r1, 4;\nadd.s64 %rd1, %rd1, %rd3;\nadd.s64 %rd2, %rd2, %rd3;\n\
                 ld.global.u32 %r2, [%rd1];\nadd.u32 %r3, %r1, 1000;\n\
                 shfl.sync.{mode}.b32 %r4|%p1, %r3, %r2, {}, -1;\nselp.u32 %r5, 65536, 0, %p1;\nadd.u32 %r5, %r4, %r5;\n\
                 st.global.u32 [%rd2], %r5;\nret;\n}}\n",
                clamp | segment << 8
            );
            let from: Vec<u32> =
                (0..32).map(|i| [0, 1, 2, 3, 7, 8, 16, 31, 33, 5][i % 10] ^ (i as u32 / 10)).collect();
            let found = run(&source, 32, &[from.clone(), vec![0; 32]]);
            for lane in 0..32i64 {
                let by = i64::from(from[lane as usize] % 32);
                let least = lane & segment;
                let most = least | clamp & !segment;
                let (other, inside) = match mode {
                    "up" => (lane - by, lane - by >= most),
                    "down" => (lane + by, lane + by <= most),
                    "bfly" => (lane ^ by, lane ^ by <= most),
                    _ => (least | by & !segment, (least | by & !segment) <= most),
                };
                let value = 1000 + if inside { other + 65536 } else { lane };
                assert_eq!(
                    i64::from(found[1][lane as usize]),
                    value,
                    "{mode} {clamp} {segment}, lane {lane} by {by}"
                );
            }
        }
    }
}

/// Two pairs of warps meet at barriers of their own, and a fence of each kind orders nothing that is not ordered already.
#[test]
fn barriers_of_some_warps_and_fences() {
    let source = format!(
        "{HEAD}.visible .entry k(.param .u64 out)\n{{\n.shared .align 4 .b8 board[512];\n.reg .pred %p<4>;\n\
         .reg .b32 %r<12>;\n.reg .b64 %rd<4>;\nld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\n\
         mul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd1, %rd1, %rd2;\nmov.u32 %r2, board;\nshl.b32 %r3, %r1, 2;\n\
         add.u32 %r3, %r2, %r3;\nst.shared.u32 [%r3], %r1;\nmembar.cta;\nmembar.gl;\nmembar.sys;\nfence.acq_rel.gpu;\n\
         fence.sc.cta;\nshr.u32 %r4, %r1, 6;\nadd.u32 %r4, %r4, 1;\nbarrier.sync %r4, 64;\nxor.b32 %r5, %r1, 32;\n\
         shl.b32 %r5, %r5, 2;\nadd.u32 %r5, %r2, %r5;\nld.shared.u32 %r6, [%r5];\nsetp.lt.u32 %p1, %r1, 40;\n\
         bar.red.popc.u32 %r7, %r4, 64, %p1;\nshl.b32 %r7, %r7, 16;\nor.b32 %r6, %r6, %r7;\nst.global.u32 [%rd1], %r6;\n\
         exit;\n}}\n"
    );
    let found = run(&source, 128, &[vec![0; 128]]);
    for thread in 0..128u32 {
        let counted = if thread < 64 { 40 } else { 0 };
        assert_eq!(found[0][thread as usize], thread ^ 32 | counted << 16, "thread {thread}");
    }
}
