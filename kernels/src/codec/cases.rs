//! The lengths and inputs on which the room is judged.

use super::{Format, cpu, reference};
use crate::catalogue::{Buffer, Buffers, Case, Data, op};

fn cases() -> Vec<Case> {
    vec![
        Case::new("one", &[("count", 1)]),
        Case::new("partial block", &[("count", 100)]),
        Case::new("whole blocks", &[("count", 256)]),
        Case::new("several tasks", &[("count", 70_001)]),
        Case::edge("edge", &[("count", 1031)]),
    ]
}

fn bytes(format: Format, case: &Case) -> Buffer {
    let n = format.encoded_len(case.dim("count"));
    Buffer::new("bytes", &[n], Data::U8(vec![0x5A; n]))
}

macro_rules! encode_op {
    ($(#[$doc:meta])* $op:ident, $name:literal, $format:expr) => {
        op! {
            $(#[$doc])*
            $op = $name;
            cases = cases();
            bench = Case::new("4 M", &[("count", 1 << 22)]);
            inputs(case) = [case.values("x", &[case.dim("count")])];
            outputs(case) = [case.values("residual", &[case.dim("count")]), bytes($format, case)];
            cpu(path, _, inputs, outputs) = {
                let [mut residual] = outputs.f32_mut(["residual"]).map(|r| r.to_vec());
                let [bytes] = outputs.u8_mut(["bytes"]);
                let coded = cpu::encode_with_feedback(path, $format, inputs.f32("x"), &mut residual, bytes);
                assert_eq!(coded, Ok(()), "the catalogue's inputs are finite");
                outputs.f32_mut(["residual"])[0].copy_from_slice(&residual);
            };
            reference(_, inputs, outputs) = {
                let [mut residual] = outputs.f32_mut(["residual"]).map(|r| r.to_vec());
                let [bytes] = outputs.u8_mut(["bytes"]);
                let coded = reference::encode_with_feedback($format, inputs.f32("x"), &mut residual, bytes);
                assert_eq!(coded, Ok(()), "the catalogue's inputs are finite");
                outputs.f32_mut(["residual"])[0].copy_from_slice(&residual);
            };
            cost(case) = super::cost($format, case.dim("count"));
            rows = &[];
        }
    };
}

encode_op! {
    /// `codec.bf16`: x to residual (error feedback, in place) and bytes.
    Bf16Op, "codec.bf16", Format::Bf16
}
encode_op! {
    /// `codec.int8`: x to residual (error feedback, in place) and bytes.
    Int8Op, "codec.int8", Format::Int8
}

op! {
    /// `codec.decode_int8`: bytes to y.
    DecodeInt8Op = "codec.decode_int8";
    cases = cases();
    bench = Case::new("4 M", &[("count", 1 << 22)]);
    inputs(case) = {
        let mut encoded = vec![0; Format::Int8.encoded_len(case.dim("count"))];
        let x = case.values("x", &[case.dim("count")]);
        let x: Buffers = [x].into_iter().collect();
        let coded = reference::encode(Format::Int8, x.f32("x"), &mut encoded);
        assert_eq!(coded, Ok(()), "the catalogue's inputs are finite");
        [Buffer::new("bytes", &[encoded.len()], Data::U8(encoded))]
    };
    outputs(case) = [case.unwritten("y", &[case.dim("count")])];
    cpu(path, _, inputs, outputs) = {
        let [y] = outputs.f32_mut(["y"]);
        assert_eq!(cpu::decode(path, Format::Int8, inputs.u8("bytes"), y), Ok(()));
    };
    reference(_, inputs, outputs) = {
        let [y] = outputs.f32_mut(["y"]);
        assert_eq!(reference::decode(Format::Int8, inputs.u8("bytes"), y), Ok(()));
    };
    cost(case) = super::cost(Format::Int8, case.dim("count"));
    rows = &[];
}
