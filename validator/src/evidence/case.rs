//! What every kind of evidence begins with: a case in its one spelling, of a run that can be replayed, about what the reader knows.

use super::{Refused, refused};
use serde::{Serialize, de::DeserializeOwned};
use spec::Run;
use wire::Signed;

/// A case of one kind, of its canonical bytes alone: two spellings would have two names.
pub(super) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let bad = |found: String| refused("case", "the canonical bytes of one case", found);
    let (case, _) = postcard::take_from_bytes::<T>(bytes).map_err(|error| bad(error.to_string()))?;
    if wire::to_bytes(&case) == bytes { Ok(case) } else { Err(bad("another spelling of it".into())) }
}

pub(super) fn run_of(bytes: &[u8]) -> Result<Run, Refused> {
    let bad = |found: String| refused("run", "the canonical bytes of a legal run", found);
    let run: Run = postcard::from_bytes(bytes).map_err(|error| bad(error.to_string()))?;
    run.check().map_err(|error| bad(error.to_string()))?;
    if run.canonical_bytes() != bytes {
        return Err(bad("another spelling of it".into()));
    }
    check_size(&run)?;
    Ok(run)
}

/// A run is the accuser's word until its id is found in the accused's receipts: no arithmetic on its sizes may
/// overflow. How much memory its stage may ask for, the length of its state or weights says: the engine looks at that first.
fn check_size(run: &Run) -> Result<(), Refused> {
    let model = &run.model;
    let wide = |number: u32| u128::from(number);
    let (dim, ffn, vocab) = (wide(model.dim), wide(model.ffn), wide(model.vocab));
    let blocks: u128 = model.stages.iter().map(|&blocks| wide(blocks)).sum();
    let tokens = wide(model.context) * u128::from(run.data.sequences);
    let widest = ffn.max(vocab).max(dim).max(wide(model.context) * wide(model.heads));
    let limits = [
        ("blocks", blocks, 1 << 16),
        ("values of a block", dim * (4 * dim + 3 * ffn + 2), 1 << 40),
        ("values of a token table", dim * vocab, 1 << 40),
        ("values of a boundary tensor", tokens * dim, u128::from(wire::limits::BODY_BYTES_MAX)),
        ("values of a microbatch's widest tensor", tokens * widest, 1 << 34),
        ("tokens", u128::from(run.data.train_tokens), 1 << 48),
    ];
    match limits.into_iter().find(|(_, found, limit)| found > limit) {
        Some((what, found, limit)) => Err(refused(format!("run: {what}"), format!("at most {limit}"), found)),
        None => Ok(()),
    }
}

/// What the reader knows of a field, if anything, is what stands there.
pub(super) fn same<T: ToString>(field: &str, known: Option<T>, found: impl ToString) -> Result<(), Refused> {
    match known.map(|known| known.to_string()) {
        Some(expected) if expected != found.to_string() => Err(refused(field, expected, found)),
        _ => Ok(()),
    }
}

pub(super) fn signature<T: wire::Signable>(field: &str, signed: &Signed<T>) -> Result<(), Refused> {
    let valid = format!("one by {}", signed.signer);
    signed.verify().map(drop).map_err(|_| refused(field, valid, "one that does not hold"))
}
