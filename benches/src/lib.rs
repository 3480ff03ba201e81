//! Criterion benches over the catalogue of `kernels`.
//!
//! An op is held against its reference on the very shapes that are timed; then its time is printed as a share of its
//! bound, which is measured in the same run: the peak of fused multiply-adds or the bandwidth of memory, whichever the
//! op would reach first. Shared machines are noisy, so the share comes from the fastest samples on both sides. A shape that
//! fits the caches may pass the bandwidth of memory.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use kernels::{
    SimdPath,
    catalogue::{self, Case, Op, equal, judge},
};

pub mod probe;

#[global_allocator]
static ALLOCATOR: kernels::allocator::LineAligned = kernels::allocator::LineAligned;

/// Products beyond this many flops are held against the reference by some of their rows.
const REFERENCE_FLOPS_MAX: u64 = 1 << 29;

/// Checks and times the bench cases of all ops, under criterion's command line: a name there picks the ops whose names
/// contain it.
///
/// # Panics
/// If the check fails.
pub fn run() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    println!("{} workers, path {:?}", rayon::current_num_threads(), SimdPath::best());
    for op in catalogue::OPS.iter().filter(|op| op.name().contains(&only)) {
        for case in op.bench_cases() {
            check(*op, &case);
            time(&mut criterion, *op, &case);
        }
    }
    criterion.final_summary();
}

/// The comparison before the clock.
fn check(op: &dyn Op, case: &Case) {
    let verdict = if op.cost(case).flops <= REFERENCE_FLOPS_MAX {
        let (inputs, expected) = judge::expected(op, case);
        judge::guarded(op, case, &inputs, |i, o| op.cpu(SimdPath::best(), case, i, o))
            .and_then(|found| equal(&expected, &found).map_err(|m| m.to_string()))
    } else {
        rows_equal_reference(op, case)
    };
    if let Err(difference) = verdict {
        panic!("{} `{}` is not worth timing: {difference}", op.name(), case.label);
    }
}

/// Eight rows of the whole computation against the reference's computation of each row alone.
fn rows_equal_reference(op: &dyn Op, case: &Case) -> Result<(), String> {
    let names = op.row_buffers();
    assert!(!names.is_empty(), "{} has a bench case too large for its reference", op.name());
    let (inputs, start) = (op.inputs(case), op.outputs(case));
    let mut batch = start.clone();
    op.cpu(SimdPath::best(), case, &inputs, &mut batch);
    let rows = case.dim("rows");
    for row in (0..rows).step_by(rows.div_ceil(8)) {
        let mut alone = start.row(row, names);
        op.reference(&case.with("rows", 1), &inputs.row(row, names), &mut alone);
        equal(&alone, &batch.row(row, names)).map_err(|m| format!("row {row}: {m}"))?;
    }
    Ok(())
}

fn time(criterion: &mut Criterion, op: &dyn Op, case: &Case) {
    let inputs = op.inputs(case);
    let mut outputs = op.outputs(case);
    let cost = op.cost(case);
    let mut fastest = f64::INFINITY;
    probe::measure();
    let mut group = criterion.benchmark_group(op.name());
    group.throughput(Throughput::Bytes(cost.bytes));
    group.bench_function(BenchmarkId::from_parameter(case.label), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let start = Instant::now();
                op.cpu(SimdPath::best(), case, black_box(&inputs), black_box(&mut outputs));
                let elapsed = start.elapsed();
                fastest = fastest.min(elapsed.as_secs_f64());
                total += elapsed;
            }
            total
        });
    });
    group.finish();
    if fastest.is_finite() {
        let peak = probe::measure();
        let (flops, bytes) = (cost.flops as f64 / fastest / 1e9, cost.bytes as f64 / fastest / 1e9);
        let bound_by_compute = cost.flops as f64 / peak.gflops > cost.bytes as f64 / peak.gbytes;
        let (what, share) = if bound_by_compute {
            (format!("{flops:.0} of {:.0} GFLOP/s", peak.gflops), flops / peak.gflops)
        } else {
            (format!("{bytes:.1} of {:.1} GB/s", peak.gbytes), bytes / peak.gbytes)
        };
        println!("{} {}: {what}, {:.0} % of it\n", op.name(), case.label, 100.0 * share);
    }
}
