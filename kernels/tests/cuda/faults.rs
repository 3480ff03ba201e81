//! What kernels do where the CPU side returns an error or panics: status words, rows of NaN, refusals. And entry points
//! that no catalogue op reaches.

use kernels::attention::Shape;
use kernels::codec::{self, Format};
use kernels::device::{CudaDevice, DeviceError};
use kernels::{attention, cross_entropy, embedding, merge, reduce};

use crate::support::device;

const FORMATS: [Format; 3] = [Format::F32, Format::Bf16, Format::Int8];
const NO_FAULT: u32 = codec::cuda::NO_FAULT;

/// `count` finite numbers of many magnitudes.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 - 100.3) * f32::powi(2.0, i as i32 * 7 % 40 - 20)).collect()
}

struct Encoded {
    bytes: Vec<u8>,
    residual: Vec<f32>,
    status: u32,
}

fn encode(device: &CudaDevice, format: Format, x: &[f32], residual: Option<&[f32]>) -> Encoded {
    let on_device = device.upload(x).unwrap();
    let mut bytes = device.upload(&vec![0x5Au8; format.encoded_len(x.len())]).unwrap();
    let mut status = device.upload(&[NO_FAULT]).unwrap();
    let mut kept = device.upload(residual.unwrap_or(&[])).unwrap();
    {
        let (x, mut bytes, mut status) = (on_device.view(), bytes.view_mut(), status.view_mut());
        match residual {
            None => codec::cuda::encode(device, format, &x, &mut bytes, &mut status),
            Some(_) => {
                let mut kept = kept.view_mut();
                codec::cuda::encode_with_feedback(device, format, &x, &mut kept, &mut bytes, &mut status)
            }
        }
        .unwrap();
    }
    Encoded {
        bytes: device.download(&bytes.view()).unwrap(),
        residual: device.download(&kept.view()).unwrap(),
        status: device.download(&status.view()).unwrap()[0],
    }
}

fn decode(device: &CudaDevice, format: Format, bytes: &[u8], count: usize) -> (Vec<f32>, u32) {
    let bytes = device.upload(bytes).unwrap();
    let mut y = device.upload(&vec![f32::NAN; count]).unwrap();
    let mut status = device.upload(&[NO_FAULT]).unwrap();
    codec::cuda::decode(device, format, &bytes.view(), &mut y.view_mut(), &mut status.view_mut()).unwrap();
    (device.download(&y.view()).unwrap(), device.download(&status.view()).unwrap()[0])
}

#[test]
fn every_format_is_encoded_and_decoded_as_on_the_cpu() {
    let Some(device) = device() else { return };
    for count in [0, 1, 127, 128, 301] {
        let (x, before) = (numbers(count), numbers(count + 5)[5..].to_vec());
        for format in FORMATS {
            let mut bytes = vec![0; format.encoded_len(count)];
            codec::encode(format, &x, &mut bytes).unwrap();
            let found = encode(&device, format, &x, None);
            assert_eq!((&found.bytes, found.status), (&bytes, NO_FAULT), "{format:?}, {count}");

            let mut y = vec![0.0; count];
            codec::decode(format, &bytes, &mut y).unwrap();
            assert_eq!(decode(&device, format, &bytes, count), (y, NO_FAULT), "{format:?}, {count}");

            let mut residual = before.clone();
            codec::encode_with_feedback(format, &x, &mut residual, &mut bytes).unwrap();
            let found = encode(&device, format, &x, Some(&before));
            assert_eq!((found.bytes, found.residual), (bytes, residual), "{format:?}, {count}");
        }
    }
}

#[test]
fn an_element_without_an_encoding_lowers_the_status_and_changes_no_residual() {
    let Some(device) = device() else { return };
    for format in FORMATS {
        // The last is finite, but bf16 rounds it to infinity.
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let (mut x, residual) = (numbers(1000), numbers(1000));
            (x[777], x[300], x[301]) = (broken, broken, broken);
            let mut bytes = vec![0; format.encoded_len(x.len())];
            let expected =
                codec::encode(format, &x, &mut bytes).map_or_else(|e| e.index as u32, |()| NO_FAULT);
            assert_eq!(expected, if broken == f32::MAX && format != Format::Bf16 { NO_FAULT } else { 300 });
            assert_eq!(encode(&device, format, &x, None).status, expected, "{format:?} {broken}");
            let found = encode(&device, format, &x, Some(&residual));
            assert_eq!(found.status, expected, "{format:?} {broken}");
            assert_eq!(found.residual == residual, expected != NO_FAULT, "{format:?} {broken}");
        }
    }
}

