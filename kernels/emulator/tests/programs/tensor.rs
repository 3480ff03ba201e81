//! Tensor cores and collecting instructions, against plain loops over the layouts that the PTX manual lists.

use super::Run;

/// A kernel that takes `a + b + 4` registers from the array, 32 lanes each, and stores four.
fn mma_kernel(opcode: &str, a: usize, b: usize) -> String {
    let names = |first: usize, count: usize| {
        (first..first + count).map(|r| format!("%r{r}")).collect::<Vec<_>>().join(", ")
    };
    let sources = a + b + 4;
    let mut text = String::from(
        ".version 8.8\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out)\n{\n.reg .b32 %r<40>;\n\
         .reg .b64 %rd<4>;\nld.param.u64 %rd1, [out];\nmov.u32 %r39, %tid.x;\nmul.wide.u32 %rd2, %r39, 4;\n\
         add.s64 %rd1, %rd1, %rd2;\n",
    );
    for register in 0..sources {
        text += &format!("ld.global.u32 %r{register}, [%rd1+{}];\n", 128 * register);
    }
    text += &format!(
        "{opcode} {{{}}}, {{{}}}, {{{}}}, {{{}}};\n",
        names(sources, 4),
        names(0, a),
        names(a, b),
        names(a + b, 4)
    );
    for register in sources..sources + 4 {
        text += &format!("st.global.u32 [%rd1+{}], %r{register};\n", 128 * register);
    }
    text + "ret;\n}\n"
}

/// Where the manual puts element `i` of a lane's part of A: (row, column). `wide` is elements in a register.
fn place_of_a(lane: usize, i: usize, wide: usize) -> (usize, usize) {
    let (group, thread) = (lane / 4, lane % 4);
    let upper = (i / wide).is_multiple_of(2);
    let column = thread * wide + i % wide + if i < 2 * wide { 0 } else { 4 * wide };
    (if upper { group } else { group + 8 }, column)
}

fn place_of_b(lane: usize, i: usize, wide: usize) -> (usize, usize) {
    (lane % 4 * wide + i % wide + i / wide * 4 * wide, lane / 4)
}

fn place_of_c(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2)
}

/// Runs a product of matrices given as words of one element each; the 16 x 8 words of d.
fn product(opcode: &str, k: usize, wide: usize, a: &[u32], b: &[u32], c: &[u32]) -> Vec<u32> {
    let (of_a, of_b) = (16 * k / 32 / wide, 8 * k / 32 / wide);
    let mut words = vec![0u32; 32 * (of_a + of_b + 8)];
    let bits = 32 / wide;
    let mask = u32::MAX >> (32 - bits);
    for lane in 0..32 {
        for i in 0..of_a * wide {
            let (row, column) = place_of_a(lane, i, wide);
            words[32 * (i / wide) + lane] |= (a[row * k + column] & mask) << (bits * (i % wide));
        }
        for i in 0..of_b * wide {
            let (row, column) = place_of_b(lane, i, wide);
            words[32 * (of_a + i / wide) + lane] |= (b[row * 8 + column] & mask) << (bits * (i % wide));
        }
        for i in 0..4 {
            let (row, column) = place_of_c(lane, i);
            words[32 * (of_a + of_b + i) + lane] = c[row * 8 + column];
        }
    }
    let source = mma_kernel(opcode, of_a, of_b);
    Run::new(&source, "k").both(&mut words);
    let mut d = vec![0; 128];
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = place_of_c(lane, i);
            d[row * 8 + column] = words[32 * (of_a + of_b + 4 + i) + lane];
        }
    }
    d
}

