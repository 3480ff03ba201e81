//! The evidence file: a table of contents, then the sections.

use super::{Refused, merge, refused};
use crate::replay::reads_tokens;
use spec::{Digest, Run};
use std::collections::BTreeMap;
use transport::pack as packing;
use wire::limits::BODY_BYTES_MAX;
use wire::{Evidence, ObjectRef};

/// Magic of a file about an inner step.
pub(super) const MAGIC: [u8; 4] = *b"IEV1";
const HEADER_LEN: usize = 8;
const ENTRY_LEN: usize = 48;
/// Longest case, in bytes: an audit order and what else is signed.
const CASE_BYTES_MAX: u64 = 2 << 20;
/// Longest state or payload, in bytes.
pub const OBJECT_BYTES_MAX: u64 = u32::MAX as u64;
/// Most objects of one window: as many payloads as an audit order can name, state and shard.
const OBJECTS_MAX: usize = 32 << 10;

/// Longest evidence file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 8 << 30;
/// A longer token shard does not travel with the evidence, it is handed in beside it; in bytes.
pub const SHARD_BYTES_MAX: u64 = 64 << 20;

/// A file taken apart. Every section is what the table says; nothing that was signed is checked yet.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The run, legal and of a size that can be replayed.
    pub run: Run,
    /// What was signed.
    pub case: Evidence,
    /// BLAKE3 of the case, its name.
    pub digest: Digest,
    /// Those of its objects that the file holds, each under its digest.
    pub objects: BTreeMap<Digest, Vec<u8>>,
}

/// What an evidence file holds besides the case: state, payloads, and the token shard if the stage reads it and
/// it is no longer than [`SHARD_BYTES_MAX`].
///
/// # Errors
/// The bytes are no case, or the run in it is none.
pub fn needed(case: &[u8]) -> Result<Vec<ObjectRef>, Refused> {
    if let Some(pieces) = merge::needed(case) {
        return Ok(pieces);
    }
    let case = decode_case(case)?;
    Ok(named(&case, &run_of(&case.run)?))
}

fn named(case: &Evidence, run: &Run) -> Vec<ObjectRef> {
    let order = &case.order;
    let mut objects: Vec<ObjectRef> = order.objects().collect();
    let shard = ObjectRef::train(&run.data);
    let reads = reads_tokens(run, order.stage) && !order.window.is_beginning();
    if reads && shard.bytes <= SHARD_BYTES_MAX {
        objects.push(shard);
    }
    objects
}

/// The evidence file of a case given as its canonical bytes, with those of its objects that there are.
///
/// # Errors
/// The bytes are no case, or an object is none of those [`needed`].
pub fn pack<B: AsRef<[u8]>>(case: &[u8], objects: &[B]) -> Result<Vec<u8>, Refused> {
    let named = needed(case)?;
    for object in objects.iter().map(|bytes| ObjectRef::of(bytes.as_ref())) {
        if !named.contains(&object) {
            let found = format!("{} of {} bytes", object.digest, object.bytes);
            return Err(refused("object", "one that the case names", found));
        }
    }
    let magic = if merge::needed(case).is_some() { merge::MAGIC } else { MAGIC };
    Ok(written(magic, case, objects))
}

/// A file of a case and other sections.
pub(super) fn written<B: AsRef<[u8]>>(magic: [u8; 4], case: &[u8], others: &[B]) -> Vec<u8> {
    let (mut table, mut sections) = (vec![], vec![]);
    for plain in std::iter::once(case).chain(others.iter().map(AsRef::as_ref)) {
        let object = ObjectRef::of(plain);
        let packed = packing::pack(plain);
        let section = packed.as_deref().unwrap_or(plain);
        table.extend(object.digest.as_bytes());
        table.extend(object.bytes.to_le_bytes());
        table.extend((section.len() as u64).to_le_bytes());
        sections.extend(section);
    }
    let count = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
    [&magic[..], &count.to_le_bytes(), &table, &sections].concat()
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    object: ObjectRef,
    packed_len: u64,
}

/// Takes a file apart. No length is believed before it is held against what the case names.
///
/// # Errors
/// The first byte, length or digest that is not as it should be.
pub fn unpack(file: &[u8]) -> Result<Parts, Refused> {
    let (entries, mut rest) = table(file, MAGIC)?;
    let mut entries = entries.into_iter();
    let Some(first) = entries.next() else { return Err(refused("sections", "at least the case", "none")) };
    if first.object.bytes > CASE_BYTES_MAX {
        return Err(refused("case length", format!("at most {CASE_BYTES_MAX} bytes"), first.object.bytes));
    }
    let bytes = section(&mut rest, "case", first)?;
    let case = decode_case(&bytes)?;
    let run = run_of(&case.run)?;
    let named: BTreeMap<Digest, u64> = named(&case, &run).iter().map(|o| (o.digest, o.bytes)).collect();
    let mut objects = BTreeMap::new();
    for entry in entries {
        let ObjectRef { digest, bytes } = entry.object;
        let field = format!("object {digest}");
        match named.get(&digest) {
            None => return Err(refused(field, "an object that the case names", "one that it does not")),
            Some(&expected) if bytes != expected || bytes > OBJECT_BYTES_MAX => {
                let expected = format!("{expected} bytes, at most {OBJECT_BYTES_MAX}");
                return Err(refused(field, expected, format!("{bytes} bytes")));
            }
            Some(_) => {}
        }
        let plain = section(&mut rest, &field, entry)?;
        if objects.insert(digest, plain).is_some() {
            return Err(refused(field, "it once", "it twice"));
        }
    }
    Ok(Parts { run, digest: first.object.digest, case, objects })
}