#[test]
fn bytes_that_no_encoder_writes_lower_the_status() {
    let Some(device) = device() else { return };
    let count = 300;
    let mut good = vec![0; Format::Int8.encoded_len(count)];
    codec::encode(Format::Int8, &numbers(count), &mut good).unwrap();
    let spoiled = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut small = good.clone();
    small[3 + 256..].fill(63);
    for (block, bytes) in [
        (1, spoiled(1, 75)),
        (0, spoiled(0, (-53i8) as u8)),
        (2, spoiled(3 + 299, 0x80)),
        (2, small),
        (NO_FAULT, good.clone()),
    ] {
        let refused = codec::decode(Format::Int8, &bytes, &mut vec![0.0; count]).is_err();
        assert_eq!(refused, block != NO_FAULT);
        assert_eq!(decode(&device, Format::Int8, &bytes, count).1, block);
    }
    let bits = [1.0f32, f32::INFINITY, f32::NAN];
    let f32s: Vec<u8> = bits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let bf16s: Vec<u8> = bits.iter().flat_map(|x| x.to_le_bytes()[2..].to_vec()).collect();
    assert_eq!(decode(&device, Format::F32, &f32s, 3).1, 1);
    assert_eq!(decode(&device, Format::Bf16, &bf16s, 3).1, 1);
}

#[test]
fn a_change_that_is_not_finite_contributes_nothing() {
    let Some(device) = device() else { return };
    let (old, mut local, residual) = (numbers(500), numbers(501)[1..].to_vec(), vec![0.25; 500]);
    (local[390], local[129]) = (f32::INFINITY, f32::NAN);
    let [old, local] = [&old, &local].map(|x| device.upload(x).unwrap());
    let (old, local) = (old.view(), local.view());
    let change = merge::cuda::Contribution { old: &old, local: &local };
    let mut kept = device.upload(&residual).unwrap();
    let mut exponents = device.upload(&[0i8; 4]).unwrap();
    let mut codes = device.upload(&[7i16; 500]).unwrap();

    let mut status = device.upload(&[NO_FAULT]).unwrap();
    let (mut e, mut s) = (exponents.view_mut(), status.view_mut());
    merge::cuda::exponents(&device, &change, &kept.view(), &mut e, &mut s).unwrap();
    assert_eq!(device.download(&status.view()).unwrap(), [129]);

    let mut status = device.upload(&[NO_FAULT]).unwrap();
    let (mut q, mut s) = (codes.view_mut(), status.view_mut());
    let e = exponents.view();
    merge::cuda::contribute(&device, &change, &e, 8, &mut kept.view_mut(), &mut q, &mut s).unwrap();
    assert_eq!(device.download(&status.view()).unwrap(), [129]);
    assert_eq!(device.download(&kept.view()).unwrap(), residual);
    assert_eq!(device.download(&codes.view()).unwrap(), [7i16; 500]);
}

#[test]
fn exponents_are_shared_as_on_the_cpu() {
    let Some(device) = device() else { return };
    let mut shared: Vec<i8> = (0..300).map(|i| (i * 37 % 127) as i8 - 52).collect();
    let other: Vec<i8> = (0..300).map(|i| (i * 91 % 127) as i8 - 52).collect();
    let mut on_device = device.upload(&shared).unwrap();
    let others = device.upload(&other).unwrap();
    merge::cuda::share_exponents(&device, &mut on_device.view_mut(), &others.view()).unwrap();
    merge::share_exponents(&mut shared, &other);
    assert_eq!(device.download(&on_device.view()).unwrap(), shared);
}

/// Block sums so far apart that f64 rounds them, and their order shows.
#[test]
fn block_sums_are_folded_in_order() {
    let Some(device) = device() else { return };
    let mut g = vec![0.0f32; 70 * reduce::BLOCK];
    for (i, block) in g.chunks_mut(reduce::BLOCK).enumerate() {
        block[i] = 1.1 * f32::powi(2.0, i as i32 * 29 % 71 - 35);
    }
    let expected = reduce::sum_squares(&g);
    let reversed: Vec<f32> = g.iter().rev().copied().collect();
    assert_ne!(expected.to_bits(), reduce::sum_squares(&reversed).to_bits(), "the order does not show");
    let on_device = device.upload(&g).unwrap();
    let mut sum = device.upload(&[f64::NAN]).unwrap();
    let mut workspace = device.scratch(reduce::cuda::workspace_len(g.len())).unwrap();
    let (mut s, mut w) = (sum.view_mut(), workspace.view_mut());
    reduce::cuda::sum_squares(&device, &on_device.view(), &mut s, &mut w).unwrap();
    assert_eq!(device.download(&sum.view()).unwrap()[0].to_bits(), expected.to_bits());
}

