//! The shapes and inputs on which the room is judged.

use super::{Matmul, cpu, reference};
use crate::{
    SimdPath,
    catalogue::{Buffer, Buffers, Case, Cost, Op},
};

fn case(label: &'static str, m: usize, n: usize, k: usize) -> Case {
    Case::new(label, &[("rows", m), ("n", n), ("k", k)])
}

/// Around the register tiles (6 x 16, 14 x 32), the blocks of k (256), empty sums, single rows and columns.
fn cases() -> Vec<Case> {
    vec![
        case("one", 1, 1, 1),
        case("no k", 3, 5, 0),
        case("row", 1, 70, 33),
        case("column", 31, 1, 19),
        case("tile", 14, 32, 16),
        case("tile and one", 15, 33, 17),
        case("several blocks of k", 13, 18, 600),
        case("several tasks", 131, 47, 40),
        Case::edge("edge", &[("rows", 19), ("n", 37), ("k", 65)]),
    ]
}

/// Products of a training step of size M, and a cube.
fn bench_cases() -> Vec<Case> {
    vec![
        case("2048 x 1376 x 512", 2048, 1376, 512),
        case("2048 x 512 x 1376", 2048, 512, 1376),
        case("2048 x 2048 x 2048", 2048, 2048, 2048),
    ]
}

/// One chunk of tokens, small enough to be held against the plain reference before it is timed.
fn gradient_bench_cases() -> Vec<Case> {
    vec![case("256 x 512 x 2048", 256, 512, 2048)]
}

fn args<'a>(case: &Case, inputs: &'a Buffers) -> Matmul<'a> {
    Matmul { m: case.dim("rows"), n: case.dim("n"), k: case.dim("k"), a: inputs.f32("a"), b: inputs.f32("b") }
}

macro_rules! product {
    ($op:ident, $entry:ident, $name:literal, $what:literal, $cases:expr, $bench:expr, $a:expr, $b:expr, $c:expr, $rows:expr) => {
        #[doc = concat!("`", $name, "`: a, b to c; ", $what)]
        pub struct $op;

        impl Op for $op {
            fn name(&self) -> &'static str {
                $name
            }
            fn cases(&self) -> Vec<Case> {
                $cases
            }
            fn bench_cases(&self) -> Vec<Case> {
                $bench
            }
            fn inputs(&self, case: &Case) -> Buffers {
                let (m, n, k) = (case.dim("rows"), case.dim("n"), case.dim("k"));
                [case.values("a", &$a(m, k)), case.values("b", &$b(n, k))].into_iter().collect()
            }
            fn outputs(&self, case: &Case) -> Buffers {
                let c: fn(&Case, &[usize]) -> Buffer = $c;
                [c(case, &[case.dim("rows"), case.dim("n")])].into_iter().collect()
            }
            fn cpu(&self, path: SimdPath, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
                let [c] = outputs.f32_mut(["c"]);
                cpu::$entry(path, &args(case, inputs), c);
            }
            fn reference(&self, case: &Case, inputs: &Buffers, outputs: &mut Buffers) {
                let [c] = outputs.f32_mut(["c"]);
                reference::$entry(&args(case, inputs), c);
            }
            fn cost(&self, case: &Case) -> Cost {
                super::cost(case.dim("rows"), case.dim("n"), case.dim("k"))
            }
            fn row_buffers(&self) -> &'static [&'static str] {
                $rows
            }
        }
    };
}

product!(
    Nn,
    nn,
    "matmul.nn",
    "A is rows x k, B is k x n.",
    cases(),
    bench_cases(),
    |m, k| [m, k],
    |n, k| [k, n],
    |case, shape| case.unwritten("c", shape),
    &["a", "c"]
);
product!(
    Nt,
    nt,
    "matmul.nt",
    "A is rows x k, B is n x k.",
    cases(),
    bench_cases(),
    |m, k| [m, k],
    |n, k| [n, k],
    |case, shape| case.unwritten("c", shape),
    &["a", "c"]
);
product!(
    Tn,
    tn,
    "matmul.tn",
    "A is k x rows, B is k x n, C accumulates.",
    {
        let mut cases = cases();
        cases.push(case("three chunks", 5, 9, 2 * super::GRADIENT_TOKENS + 300));
        cases
    },
    gradient_bench_cases(),
    |m, k| [k, m],
    |n, k| [k, n],
    |case, shape| case.values("c", shape),
    &[]
);
