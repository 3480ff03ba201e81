//! The judgements every op must pass, and the pieces from which a device's own are made.

use super::{Buffers, Case, Op, equal};
use crate::SimdPath;

/// Inputs of `case`, and what the plain reference makes of them.
pub fn expected(op: &dyn Op, case: &Case) -> (Buffers, Buffers) {
    let inputs = op.inputs(case);
    let mut outputs = op.outputs(case);
    op.reference(case, &inputs, &mut outputs);
    (inputs, outputs)
}

/// What `run` makes of `inputs`, with every output between guard zones.
///
/// # Errors
/// A sentence that names the buffer whose guard zones were written.
pub fn guarded(
    op: &dyn Op,
    case: &Case,
    inputs: &Buffers,
    run: impl Fn(&Buffers, &mut Buffers),
) -> Result<Buffers, String> {
    let mut outputs = op.outputs(case).guarded();
    run(inputs, &mut outputs);
    match outputs.0.iter().find(|buffer| !buffer.guards_intact()) {
        Some(buffer) => Err(format!("{} `{}` wrote outside of `{}`", op.name(), case.label, buffer.name)),
        None => Ok(outputs.unguarded()),
    }
}

/// Every path of this CPU against the plain reference, over all cases of `op`, sentinels around all outputs; twice, so
/// that the second run must repeat the first.
///
/// # Errors
/// A sentence that names case, path, element, both values.
pub fn paths_equal_reference(op: &dyn Op) -> Result<(), String> {
    for case in op.cases() {
        let (inputs, expected) = expected(op, &case);
        for path in SimdPath::available() {
            for run in ["first", "second"] {
                let found = guarded(op, &case, &inputs, |i, o| op.cpu(path, &case, i, o))?;
                equal(&expected, &found)
                    .map_err(|m| format!("{} `{}` on {path:?}, {run} run: {m}", op.name(), case.label))?;
            }
        }
    }
    Ok(())
}

/// The same bits with each of these numbers of workers.
///
/// # Errors
/// A sentence that names case, workers, element, both values.
pub fn workers_agree(op: &dyn Op, cases: &[Case], workers: &[usize]) -> Result<(), String> {
    let mut first: Vec<Buffers> = Vec::new();
    for &n in workers {
        let pool = crate::common::float_env::pool(n).map_err(|e| format!("no pool of {n} workers: {e}"))?;
        for (index, case) in cases.iter().enumerate() {
            let mut found = op.outputs(case);
            pool.install(|| op.cpu(SimdPath::best(), case, &op.inputs(case), &mut found));
            match first.get(index) {
                None => first.push(found),
                Some(expected) => equal(expected, &found)
                    .map_err(|m| format!("{} `{}` with {n} workers: {m}", op.name(), case.label))?,
            }
        }
    }
    Ok(())
}

/// Each row alone gives the bits it has in the batch.
///
/// # Errors
/// A sentence that names case, row, element, both values.
pub fn rows_stand_alone(op: &dyn Op) -> Result<(), String> {
    let names = op.row_buffers();
    if names.is_empty() {
        return Ok(());
    }
    let keep = |outputs: &Buffers| -> Buffers {
        outputs.0.iter().filter(|b| names.contains(&b.name)).cloned().collect()
    };
    for case in op.cases() {
        let inputs = op.inputs(&case);
        let start = op.outputs(&case);
        let mut batch = start.clone();
        op.cpu(SimdPath::best(), &case, &inputs, &mut batch);
        // Of many rows a hundred tell as much as all.
        let rows = case.dim("rows");
        for row in (0..rows).step_by(rows.div_ceil(100)) {
            let alone_case = case.with("rows", 1);
            let mut alone = start.row(row, names);
            op.cpu(SimdPath::best(), &alone_case, &inputs.row(row, names), &mut alone);
            equal(&keep(&batch.row(row, names)), &keep(&alone))
                .map_err(|m| format!("{} `{}`, row {row} alone: {m}", op.name(), case.label))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::OPS;

    fn for_all(judge: impl Fn(&dyn Op) -> Result<(), String>) {
        let failures: Vec<String> = OPS.iter().filter_map(|op| judge(*op).err()).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn every_path_equals_the_reference() {
        for_all(paths_equal_reference);
    }

    #[test]
    fn one_two_and_five_workers_agree() {
        for_all(|op| workers_agree(op, &op.cases(), &[1, 2, 5]));
    }

    #[test]
    fn every_row_stands_alone() {
        for_all(rows_stand_alone);
    }

    #[test]
    fn labels_are_unique_and_every_op_has_an_edge_case() {
        for op in OPS {
            let cases = op.cases();
            for (i, case) in cases.iter().enumerate() {
                assert!(
                    cases[..i].iter().all(|other| other.label != case.label),
                    "{}: {}",
                    op.name(),
                    case.label
                );
            }
            assert!(cases.iter().any(|case| case.values == crate::catalogue::Values::Edge), "{}", op.name());
        }
    }

    #[test]
    fn a_wrong_element_is_named() {
        let op = crate::catalogue::find("rms_norm.forward").unwrap();
        let case = &op.cases()[1];
        let (_, expected) = expected(op, case);
        let mut found = expected.clone();
        let [y] = found.f32_mut(["y"]);
        y[1] = f32::from_bits(y[1].to_bits() + 3);
        let mismatch = equal(&expected, &found).unwrap_err();
        assert_eq!((mismatch.buffer, mismatch.ulps, mismatch.count), ("y", Some(3), 1));
        assert_eq!(mismatch.coordinate, [0, 1]);
    }

    #[test]
    fn a_write_outside_is_seen() {
        let op = crate::catalogue::find("rms_norm.forward").unwrap();
        let case = &op.cases()[0];
        let stray = guarded(op, case, &op.inputs(case), |_, outputs| {
            if let crate::catalogue::Data::F32(y) = &mut outputs.0[0].data {
                y[0] = 1.0;
            }
        });
        assert!(stray.is_err_and(|e| e.contains("wrote outside of `y`")));
    }
}