/// Numbers of no pattern, the same in every run.
fn noise(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn products_of_int8_are_exact() {
    for (k, types) in [(16, ["s8", "s8"]), (32, ["s8", "s8"]), (32, ["u8", "s8"]), (16, ["u8", "u8"])] {
        let (mut a, mut b) = (noise(16 * k, 1), noise(k * 8, 2));
        // The extremes meet in the first row and column.
        a[..k].fill(0x80);
        b.iter_mut().step_by(8).for_each(|b| *b = 0x80);
        let mut c = noise(128, 3);
        (c[5], c[127]) = (i32::MAX as u32, i32::MIN as u32);
        let value = |ty: &str, bits: u32| {
            if ty == "s8" { i64::from(bits as u8 as i8) } else { i64::from(bits as u8) }
        };
        for saturate in [false, true] {
            let how = if saturate { ".satfinite" } else { "" };
            let [of_a, of_b] = types;
            let opcode = format!("mma.sync.aligned.m16n8k{k}.row.col{how}.s32.{of_a}.{of_b}.s32");
            let d = product(&opcode, k, 4, &a, &b, &c);
            for row in 0..16 {
                for column in 0..8 {
                    let terms = (0..k).map(|i| value(of_a, a[row * k + i]) * value(of_b, b[i * 8 + column]));
                    let sum = terms.sum::<i64>() + i64::from(c[row * 8 + column] as i32);
                    let sum = if saturate { sum.clamp(-(1 << 31), (1 << 31) - 1) } else { sum };
                    assert_eq!(d[row * 8 + column], sum as u32, "{opcode}: {row}, {column}");
                }
            }
        }
    }
}

/// Small integers, whose sums every class has exactly: places and types, not roundings.
#[test]
fn products_of_halves_put_every_element_in_its_place() {
    for (k, ty) in [(8, "bf16"), (16, "bf16"), (8, "f16"), (16, "f16")] {
        let small = |word: &u32| (word % 15) as f32 - 7.0;
        let (a, b): (Vec<f32>, Vec<f32>) =
            (noise(16 * k, 4).iter().map(small).collect(), noise(k * 8, 5).iter().map(small).collect());
        let c: Vec<f32> = noise(128, 6).iter().map(small).collect();
        let encode = |x: &f32| {
            if ty == "bf16" {
                return x.to_bits() >> 16;
            }
            // Integers up to 7 have a binary16 that begins as their binary32 does, under another bias.
            let bits = x.to_bits();
            let magnitude = if *x == 0.0 { 0 } else { ((bits & 0x7fff_ffff) - (112 << 23)) >> 13 };
            bits >> 16 & 0x8000 | magnitude
        };
        let bits = |x: &[f32]| x.iter().map(encode).collect::<Vec<u32>>();
        let opcode = format!("mma.sync.aligned.m16n8k{k}.row.col.f32.{ty}.{ty}.f32");
        let raw: Vec<u32> = c.iter().map(|x| x.to_bits()).collect();
        let d = product(&opcode, k, 2, &bits(&a), &bits(&b), &raw);
        for row in 0..16 {
            for column in 0..8 {
                let sum = (0..k).map(|i| a[row * k + i] * b[i * 8 + column]).sum::<f32>();
                // The tensor core has one zero.
                let expected = (sum + c[row * 8 + column] + 0.0).to_bits();
                assert_eq!(d[row * 8 + column], expected, "{opcode}: {row}, {column}");
            }
        }
    }
}

#[test]
fn matrices_are_loaded_as_they_lie_and_transposed() {
    for (count, transposed) in [(1, false), (2, false), (4, false), (1, true), (2, true), (4, true)] {
        let how = if transposed { ".trans" } else { "" };
        let registers = (0..count).map(|r| format!("%r{}", 10 + r)).collect::<Vec<_>>().join(", ");
        let mut source = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out)\n{{\n\
             .shared .align 16 .b8 board[512];\n.reg .b32 %r<20>;\n.reg .b64 %rd<4>;\nld.param.u64 %rd1, [out];\n\
             mov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 16;\nadd.s64 %rd3, %rd1, %rd2;\n\
             ld.global.v4.u32 {{%r2, %r3, %r4, %r5}}, [%rd3];\nmov.u32 %r6, board;\nshl.b32 %r7, %r1, 4;\n\
             add.u32 %r7, %r6, %r7;\nst.shared.v4.u32 [%r7], {{%r2, %r3, %r4, %r5}};\nbar.sync 0;\n\
             ldmatrix.sync.aligned.m8n8.x{count}{how}.shared.b16 {{{registers}}}, [%r7];\n"
        );
        for register in 0..count {
            source += &format!("st.global.u32 [%rd3+{}], %r{};\n", 4 * register, 10 + register);
        }
        source += "ret;\n}\n";
        #[repr(align(16))]
        struct Words([u32; 128]);
        let before: [u32; 128] = std::array::from_fn(|i| ((2 * i as u32 + 1) << 16) | (2 * i as u32));
        let mut words = Words(before);
        Run { check: true, ..Run::new(&source, "k") }.on(&mut [&mut words.0]).unwrap();
        for lane in 0..32 {
            for matrix in 0..count {
                // Half `column` of row `row`: rows are 16 bytes, one after the other.
                let half = |row: usize, column: usize| (8 * (8 * matrix + row) + column) as u32;
                let (slow, fast) = (lane / 4, lane % 4 * 2);
                let expected = if transposed {
                    half(fast + 1, slow) << 16 | half(fast, slow)
                } else {
                    half(slow, fast + 1) << 16 | half(slow, fast)
                };
                assert_eq!(
                    words.0[4 * lane + matrix],
                    expected,
                    "x{count}{how}, lane {lane}, matrix {matrix}"
                );
            }
        }
    }
}

/// Runs an instruction from `%r2` (the lane's word; `%rd4` the same twice over) to `%r3`, members in `%r4`.
fn collected(instruction: &str, words: [u32; 32]) -> [u32; 32] {
    let source = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out)\n{{\n.reg .pred %p<3>;\n\
         .reg .b32 %r<9>;\n.reg .b64 %rd<9>;\nld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\n\
         mul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd3, %rd1, %rd2;\nld.global.u32 %r2, [%rd3];\n\
         mov.b64 %rd4, {{%r2, %r2}};\nsetp.lt.u32 %p1, %r1, 16;\n@!%p1 bra REST;\nmov.u32 %r4, 0xffff;\n{instruction}\n\
         bra END;\nREST:\nmov.u32 %r4, 0xffff0000;\n{instruction}\nEND:\nst.global.u32 [%rd3], %r3;\nret;\n}}\n"
    );
    let mut out = words;
    Run::new(&source, "k").both(&mut out);
    out
}

