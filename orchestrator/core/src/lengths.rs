//! Whether what a run's nodes send one another is short enough for a frame.
//!
//! Pieces and sums of a merge always are: their shards are cut so (`butterfly::Cut`).

use spec::{Outer, Run};
use wire::limits::BODY_BYTES_MAX;

/// What stands before the values of a payload and of scales, in bytes; more than either has.
const HEAD_BYTES: u64 = 64;
/// Values that share an exponent of a merge's scales, a byte each.
const SCALE_VALUES: u64 = 128;

/// Something of a run that no frame carries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} takes {found} bytes, a frame carries {BODY_BYTES_MAX}: {remedy}")]
pub struct TooLong {
    what: String,
    found: u64,
    remedy: &'static str,
}

/// Looks whether frames carry all that the nodes of a run send one another.
///
/// # Errors
/// The first thing that they do not carry.
pub fn check_lengths(run: &Run) -> Result<(), TooLong> {
    let fits = |what: &dyn Fn() -> String, bytes: u64, remedy| {
        let found = bytes.saturating_add(HEAD_BYTES);
        if found <= BODY_BYTES_MAX.into() { Ok(()) } else { Err(TooLong { what: what(), found, remedy }) }
    };
    if run.model.stage_count() > 1 {
        let boundary = plan::boundary_bytes(run);
        fits(&|| "a boundary tensor".into(), boundary, "lower data.sequences or choose boundary = \"int8\"")?;
    }
    for stage in (0..run.model.stage_count()).filter(|_| run.outer != Outer::None) {
        let scales = run.model.stage_parameters(stage).div_ceil(SCALE_VALUES);
        fits(&|| format!("what scales stage {stage} in a merge"), scales, "cut the model into more stages")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::BoundaryCodec;

    #[test]
    fn what_no_frame_carries_is_said_before_a_run_begins() {
        let run = Run::from_toml(include_str!("../../plan/src/tests/run.toml")).unwrap();
        let said = |run: &Run| check_lengths(run).map_err(|error| error.to_string());
        assert_eq!(said(&run), Ok(()));
        let mut wide = Run { boundary: BoundaryCodec::F32, ..run.clone() };
        // A sequence is 128 tokens of width 256.
        wide.data.sequences = 2047;
        assert_eq!(said(&wide), Ok(()));
        wide.data.sequences = 2048;
        let expected = "a boundary tensor takes 268435520 bytes, a frame carries 268435456: lower data.sequences or choose boundary = \"int8\"";
        assert_eq!(said(&wide), Err(expected.into()));
        wide.boundary = BoundaryCodec::Int8;
        assert_eq!(said(&wide), Ok(()));
        // A hundred thousand million parameters in as few as four stages are merged; ten times as many are not.
        let mut deep = run;
        (deep.model.dim, deep.model.ffn) = (10_240, 28_672);
        deep.model.stages = vec![23; 4];
        assert_eq!(said(&deep), Ok(()));
        deep.model.stages = vec![230; 4];
        let why = said(&deep).unwrap_err();
        let bytes = deep.model.stage_parameters(0).div_ceil(SCALE_VALUES) + HEAD_BYTES;
        assert!(why.starts_with(&format!("what scales stage 0 in a merge takes {bytes} bytes")), "{why}");
        // As many blocks as fit.
        deep.model.stages = vec![28; 4];
        assert_eq!(said(&deep), Ok(()));
        deep.model.stages = vec![29; 4];
        assert!(said(&deep).is_err());
        deep.outer = Outer::None;
        assert_eq!(said(&deep), Ok(()));
    }
}
