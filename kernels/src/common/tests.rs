//! The shared arithmetic.

use super::{
    float_env, host,
    r128::{r128, r128_simd},
    scalar,
    simd::{self, MAX_LANES, Simd, SimdPath, dispatch},
};
use crate::philox::{self, Stream};

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Bit patterns of all kinds: a third arbitrary, a third of nearby exponents, a third tiny.
fn pattern(i: u64, which: usize) -> f32 {
    let word = philox::block([5, which as u32], [i as u32, (i >> 32) as u32, 0, 0])[0];
    f32::from_bits(match i % 3 {
        0 => word,
        1 => (word & 0x83FF_FFFF) | 0x3C00_0000,
        _ => word & 0x81FF_FFFF,
    })
}

#[test]
fn the_exact_fma_is_the_hardware_fma() {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "fma")]
        fn hardware(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }
        if !is_x86_feature_detected!("fma") {
            println!("not run: this CPU has no FMA to compare with");
            return;
        }
        for i in 0..3_000_000 {
            let (a, b) = (pattern(i, 0), pattern(i, 1));
            // Cancellation is where a second rounding would show.
            let c = if i % 2 == 0 { pattern(i, 2) } else { -(a * b) * (1.0 + pattern(i, 2)) };
            // SAFETY: the CPU has FMA.
            let expected = unsafe { hardware(a, b, c) };
            let found = scalar::fma_exact(a, b, c);
            assert!(same(expected, found), "fma({a:e}, {b:e}, {c:e}): {expected:e}, found {found:e}");
        }
    }
}

#[test]
fn there_is_no_second_rounding() {
    // The exact value is 1 + 2^-24 + 2^-60: f64 rounds it to a tie of f32, which would then go to the even 1.
    let a = 2.0f32.powi(-24) * (1.0 + 2.0f32.powi(-12));
    let b = 1.0 - 2.0f32.powi(-12) + 2.0f32.powi(-24);
    assert_eq!((f64::from(a) * f64::from(b) + 1.0) as f32, 1.0, "these numbers cannot tell");
    assert_eq!(scalar::fma_exact(a, b, 1.0), 1.0 + f32::EPSILON);
}

/// Distance in ulps of f32 from an exact value.
fn ulps(found: f32, exact: f64) -> f64 {
    let ulp = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
    (f64::from(found) - exact).abs() / ulp
}

#[test]
fn exp_and_exp2p_are_within_an_ulp() {
    let mut worst = (0.0f64, 0.0f64);
    for i in 0..200_000 {
        let x = -87.0 + i as f32 * (175.0 / 200_000.0);
        worst.0 = worst.0.max(ulps(scalar::exp(x), f64::from(x).exp()));
        let y = -(i as f32) * (125.0 / 200_000.0);
        worst.1 = worst.1.max(ulps(scalar::exp2p(y), f64::from(y).exp2()));
    }
    assert!(worst.0 < 0.9 && worst.1 < 0.8, "{worst:?} ulps");
    assert_eq!((scalar::exp2p(0.0), scalar::exp2p(-1.0), scalar::exp(0.0)), (1.0, 0.5, 1.0));
}