#[test]
fn halves_of_a_warp_collect_on_their_own() {
    let mut words: [u32; 32] = std::array::from_fn(|i| noise(32, 7)[i] % 5);
    (words[3], words[20], words[21]) = (0xffff_fff0, 0x8000_0000, 0x7fff_ffff);
    type Fold = fn(u32, u32) -> u32;
    let folds: [(&str, Fold); 8] = [
        ("add.u32", |a, b| a.wrapping_add(b)),
        ("min.u32", |a, b| a.min(b)),
        ("max.u32", |a, b| a.max(b)),
        ("min.s32", |a, b| (a as i32).min(b as i32) as u32),
        ("max.s32", |a, b| (a as i32).max(b as i32) as u32),
        ("and.b32", |a, b| a & b),
        ("or.b32", |a, b| a | b),
        ("xor.b32", |a, b| a ^ b),
    ];
    for (name, fold) in folds {
        let found = collected(&format!("redux.sync.{name} %r3, %r2, %r4;"), words);
        for (lane, found) in found.iter().enumerate() {
            let half = &words[lane / 16 * 16..][..16];
            assert_eq!(*found, half.iter().copied().reduce(fold).unwrap(), "{name}, lane {lane}");
        }
    }
    for (ty, register) in [("b32", "%r2"), ("b64", "%rd4")] {
        let found = collected(&format!("match.any.sync.{ty} %r3, {register}, %r4;"), words);
        for (lane, found) in found.iter().enumerate() {
            let like = (lane / 16 * 16..lane / 16 * 16 + 16).filter(|&other| words[other] == words[lane]);
            assert_eq!(*found, like.fold(0, |all, at| all | 1 << at), "{ty}, lane {lane}");
        }
        let all = format!("match.all.sync.{ty} %r3|%p2, {register}, %r4;\n@%p2 add.u32 %r3, %r3, 1;");
        let mut same = words;
        same[16..].fill(9);
        let found = collected(&all, same);
        assert_eq!((found[0], found[31]), (0, 0xffff_0001), "{ty}");
    }
}
