//! Matrix products beside the crate `gemm`, call by call in turn, on one thread and on all: products of training steps of
//! sizes S and M in the three orientations, and cubes of 2048.
//!
//! Not under criterion, whose groups run one after another: on a shared machine only calls taken in turn compare.

use benches::probe;
use kernels::matmul::{self, Matmul};
use std::time::Instant;

/// Orientation, rows and columns of C, length of the sum.
const SHAPES: [(&str, usize, usize, usize); 15] = [
    ("nt", 2048, 256, 256),
    ("nt", 2048, 688, 256),
    ("nn", 2048, 256, 688),
    ("nn", 2048, 688, 256),
    ("tn", 256, 256, 2048),
    ("tn", 688, 256, 2048),
    ("nt", 2048, 512, 512),
    ("nt", 2048, 1376, 512),
    ("nt", 2048, 4096, 512),
    ("nn", 2048, 512, 1376),
    ("tn", 1376, 512, 2048),
    ("tn", 4096, 512, 2048),
    ("nn", 2048, 2048, 2048),
    ("nt", 2048, 2048, 2048),
    ("tn", 2048, 2048, 2048),
];

/// Seconds spent on a shape, by both together.
const SECONDS: f64 = 1.0;

fn main() {
    // A test run asks only whether the bench is built.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, all];
    counts.dedup();
    println!("| product | threads | GFLOP/s | of the peak | gemm | of the peak | ratio |");
    println!("|---|---|---|---|---|---|---|");
    for threads in counts {
        match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) => pool.install(|| SHAPES.iter().for_each(|shape| compare(threads, shape))),
            Err(error) => println!("not run: {threads} threads cannot be started ({error})"),
        }
    }
}

fn compare(threads: usize, &(name, m, n, k): &(&str, usize, usize, usize)) {
    let values = |len: usize, modulus: usize| -> Vec<f32> {
        (0..len).map(|i| (i % modulus) as f32 * 0.1 - 0.7).collect()
    };
    let (a, b) = (values(m * k, 17), values(n * k, 13));
    let (mut ours, mut theirs) = (vec![0.0; m * n], vec![0.0; m * n]);
    let args = Matmul { m, n, k, a: &a, b: &b };
    let product = |c: &mut [f32]| match name {
        "nn" => matmul::nn(&args, c),
        "nt" => matmul::nt(&args, c),
        _ => matmul::tn(&args, c),
    };
    let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    let peer = |c: &mut [f32]| {
        let (a_row, a_k) = if name == "tn" { (1, m as isize) } else { (k as isize, 1) };
        let (b_k, b_column) = if name == "nt" { (1, k as isize) } else { (n as isize, 1) };
        let adds = name == "tn";
        // SAFETY: strides and extents are those of the three slices, which our own product has checked.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                n as isize,
                adds,
                a.as_ptr(),
                a_k,
                a_row,
                b.as_ptr(),
                b_column,
                b_k,
                f32::from(u8::from(adds)),
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    };
    // The first calls warm up, and must agree.
    product(&mut ours);
    peer(&mut theirs);
    for (x, y) in ours.iter().zip(&theirs) {
        assert!((x - y).abs() <= 1e-3 * (1.0 + y.abs()), "{name} {m} x {n} x {k}: {x} against {y}");
    }
    let (mut times, mut peer_times) = (vec![], vec![]);
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < SECONDS || times.len() < 5 {
        times.push(seconds(|| product(&mut ours)));
        peer_times.push(seconds(|| peer(&mut theirs)));
    }
    let peak = probe::measure().gflops;
    let [ours, theirs] = [times, peer_times].map(|mut times| {
        times.sort_by(f64::total_cmp);
        2.0 * (m * n * k) as f64 / times[times.len() / 2] / 1e9
    });
    println!(
        "| {name} {m} x {n} x {k} | {threads} | {ours:.0} | {:.0} % | {theirs:.0} | {:.0} % | {:.2} |",
        100.0 * ours / peak,
        100.0 * theirs / peak,
        ours / theirs
    );
}

fn seconds(f: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    f();
    begin.elapsed().as_secs_f64()
}