#[test]
fn norm_and_clip_scale_are_the_hosts() {
    let Some(device) = device() else { return };
    let judge = |sums: &[f64], clip: f64| {
        let on_device = device.upload(sums).unwrap();
        let mut norm = device.upload(&[-1.0f64]).unwrap();
        let mut scale = device.upload(&[-1.0f32]).unwrap();
        let (mut n, mut s) = (norm.view_mut(), scale.view_mut());
        reduce::cuda::clip_scale(&device, &on_device.view(), clip, &mut n, &mut s).unwrap();
        let found = device.download(&norm.view()).unwrap()[0];
        let expected = reduce::global_norm(sums.iter().copied());
        assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{sums:?}");
        let scale = device.download(&scale.view()).unwrap()[0];
        match reduce::clip_scale(expected, clip) {
            Some(expected) => assert_eq!(scale.to_bits(), expected.to_bits(), "{sums:?}, {clip}"),
            None => assert!(scale.is_nan(), "{sums:?}"),
        }
    };
    judge(&[], 1.0);
    judge(&[0.25], 1.0);
    judge(&[0.1, 1e17, 3.3, 1e-9], 1.0);
    judge(&[4.0, 1e-300, 0.7], 0.123);
    judge(&[1.0, f64::INFINITY], 1.0);
    judge(&[f64::NAN, 1.0], 1.0);
}

/// The host checks tokens; should one slip through, no foreign memory is touched.
#[test]
fn a_token_outside_of_the_vocabulary_reaches_no_memory() {
    let Some(device) = device() else { return };
    let (vocab, dim) = (3, 8);
    let table = numbers(vocab * dim);
    let tokens = device.upload(&[1u32, 3, 0, u32::MAX]).unwrap();
    let on_device = device.upload(&table).unwrap();
    let (tokens, view) = (tokens.view(), on_device.view());
    let mut y = device.upload(&[0.0f32; 32]).unwrap();
    let args = embedding::cuda::Forward { vocab, dim, tokens: &tokens, table: &view };
    embedding::cuda::forward(&device, &args, &mut y.view_mut()).unwrap();
    let y = device.download(&y.view()).unwrap();
    assert_eq!((&y[..8], &y[16..24]), (&table[8..16], &table[..8]));
    assert!(y[8..16].iter().chain(&y[24..]).all(|y| y.is_nan()));

    let dy = device.upload(&[1.0f32; 32]).unwrap();
    let mut dtable = device.upload(&[0.0f32; 24]).unwrap();
    let mut workspace = device.scratch(embedding::cuda::workspace_len(4)).unwrap();
    let dy = dy.view();
    let args = embedding::cuda::Backward { vocab, dim, tokens: &tokens, dy: &dy };
    let (mut d, mut w) = (dtable.view_mut(), workspace.view_mut());
    embedding::cuda::backward(&device, &args, &mut d, &mut w).unwrap();
    let expected: Vec<f32> = (0..24).map(|i| if i < 16 { 1.0 } else { 0.0 }).collect();
    assert_eq!(device.download(&dtable.view()).unwrap(), expected);

    let logits = device.upload(&[0.5f32; 8]).unwrap();
    let targets = device.upload(&[4u32, 3]).unwrap();
    let (logits, targets) = (logits.view(), targets.view());
    let args =
        cross_entropy::cuda::Forward { rows: 2, vocab: 4, logits: &logits, targets: &targets, weight: 1.0 };
    let mut loss = device.upload(&[0.0f32; 2]).unwrap();
    let mut dlogits = device.upload(&[0.0f32; 8]).unwrap();
    cross_entropy::cuda::forward(&device, &args, &mut loss.view_mut(), &mut dlogits.view_mut()).unwrap();
    let loss = device.download(&loss.view()).unwrap();
    assert!(loss[0].is_nan() && loss[1].is_finite(), "{loss:?}");
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let Some(device) = device() else { return };
    let shape = Shape { batch: 1, seq: 1, heads: 1, kv_heads: 1, head_dim: 132 };
    let memory = device.upload(&[0.0f32; 132]).unwrap();
    let x = memory.view();
    let args = attention::cuda::Forward { shape, q: &x, k: &x, v: &x };
    let [mut o, mut m, mut l] = [132, 1, 1].map(|len| device.scratch(len).unwrap());
    let error =
        attention::cuda::forward(&device, &args, &mut o.view_mut(), &mut m.view_mut(), &mut l.view_mut())
            .unwrap_err();
    assert!(
        matches!(error, DeviceError::TooLarge { what: "head_dim", found: 132, most: 128, .. }),
        "{error}"
    );
}