/// One section, unpacked and held against its digest.
pub(super) struct Section {
    pub object: ObjectRef,
    pub plain: Vec<u8>,
}

/// The case of a file and its other sections, none longer than it may be.
pub(super) fn sections(file: &[u8], magic: [u8; 4]) -> Result<(Section, Vec<Section>), Refused> {
    let (entries, mut rest) = table(file, magic)?;
    let mut all = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let (field, limit) = match index {
            0 => ("case".to_owned(), CASE_BYTES_MAX),
            _ => (format!("object {}", entry.object.digest), OBJECT_BYTES_MAX.min(BODY_BYTES_MAX.into())),
        };
        if entry.object.bytes > limit {
            return Err(refused(field, format!("at most {limit} bytes"), entry.object.bytes));
        }
        all.push(Section { object: entry.object, plain: section(&mut rest, &field, entry)? });
    }
    let mut all = all.into_iter();
    let first = all.next().ok_or_else(|| refused("sections", "at least the case", "none"))?;
    Ok((first, all.collect()))
}

fn table(file: &[u8], expected: [u8; 4]) -> Result<(Vec<Entry>, &[u8]), Refused> {
    let short = || refused("file", "a header and a table of sections", format!("{} bytes", file.len()));
    let Some((header, rest)) = file.split_first_chunk::<HEADER_LEN>() else { return Err(short()) };
    let (magic, count) = header.split_at(4);
    if magic != expected {
        let expected = format!("\"{}\"", String::from_utf8_lossy(&expected));
        return Err(refused("magic", expected, format!("{magic:02x?}")));
    }
    let count = number(count) as usize;
    if count > OBJECTS_MAX {
        return Err(refused("sections", format!("at most {OBJECTS_MAX}"), count));
    }
    let Some((lines, sections)) = rest.split_at_checked(count * ENTRY_LEN) else { return Err(short()) };
    let entries: Vec<Entry> = lines.chunks_exact(ENTRY_LEN).map(entry).collect();
    let expected = entries.iter().try_fold(0u64, |sum, entry| sum.checked_add(entry.packed_len));
    if expected != Some(sections.len() as u64) {
        let expected = expected.map_or("a sum of lengths".into(), |bytes| format!("{bytes} bytes"));
        return Err(refused("length of all sections", expected, format!("{} bytes", sections.len())));
    }
    Ok((entries, sections))
}

fn entry(line: &[u8]) -> Entry {
    let mut digest = [0; 32];
    digest.copy_from_slice(&line[..32]);
    let object = ObjectRef { digest: Digest(digest), bytes: number(&line[32..40]) };
    Entry { object, packed_len: number(&line[40..]) }
}

/// Up to eight bytes as a little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The next section, unpacked and held against its digest.
fn section(rest: &mut &[u8], field: &str, entry: Entry) -> Result<Vec<u8>, Refused> {
    let Entry { object: ObjectRef { digest, bytes }, packed_len } = entry;
    let length = usize::try_from(packed_len).ok().and_then(|length| rest.split_at_checked(length));
    let Some((packed, after)) = length else {
        return Err(refused(field, format!("{packed_len} bytes"), format!("{} bytes", rest.len())));
    };
    *rest = after;
    // Packing that does not pay is left out, so equal lengths mean plain bytes.
    let plain = if packed_len == bytes {
        packed.to_vec()
    } else {
        let length = u32::try_from(bytes).map_err(|_| refused(field, "less than 4 GiB", bytes))?;
        packing::unpack(packed, length)
            .map_err(|error| refused(field, format!("{bytes} bytes once unpacked"), error))?
    };
    match Digest::of(&plain) {
        found if found == digest => Ok(plain),
        found => Err(refused(format!("digest of {field}"), digest, found)),
    }
}

fn decode_case(bytes: &[u8]) -> Result<Evidence, Refused> {
    let bad = |found: String| refused("case", "the canonical bytes of one case", found);
    let (case, _) = postcard::take_from_bytes::<Evidence>(bytes).map_err(|error| bad(error.to_string()))?;
    // Two spellings of one case would have two names.
    if wire::to_bytes(&case) != bytes {
        return Err(bad("another spelling of it".into()));
    }
    Ok(case)
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
/// overflow, and none of them may ask for more memory than a stage whose state fits into an evidence file.
fn check_size(run: &Run) -> Result<(), Refused> {
    let model = &run.model;
    let wide = |number: u32| u128::from(number);
    let (dim, ffn, vocab) = (wide(model.dim), wide(model.ffn), wide(model.vocab));
    let blocks: u128 = model.stages.iter().map(|&blocks| wide(blocks)).sum();
    let tokens = wide(model.context) * u128::from(run.data.sequences);
    let widest = ffn.max(vocab).max(dim).max(wide(model.context) * wide(model.heads));
    let limits = [
        ("blocks", blocks, 1 << 16),
        ("values of a block", dim * (4 * dim + 3 * ffn + 2), 1 << 30),
        ("values of a token table", dim * vocab, 1 << 30),
        ("values of a boundary tensor", tokens * dim, u128::from(wire::limits::BODY_BYTES_MAX)),
        ("values of a microbatch's widest tensor", tokens * widest, 1 << 34),
        ("tokens", u128::from(run.data.train_tokens), 1 << 48),
    ];
    match limits.into_iter().find(|(_, found, limit)| found > limit) {
        Some((what, found, limit)) => Err(refused(format!("run: {what}"), format!("at most {limit}"), found)),
        None => Ok(()),
    }
}
