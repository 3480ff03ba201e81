//! Comparison to the bit, and where it fails.

use std::fmt;

use super::{Buffer, Buffers, Data};

/// The first element in which two results differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// Buffer.
    pub buffer: &'static str,
    /// Coordinate in the buffer's shape.
    pub coordinate: Vec<usize>,
    /// Expected value and its bits.
    pub expected: String,
    /// Found value and its bits.
    pub found: String,
    /// Distance of two finite f32 in units of the last place.
    pub ulps: Option<u64>,
    /// Elements that differ in this buffer.
    pub count: usize,
    /// Elements of this buffer.
    pub of: usize,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { buffer, coordinate, expected, found, ulps, count, of } = self;
        write!(f, "`{buffer}`{coordinate:?}: expected {expected}, found {found}")?;
        if let Some(ulps) = ulps {
            write!(f, ", {ulps} ulps apart")?;
        }
        write!(f, "; {count} of {of} elements differ")
    }
}

impl std::error::Error for Mismatch {}

/// Compares all buffers; NaN equals NaN, whatever its payload and sign.
///
/// # Errors
/// The first [`Mismatch`].
///
/// # Panics
/// If the two do not hold the same buffers.
pub fn equal(expected: &Buffers, found: &Buffers) -> Result<(), Mismatch> {
    assert_eq!(expected.0.len(), found.0.len(), "results hold different numbers of buffers");
    for (e, f) in expected.0.iter().zip(&found.0) {
        equal_buffer(e, f)?;
    }
    Ok(())
}

/// Compares one buffer.
///
/// # Errors
/// The first [`Mismatch`].
///
/// # Panics
/// If names, shapes or types differ.
pub fn equal_buffer(expected: &Buffer, found: &Buffer) -> Result<(), Mismatch> {
    assert_eq!((expected.name, &expected.shape), (found.name, &found.shape), "results have different shapes");
    match (&expected.data, &found.data) {
        (Data::F32(e), Data::F32(f)) => first(expected, e, f, same_f32, show_f32, ulps),
        (Data::F64(e), Data::F64(f)) => first(expected, e, f, same_f64, |x| format!("{x:e}"), |_, _| None),
        (Data::U32(e), Data::U32(f)) => exact(expected, e, f),
        (Data::I64(e), Data::I64(f)) => exact(expected, e, f),
        (Data::I16(e), Data::I16(f)) => exact(expected, e, f),
        (Data::I8(e), Data::I8(f)) => exact(expected, e, f),
        (Data::U8(e), Data::U8(f)) => exact(expected, e, f),
        (e, f) => panic!("`{}` is {} here and {} there", expected.name, e.type_name(), f.type_name()),
    }
}

fn exact<T: Copy + PartialEq + fmt::Display>(at: &Buffer, e: &[T], f: &[T]) -> Result<(), Mismatch> {
    first(at, e, f, |e, f| e == f, |x| x.to_string(), |_, _| None)
}

fn first<T: Copy>(
    at: &Buffer,
    expected: &[T],
    found: &[T],
    same: impl Fn(T, T) -> bool,
    show: impl Fn(T) -> String,
    ulps: impl Fn(T, T) -> Option<u64>,
) -> Result<(), Mismatch> {
    assert_eq!(expected.len(), found.len(), "`{}` has different lengths", at.name);
    let mut differing = (0..expected.len()).filter(|&i| !same(expected[i], found[i]));
    let Some(index) = differing.next() else { return Ok(()) };
    Err(Mismatch {
        buffer: at.name,
        coordinate: coordinate(index, &at.shape),
        expected: show(expected[index]),
        found: show(found[index]),
        ulps: ulps(expected[index], found[index]),
        count: 1 + differing.count(),
        of: expected.len(),
    })
}

fn coordinate(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut coordinate = vec![0; shape.len()];
    for (c, size) in coordinate.iter_mut().zip(shape).rev() {
        *c = index % size;
        index /= size;
    }
    coordinate
}

fn same_f32(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn same_f64(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn show_f32(x: f32) -> String {
    format!("{x:e} ({:#010x})", x.to_bits())
}

/// Steps from one f32 to the other along the line of all f32.
fn ulps(a: f32, b: f32) -> Option<u64> {
    let place = |x: f32| {
        let magnitude = i64::from(x.to_bits() & 0x7FFF_FFFF);
        if x.is_sign_negative() { -magnitude } else { magnitude }
    };
    (a.is_finite() && b.is_finite()).then(|| place(a).abs_diff(place(b)))
}
