//! Logic, moves, selection and bit fields, bit by bit.

use super::Oracle;
use super::types::Ty;

pub fn oracle(name: &str) -> Option<Oracle> {
    let (op, suffix) = name.rsplit_once('.')?;
    let ty = Ty::parse(suffix)?;
    let two = [ty, ty];
    let signed = suffix.starts_with('s');
    match op {
        "and" => Oracle::new(&two, ty, move |b| each(ty, |i| bit(b[0], i) && bit(b[1], i))),
        "or" => Oracle::new(&two, ty, move |b| each(ty, |i| bit(b[0], i) || bit(b[1], i))),
        "xor" => Oracle::new(&two, ty, move |b| each(ty, |i| bit(b[0], i) != bit(b[1], i))),
        "not" => Oracle::new(&[ty], ty, move |b| each(ty, |i| !bit(b[0], i))),
        "cnot" => Oracle::new(&[ty], ty, move |b| u64::from((0..ty.width()).all(|i| !bit(b[0], i)))),
        "mov" | "cvta.to.global" | "cvta.global" | "cvta.to.const" | "cvta.const" => {
            Oracle::new(&[ty], ty, |b| b[0])
        }
        "cvta.shared" => Oracle::new(&[ty], ty, |b| b[0].wrapping_add(0x1000_0000_0000_0000)),
        "cvta.to.shared" => Oracle::new(&[ty], ty, |b| b[0].wrapping_sub(0x1000_0000_0000_0000)),
        "cvta.local" => Oracle::new(&[ty], ty, |b| b[0].wrapping_add(0x2000_0000_0000_0000)),
        "cvta.to.local" => Oracle::new(&[ty], ty, |b| b[0].wrapping_sub(0x2000_0000_0000_0000)),
        "selp" => Oracle::new(&[ty, ty, Ty::Pred], ty, |b| if b[2] == 1 { b[0] } else { b[1] }),
        "popc" => {
            Oracle::new(&[ty], Ty::U(4), move |b| (0..ty.width()).filter(|&i| bit(b[0], i)).count() as u64)
        }
        "clz" => Oracle::new(&[ty], Ty::U(4), move |b| {
            (0..ty.width()).rev().take_while(|&i| !bit(b[0], i)).count() as u64
        }),
        "brev" => Oracle::new(&[ty], ty, move |b| each(ty, |i| bit(b[0], ty.width() - 1 - i))),
        "bfind" | "bfind.shiftamt" => {
            let shift = op != "bfind";
            Oracle::new(&[ty], Ty::U(4), move |b| {
                let sign = signed && bit(b[0], ty.width() - 1);
                let found = (0..ty.width()).rev().find(|&i| bit(b[0], i) != sign);
                found.map_or(u64::MAX, |i| u64::from(if shift { ty.width() - 1 - i } else { i }))
            })
        }
        "bfe" => Oracle::new(&[ty, Ty::Amount, Ty::Amount], ty, move |b| {
            let (at, len) = ((b[1] & 255) as u32, (b[2] & 255) as u32);
            let top = (at + len).saturating_sub(1).min(ty.width() - 1);
            let sign = signed && len > 0 && bit(b[0], top);
            each(ty, |i| if i < len && at + i < ty.width() { bit(b[0], at + i) } else { sign })
        }),
        "bfi" => Oracle::new(&[ty, ty, Ty::Amount, Ty::Amount], ty, move |b| {
            let (at, len) = ((b[2] & 255) as u32, (b[3] & 255) as u32);
            each(ty, |i| if i >= at && i < at + len { bit(b[0], i - at) } else { bit(b[1], i) })
        }),
        "shf.l.wrap" | "shf.l.clamp" | "shf.r.wrap" | "shf.r.clamp" => {
            let (left, wrap) = (op.contains(".l."), op.contains("wrap"));
            Oracle::new(&[ty, ty, Ty::Amount], ty, move |b| {
                let by = if wrap { b[2] as u32 & 31 } else { (b[2] as u32).min(32) };
                let whole = |i: u32| if i < 32 { bit(b[0], i) } else { bit(b[1], i - 32) };
                each(ty, |i| if left { whole(32 + i - by) } else { whole(i + by) })
            })
        }
        "prmt" => Oracle::new(&[ty; 3], ty, move |b| {
            let bytes: Vec<u8> = [b[0], b[1]].iter().flat_map(|word| (*word as u32).to_le_bytes()).collect();
            let pick = |i: u32| {
                let selector = (b[2] >> (4 * i)) as usize & 15;
                let byte = bytes[selector % 8];
                if selector < 8 {
                    byte
                } else if byte >= 128 {
                    255
                } else {
                    0
                }
            };
            u64::from(u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)]))
        }),
        "lop3" => Oracle::new(&[ty, ty, ty, Ty::U(4)], ty, move |b| {
            each(ty, |i| {
                let row = 4 * u32::from(bit(b[0], i)) + 2 * u32::from(bit(b[1], i)) + u32::from(bit(b[2], i));
                bit(b[3], row)
            })
        }),
        _ => None,
    }
}

fn bit(bits: u64, index: u32) -> bool {
    bits >> index & 1 != 0
}

/// The value whose bits are given; a predicate has one.
fn each(ty: Ty, value: impl Fn(u32) -> bool) -> u64 {
    (0..ty.width().max(1)).fold(0, |bits, i| bits | u64::from(value(i)) << i)
}
