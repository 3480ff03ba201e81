//! Every op, one line each ([`OPS`]), and what follows from the line: the judgements of [`judge`], the golden hashes of
//! [`conformance`], the benchmarks. A device joins by running an op's [`Case`]s on the same inputs and comparing.

mod buffers;
mod compare;
pub mod conformance;
mod inputs;
pub mod judge;

pub use buffers::{Buffer, Buffers, Data};
pub use compare::{Mismatch, equal, equal_buffer};

use crate::{
    SimdPath, adamw, attention, codec, cross_entropy, embedding, matmul, merge, philox, reduce, residual,
    rms_norm, rope, swiglu,
};

/// All ops, in the order of their conformance hashes.
pub static OPS: &[&dyn Op] = &[
    &rms_norm::cases::ForwardOp,
    &rms_norm::cases::BackwardOp,
    &matmul::cases::Nn,
    &matmul::cases::Nt,
    &matmul::cases::Tn,
    &attention::cases::ForwardOp,
    &attention::cases::BackwardOp,
    &adamw::cases::StepOp,
    &swiglu::cases::ForwardOp,
    &swiglu::cases::BackwardOp,
    &rope::cases::TablesOp,
    &rope::cases::ForwardOp,
    &rope::cases::BackwardOp,
    &embedding::cases::ForwardOp,
    &embedding::cases::BackwardOp,
    &residual::cases::AddOp,
    &residual::cases::AccumulateOp,
    &cross_entropy::cases::ForwardOp,
    &cross_entropy::cases::MeanOp,
    &reduce::cases::SumSquaresOp,
    &reduce::cases::ScaleOp,
    &reduce::cases::FirstBeyondOp,
    &philox::cases::UniformOp,
    &philox::cases::NormalOp,
    &codec::cases::Bf16Op,
    &codec::cases::Int8Op,
    &codec::cases::DecodeInt8Op,
    &merge::cases::ExponentsOp,
    &merge::cases::ContributeOp,
    &merge::cases::AccumulateOp,
    &merge::cases::NesterovOp,
    &merge::cases::PlainOp,
];

/// The op called `name`, such as `rms_norm.forward`.
pub fn find(name: &str) -> Option<&'static dyn Op> {
    OPS.iter().copied().find(|op| op.name() == name)
}

/// An op as its judges see it.
pub trait Op: Sync {
    /// `room.entry`.
    fn name(&self) -> &'static str;

    /// Shapes and values on which all ways of computing the op must agree: small, odd shapes included.
    fn cases(&self) -> Vec<Case>;

    /// Shapes worth timing.
    fn bench_cases(&self) -> Vec<Case> {
        Vec::new()
    }

    /// The inputs of a case.
    fn inputs(&self, case: &Case) -> Buffers;

    /// The outputs of a case as they stand before the op runs: accumulators with content, all else unwritten.
    fn outputs(&self, case: &Case) -> Buffers;

    /// The CPU path asked for.
    fn cpu(&self, path: SimdPath, case: &Case, inputs: &Buffers, outputs: &mut Buffers);

    /// The plain reference.
    fn reference(&self, case: &Case, inputs: &Buffers, outputs: &mut Buffers);

    /// What a case costs.
    fn cost(&self, case: &Case) -> Cost;

    /// Buffers whose slowest axis is the dimension `rows`, if the rows are independent: then each row alone gives the
    /// same bits as in the batch. Outputs that are not named here (sums over rows) are not compared.
    fn row_buffers(&self) -> &'static [&'static str] {
        &[]
    }
}

/// Writes an [`Op`] from its parts.
macro_rules! op {
    (
        $(#[$doc:meta])*
        $op:ident = $name:literal;
        cases = $cases:expr;
        $(bench = $bench:expr;)?
        inputs($case_i:pat) = $inputs:expr;
        outputs($case_o:pat) = $outputs:expr;
        cpu($path:pat, $case_c:pat, $in_c:ident, $out_c:ident) = $cpu:expr;
        reference($case_r:pat, $in_r:ident, $out_r:ident) = $reference:expr;
        cost($case_k:pat) = $cost:expr;
        rows = $rows:expr;
    ) => {
        $(#[$doc])*
        pub struct $op;

        impl $crate::catalogue::Op for $op {
            fn name(&self) -> &'static str {
                $name
            }
            fn cases(&self) -> Vec<Case> {
                $cases
            }
            $(fn bench_cases(&self) -> Vec<Case> {
                vec![$bench]
            })?
            fn inputs(&self, $case_i: &Case) -> Buffers {
                $inputs.into_iter().collect()
            }
            fn outputs(&self, $case_o: &Case) -> Buffers {
                $outputs.into_iter().collect()
            }
            fn cpu(&self, $path: $crate::SimdPath, $case_c: &Case, $in_c: &Buffers, $out_c: &mut Buffers) {
                $cpu
            }
            fn reference(&self, $case_r: &Case, $in_r: &Buffers, $out_r: &mut Buffers) {
                $reference
            }
            fn cost(&self, $case_k: &Case) -> $crate::catalogue::Cost {
                $cost
            }
            fn row_buffers(&self) -> &'static [&'static str] {
                $rows
            }
        }
    };
}
pub(crate) use op;

/// What kind of numbers a case holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Mean 0, deviation 1.
    Ordinary,
    /// Zeros of both signs, subnormals, far exponents among ordinary ones.
    Edge,
}

/// One shape with one kind of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Seeds the inputs, so it is part of the conformance hashes; unique within the op.
    pub label: &'static str,
    /// Named sizes.
    pub dims: Vec<(&'static str, usize)>,
    /// What the buffers hold.
    pub values: Values,
}

impl Case {
    /// A case of ordinary values.
    pub fn new(label: &'static str, dims: &[(&'static str, usize)]) -> Self {
        Self { label, dims: dims.to_vec(), values: Values::Ordinary }
    }

    /// A case of awkward values.
    pub fn edge(label: &'static str, dims: &[(&'static str, usize)]) -> Self {
        Self { values: Values::Edge, ..Self::new(label, dims) }
    }

    /// The size called `name`.
    ///
    /// # Panics
    /// If the case has none.
    #[track_caller]
    pub fn dim(&self, name: &str) -> usize {
        match self.dims.iter().find(|(n, _)| *n == name) {
            Some((_, size)) => *size,
            None => panic!("case `{}` has no dimension `{name}`", self.label),
        }
    }

    /// The same case with another size.
    #[must_use]
    pub fn with(&self, name: &str, size: usize) -> Self {
        let mut case = self.clone();
        for (n, s) in &mut case.dims {
            if *n == name {
                *s = size;
            }
        }
        case
    }
}

/// What a case costs, at least: each input read once, each output written once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes read and written.
    pub bytes: u64,
    /// Floating-point operations, a fused multiply-add being two.
    pub flops: u64,
}