#[test]
fn exp_ends_as_the_contract_says() {
    assert_eq!(scalar::exp(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(scalar::exp(-87.34).to_bits(), 0);
    assert_eq!(scalar::exp(88.73), f32::INFINITY);
    assert!(scalar::exp(88.72).is_finite() && scalar::exp(f32::NAN).is_nan());
    assert_eq!(scalar::exp2p(f32::NEG_INFINITY).to_bits(), 0);
    assert!(scalar::exp2p(-126.0) > 0.0 && scalar::exp2p(f32::NAN).is_nan());
}

#[inline(always)]
fn exponentials<S: Simd>(s: S, x: &[f32; MAX_LANES]) -> [[f32; MAX_LANES]; 2] {
    let mut out = [[0.0; MAX_LANES]; 2];
    for i in (0..MAX_LANES).step_by(S::LANES) {
        s.store(simd::exp(s, s.load(&x[i..])), &mut out[0][i..]);
        s.store(simd::exp2p(s, s.load(&x[i..])), &mut out[1][i..]);
    }
    out
}

#[test]
fn vector_exponentials_equal_the_scalar_ones() {
    for i in 0..40_000u64 {
        let x: [f32; MAX_LANES] = std::array::from_fn(|l| {
            let word = philox::block([6, 0], [i as u32, l as u32, 0, 0])[0];
            if l % 2 == 0 { f32::from_bits(word) } else { (word >> 8) as f32 / 65_536.0 - 135.0 }
        });
        for path in SimdPath::available() {
            let found = dispatch!(path, |s| exponentials(s, &x));
            for l in 0..MAX_LANES {
                assert!(same(found[0][l], scalar::exp(x[l])), "exp({:e}) on {path:?}", x[l]);
                let base2 = x[l] > 0.0 || same(found[1][l], scalar::exp2p(x[l]));
                assert!(base2, "exp2p({:e}) on {path:?}", x[l]);
            }
        }
    }
}

#[test]
fn host_functions_are_accurate() {
    let close = |name: &str, x: f64, found: f64, expected: f64| {
        assert!(
            (found - expected).abs() <= 4e-16 * (1.0 + expected.abs()),
            "{name}({x}): {found}, {expected}"
        );
    };
    for i in 1..50_000u32 {
        let x = f64::from(i) * 0.37;
        close("ln", x, host::ln(x), x.ln());
        close("ln", 1.0 / x, host::ln(1.0 / x), (1.0 / x).ln());
        let (cos, sin) = host::cos_sin(x);
        close("cos", x, cos, x.cos());
        close("sin", x, sin, x.sin());
        let y = -f64::from(i) * 4e-4;
        assert!((host::exp(y) / y.exp() - 1.0).abs() < 2e-15, "exp({y})");
    }
    assert!(host::ln(-1.0).is_nan() && host::ln(0.0) == f64::NEG_INFINITY);
    close("ln", 5e-324, host::ln(5e-324), 5e-324f64.ln());
}

#[test]
fn r128_differs_from_a_plain_sum_and_not_among_paths() {
    let mut x = vec![0.0; 16_384 * 2 + 777];
    philox::uniform(&Stream { seed: 1, tensor: 2, step: 0, purpose: 0 }, 0, &mut x);
    let expected = r128(x.len(), |i, acc| acc + x[i]);
    assert_ne!(expected, x.iter().fold(0.0, |sum, x| sum + x), "these numbers cannot tell orders apart");
    for path in SimdPath::available() {
        let found = dispatch!(path, |s| r128_simd(
            s,
            x.len(),
            #[inline(always)]
            |i, acc| s.add(acc, s.load(&x[i..])),
            #[inline(always)]
            |i, acc| acc + x[i]
        ));
        assert_eq!(expected.to_bits(), found.to_bits(), "{path:?}");
    }
}

#[test]
fn a_thread_that_flushes_subnormals_is_refused() {
    float_env::assert_default();
    #[cfg(target_arch = "x86_64")]
    {
        let set = |mxcsr: u32| {
            // SAFETY: ldmxcsr reads four bytes of a live u32; no reserved bit is set, all exceptions stay masked.
            unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack)) };
        };
        let flushed = std::thread::spawn(move || {
            set(0x9F80);
            let refused = std::panic::catch_unwind(float_env::assert_default).is_err();
            set(0x1F80);
            refused
        });
        assert!(flushed.join().unwrap(), "flush-to-zero went unnoticed");
    }
}

#[test]
fn a_path_the_cpu_lacks_is_refused() {
    let lacking = [SimdPath::Avx2, SimdPath::Avx512].into_iter().find(|path| !path.is_available());
    let Some(path) = lacking else {
        println!("not run: this CPU has every path");
        return;
    };
    let attempt = std::panic::catch_unwind(|| dispatch!(path, |s| s.fma1(1.0, 1.0, 1.0)));
    assert!(attempt.is_err());
}
