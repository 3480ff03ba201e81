//! Every row of the opcode table against an oracle written another way, over edge values, with all lanes
//! active and with every second one.
//!
//! The oracle knows opcodes by their names alone; a row it does not know fails the test, so that no row can be
//! added untried.

mod bits;
mod convert;
mod float;
mod half;
mod integer;
mod types;

use cuda_emulator::exec::alu;
use cuda_emulator::exec::launch::{Launch, launch};
use cuda_emulator::exec::load;
use types::{Sig, Ty};

/// From the bits of sources to those of the result.
type Apply = dyn Fn(&[u64]) -> u64;

/// What an opcode takes and gives, and its result for given source bits.
pub struct Oracle {
    sig: Sig,
    apply: Box<Apply>,
}

impl Oracle {
    fn new(sources: &[Ty], dst: Ty, apply: impl Fn(&[u64]) -> u64 + 'static) -> Option<Self> {
        Some(Self { sig: Sig { sources: sources.to_vec(), dst }, apply: Box::new(apply) })
    }
}

#[test]
fn every_row_agrees_with_its_oracle() {
    let mut tried = 0;
    for row in alu::rows().filter(|row| !row.name.contains('@')) {
        let name = row.name;
        let oracle = integer::oracle(name)
            .or_else(|| bits::oracle(name))
            .or_else(|| half::oracle(name))
            .or_else(|| float::oracle(name))
            .or_else(|| convert::oracle(name))
            .unwrap_or_else(|| panic!("`{name}` stands in the table but has no oracle"));
        try_one(name, &oracle);
        tried += 1;
    }
    println!("{tried} opcodes");
    assert!(tried > 300, "only {tried} rows found");
}

/// What a register holds that a masked instruction must leave alone.
const UNTOUCHED: u64 = 0xa5a5_5a5a_a5a5_5a5a;

fn try_one(name: &str, oracle: &Oracle) {
    let cases = types::cases(name, &oracle.sig.sources);
    let lanes = cases.len().next_multiple_of(32);
    let mut inputs = vec![vec![0u64; lanes]; oracle.sig.sources.len()];
    for lane in 0..lanes {
        for (input, value) in inputs.iter_mut().zip(&cases[lane % cases.len()]) {
            input[lane] = *value;
        }
    }
    let (mut all, mut half) = (vec![0u64; lanes], vec![0u64; lanes]);
    let mut params = Vec::new();
    for input in &inputs {
        params.extend((input.as_ptr() as u64).to_le_bytes());
    }
    for output in [&mut all, &mut half] {
        params.extend((output.as_mut_ptr() as u64).to_le_bytes());
    }
    let text = kernel(name, &oracle.sig);
    let module = load(&text).unwrap_or_else(|error| panic!("{name}: {}", error.quoting(&text)));
    let shape = Launch::new(lanes as u32 / 32, 32, &params);
    // SAFETY: the kernel touches one element of each array per thread, and there are as many.
    unsafe { launch(&module.programs["try"], &shape) }.unwrap_or_else(|report| panic!("{name}: {report}"));
    for lane in 0..lanes {
        let case = &cases[lane % cases.len()];
        let expected = (oracle.apply)(case) & oracle.sig.dst.mask();
        let case = || case.iter().map(|v| format!("{v:#x}")).collect::<Vec<_>>().join(", ");
        let same = |found: u64| {
            found == expected || (oracle.sig.dst.is_nan(found) && oracle.sig.dst.is_nan(expected))
        };
        assert!(same(all[lane]), "{name} ({}) gave {:#x}, expected {expected:#x}", case(), all[lane]);
        if lane % 2 == 0 {
            assert!(same(half[lane]), "guarded {name} ({}) gave {:#x}", case(), half[lane]);
        } else {
            let kept = if oracle.sig.dst == Ty::Pred { 0 } else { UNTOUCHED & oracle.sig.dst.mask() };
            assert_eq!(half[lane], kept, "{name} wrote to a lane its guard excludes");
        }
    }
}

/// A kernel that loads the sources, runs the opcode for all lanes and for even lanes, and stores both results.
fn kernel(name: &str, sig: &Sig) -> String {
    let mut text = String::from(".version 8.8\n.target sm_80\n.address_size 64\n.visible .entry try(");
    let count = sig.sources.len() + 2;
    text += &(0..count).map(|i| format!(".param .u64 p{i}")).collect::<Vec<_>>().join(", ");
    text += ")\n{\n.reg .pred %guard, %q<9>;\n.reg .b16 %h<9>;\n.reg .b32 %w<9>, %t<9>;\n.reg .b64 %d<9>, %a<9>;\n";
    text += "mov.u32 %t0, %tid.x;\nmov.u32 %t1, %ctaid.x;\nmad.lo.s32 %t0, %t1, 32, %t0;\n";
    text += "and.b32 %t2, %t0, 1;\nsetp.eq.u32 %guard, %t2, 0;\n";
    for i in 0..count {
        text += &format!("ld.param.u64 %a{i}, [p{i}];\nmad.wide.u32 %a{i}, %t0, 8, %a{i};\n");
    }
    let register = |ty: Ty, index: usize| match ty.bytes() {
        0 => format!("%q{index}"),
        1 | 2 => format!("%h{index}"),
        8 => format!("%d{index}"),
        _ => format!("%w{index}"),
    };
    let mut operands = String::new();
    for (i, ty) in sig.sources.iter().enumerate() {
        let reg = register(*ty, i);
        text += &match ty.bytes() {
            0 => format!("ld.global.u32 %t3, [%a{i}];\nsetp.ne.u32 {reg}, %t3, 0;\n"),
            1 => format!("ld.global.u8 {reg}, [%a{i}];\n"),
            bytes => format!("ld.global.b{} {reg}, [%a{i}];\n", 8 * bytes),
        };
        operands += &format!(", {reg}");
    }
    for (output, guard) in [(count - 2, ""), (count - 1, "@%guard ")] {
        let dst = register(sig.dst, 8);
        text += &match sig.dst.bytes() {
            0 => "setp.ne.u32 %q8, 0, 0;\n".to_string(),
            1 | 2 => format!("mov.b16 {dst}, {};\n", UNTOUCHED & 0xffff),
            8 => format!("mov.b64 {dst}, {UNTOUCHED};\n"),
            _ => format!("mov.b32 {dst}, {};\n", UNTOUCHED as u32),
        };
        text += &format!("{guard}{name} {dst}{operands};\n");
        text += &match sig.dst.bytes() {
            0 => format!("selp.u32 %t4, 1, 0, %q8;\nst.global.u32 [%a{output}], %t4;\n"),
            1 => format!("st.global.u8 [%a{output}], {dst};\n"),
            bytes => format!("st.global.b{} [%a{output}], {dst};\n", 8 * bytes),
        };
    }
    text + "ret;\n}\n"
}
