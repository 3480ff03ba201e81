//! What is peculiar to the room.

use proptest::prelude::*;

use super::{DecodeError, Format, NonFinite, decode, encode, encode_with_feedback};

const FORMATS: [Format; 3] = [Format::F32, Format::Bf16, Format::Int8];

fn encoded(format: Format, x: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; format.encoded_len(x.len())];
    encode(format, x, &mut bytes).unwrap();
    bytes
}

fn decoded(format: Format, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut y = vec![f32::NAN; count];
    decode(format, bytes, &mut y).unwrap();
    y
}

proptest! {
    #[test]
    fn what_was_decoded_encodes_to_the_same_bytes(bits in prop::collection::vec(any::<u32>(), 0..300)) {
        for format in FORMATS {
            // Magnitudes that bf16 can round without overflow.
            let finite = |bits: &u32| f32::from_bits(if bits & 0x7F00_0000 == 0x7F00_0000 { bits >> 8 } else { *bits });
            let x: Vec<f32> = bits.iter().map(finite).collect();
            let bytes = encoded(format, &x);
            prop_assert_eq!(&encoded(format, &decoded(format, &bytes, x.len())), &bytes);
        }
    }

    #[test]
    fn accepted_bytes_are_canonical(bytes in prop::collection::vec(any::<u8>(), 130)) {
        let mut y = vec![0.0; 128 + 1 - 1];
        let bytes = &bytes[..Format::Int8.encoded_len(128)];
        if decode(Format::Int8, bytes, &mut y).is_ok() {
            prop_assert_eq!(encoded(Format::Int8, &y), bytes);
        }
    }

    #[test]
    fn an_int8_code_is_off_by_half_a_step(bits in prop::collection::vec(-1000.0f32..1000.0, 1..300)) {
        let y = decoded(Format::Int8, &encoded(Format::Int8, &bits), bits.len());
        for (x, y) in bits.chunks(128).zip(y.chunks(128)) {
            let amax = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (x, y) in x.iter().zip(y) {
                // The largest code saturates, so the top half step may be a whole one.
                prop_assert!((x - y).abs() <= amax / 64.0 + 1e-30, "{x} became {y}, amax {amax}");
            }
        }
    }
}

#[test]
fn a_block_is_laid_out_as_drawn() {
    let bytes = encoded(Format::Int8, &[1.0, -0.5, 0.0, 0.996]);
    // amax 1.0 lies in [2^0, 2^1): e = 1, a step is 2^-6.
    assert_eq!(bytes, [1, 64, (-32i8) as u8, 0, 64]);
    assert_eq!(decoded(Format::Int8, &bytes, 4), [1.0, -0.5, 0.0, 1.0]);
    assert_eq!(encoded(Format::Int8, &[0.0, 0.0]), [(-52i8) as u8, 0, 0]);
    assert_eq!(encoded(Format::Bf16, &[1.0]), [0x80, 0x3F]);
    assert_eq!(encoded(Format::F32, &[-1.0]), [0, 0, 0x80, 0xBF]);
}

#[test]
fn bytes_no_encoder_writes_are_refused_with_the_place() {
    let mut y = [0.0; 2];
    let mut refuse = |bytes: &[u8]| decode(Format::Int8, bytes, &mut y).unwrap_err();
    assert!(matches!(refuse(&[1, 64]), DecodeError::Length { expected: 3, found: 2, .. }));
    assert_eq!(refuse(&[1, 64, 0x80]), DecodeError::Code { index: 1 });
    assert_eq!(refuse(&[100, 64, 0]), DecodeError::Exponent { block: 0, found: 100 });
    assert_eq!(refuse(&[1, 63, 0]), DecodeError::NotCanonical { block: 0, exponent: 1, found: 63 });
    let infinite = f32::INFINITY.to_le_bytes();
    assert_eq!(decode(Format::F32, &infinite, &mut y[..1]), Err(DecodeError::NonFinite { index: 0 }));
}

#[test]
fn what_has_no_encoding_is_named_and_the_residual_kept() {
    let mut bytes = [0; 3];
    let mut residual = [1.0, 2.0];
    let struck = encode_with_feedback(Format::Int8, &[0.0, f32::NAN], &mut residual, &mut bytes);
    assert_eq!((struck, residual), (Err(NonFinite { index: 1 }), [1.0, 2.0]));
    let struck = encode(Format::Bf16, &[f32::MAX], &mut bytes[..2]);
    assert_eq!(struck, Err(NonFinite { index: 0 }), "f32::MAX rounds to infinity in bf16");
}

#[test]
fn feedback_hands_over_what_was_lost() {
    let x = vec![0.3; 200];
    let mut residual = vec![0.0; 200];
    let mut bytes = vec![0; Format::Int8.encoded_len(200)];
    let mut total = 0.0;
    for _ in 0..50 {
        encode_with_feedback(Format::Int8, &x, &mut residual, &mut bytes).unwrap();
        total += f64::from(decoded(Format::Int8, &bytes, 200)[7]);
    }
    assert!((total / 50.0 - f64::from(x[7])).abs() < 1e-4, "a mean of {}", total / 50.0);
}
