//! The evidence file: a table of contents, then the sections.
//!
//! A file may be longer than memory: what it holds beyond [`PACKED_BYTES_MAX`] lies in it as it is, so that whoever maps the file
//! holds none of it, and whoever writes it passes it on.

use super::case::{decode, run_of};
use super::{Refused, merge, refused};
use crate::replay::reads_tokens;
use spec::{Digest, Run};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use transport::pack as packing;
use wire::limits::BODY_BYTES_MAX;
use wire::{Evidence, ObjectRef};

/// Magic of a file about an inner step.
pub(super) const MAGIC: [u8; 4] = *b"IEV1";
const HEADER_LEN: usize = 8;
const ENTRY_LEN: usize = 48;
/// Longest case, in bytes: an audit order and what else is signed.
const CASE_BYTES_MAX: u64 = 2 << 20;
/// Most objects of one window: as many payloads as an audit order can name, state and shard.
const OBJECTS_MAX: usize = 32 << 10;

/// Most that the packed sections of a file are, once unpacked, in bytes together: as much as the body of a frame.
pub const PACKED_BYTES_MAX: u64 = BODY_BYTES_MAX as u64;
/// A longer token shard does not travel with the evidence, it is handed in beside it; in bytes.
pub const SHARD_BYTES_MAX: u64 = 64 << 20;

/// Objects, each under its digest: those that were packed, and those that lie where they were read.
pub type Objects<'a> = BTreeMap<Digest, Cow<'a, [u8]>>;

/// A file taken apart. Every section is what the table says; nothing that was signed is checked yet.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    /// The run, legal and of a size that can be replayed.
    pub run: Run,
    /// What was signed.
    pub case: Evidence,
    /// BLAKE3 of the case, its name.
    pub digest: Digest,
    /// Those of its objects that the file holds.
    pub objects: Objects<'a>,
}

impl<'a> Parts<'a> {
    /// A case given as its canonical bytes, with those of its objects that there are: what a file of them would hold.
    ///
    /// # Errors
    /// The bytes are no case, or an object is none of those [`needed`].
    pub fn of<B: AsRef<[u8]>>(case: &[u8], objects: &'a [B]) -> Result<Self, Refused> {
        let decoded: Evidence = decode(case)?;
        let run = run_of(&decoded.run)?;
        let objects = by_digest(check_named(&named(&decoded, &run), objects)?);
        Ok(Self { run, case: decoded, digest: Digest::of(case), objects })
    }
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
    let case: Evidence = decode(case)?;
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

/// Those objects, which must all be named.
pub(super) fn check_named<'a, B: AsRef<[u8]>>(
    named: &[ObjectRef],
    objects: &'a [B],
) -> Result<Vec<(ObjectRef, &'a [u8])>, Refused> {
    let object = |bytes: &'a B| match (ObjectRef::of(bytes.as_ref()), bytes.as_ref()) {
        (object, bytes) if named.contains(&object) => Ok((object, bytes)),
        (ObjectRef { digest, bytes }, _) => {
            Err(refused("object", "one that the case names", format!("{digest} of {bytes} bytes")))
        }
    };
    objects.iter().map(object).collect()
}

/// Each under its digest.
pub(super) fn by_digest<'a>(objects: Vec<(ObjectRef, &'a [u8])>) -> Objects<'a> {
    objects.into_iter().map(|(object, bytes)| (object.digest, bytes.into())).collect()
}

/// The evidence file of a case given as its canonical bytes, with those of its objects that there are; see [`Packed`].
///
/// # Errors
/// As [`Packed::of`].
pub fn pack<B: AsRef<[u8]>>(case: &[u8], objects: &[B]) -> Result<Vec<u8>, Refused> {
    Ok(Packed::of(case, objects)?.to_bytes())
}

/// A file that is about to be written.
pub struct Packed<'a> {
    pub(super) magic: [u8; 4],
    /// What each section is once it is unpacked, and how it lies in the file.
    pub(super) sections: Vec<(ObjectRef, Cow<'a, [u8]>)>,
}

impl<'a> Packed<'a> {
    /// The file of a case given as its canonical bytes, with those of its objects that there are.
    ///
    /// # Errors
    /// The bytes are no case, or an object is none of those [`needed`].
    pub fn of<B: AsRef<[u8]>>(case: &'a [u8], objects: &'a [B]) -> Result<Self, Refused> {
        let objects = check_named(&needed(case)?, objects)?;
        let magic = if merge::needed(case).is_some() { merge::MAGIC } else { MAGIC };
        Ok(Self::new(magic, case, objects))
    }

    /// A file of a case and other sections.
    pub(super) fn new(magic: [u8; 4], case: &'a [u8], others: Vec<(ObjectRef, &'a [u8])>) -> Self {
        let all: Vec<(ObjectRef, &[u8])> =
            std::iter::once((ObjectRef::of(case), case)).chain(others).collect();
        let is_short = all.iter().map(|(object, _)| object.bytes).sum::<u64>() <= PACKED_BYTES_MAX;
        let section = |(object, plain): (ObjectRef, &'a [u8])| {
            let packed = is_short.then(|| packing::pack(plain)).flatten();
            (object, packed.map_or(Cow::Borrowed(plain), Cow::Owned))
        };
        Self { magic, sections: all.into_iter().map(section).collect() }
    }

    /// Writes it, from the first byte to the last.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        out.write_all(&self.magic)?;
        out.write_all(&u32::try_from(self.sections.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        for (object, section) in &self.sections {
            out.write_all(object.digest.as_bytes())?;
            out.write_all(&object.bytes.to_le_bytes())?;
            out.write_all(&(section.len() as u64).to_le_bytes())?;
        }
        self.sections.iter().try_for_each(|(_, section)| out.write_all(section))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Memory takes it all.
        let _ = self.write(&mut bytes);
        bytes
    }
}

/// Takes a file apart. No length is believed before it is held against what the case names.
///
/// # Errors
/// The first byte, length or digest that is not as it should be.
pub fn unpack(file: &[u8]) -> Result<Parts<'_>, Refused> {
    let mut sections = Sections::of(file, MAGIC)?;
    let first = sections.case()?;
    let case: Evidence = decode(&first.plain)?;
    let run = run_of(&case.run)?;
    let objects = sections.objects(&named(&case, &run))?;
    Ok(Parts { run, digest: first.object.digest, case, objects })
}

/// One section, unpacked and held against its digest.
pub(super) struct Section<'a> {
    pub object: ObjectRef,
    pub plain: Cow<'a, [u8]>,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    object: ObjectRef,
    packed_len: u64,
}

/// The sections of a file that were not read yet.
pub(super) struct Sections<'a> {
    entries: std::vec::IntoIter<Entry>,
    rest: &'a [u8],
    /// Of packed sections, what they may still be once unpacked.
    room: u64,
}

impl<'a> Sections<'a> {
    pub fn of(file: &'a [u8], magic: [u8; 4]) -> Result<Self, Refused> {
        let (entries, rest) = table(file, magic)?;
        Ok(Self { entries: entries.into_iter(), rest, room: PACKED_BYTES_MAX })
    }

    /// The first.
    pub fn case(&mut self) -> Result<Section<'a>, Refused> {
        self.next("case", CASE_BYTES_MAX)?.ok_or_else(|| refused("sections", "at least the case", "none"))
    }

    /// All others, none longer than may lie packed.
    pub fn short(mut self) -> Result<Vec<Section<'a>>, Refused> {
        let mut all = Vec::new();
        while let Some(section) = self.next("section", PACKED_BYTES_MAX)? {
            all.push(section);
        }
        Ok(all)
    }

    /// All others, which must be of those named, each at most once.
    pub fn objects(mut self, named: &[ObjectRef]) -> Result<Objects<'a>, Refused> {
        let named: BTreeMap<Digest, u64> = named.iter().map(|o| (o.digest, o.bytes)).collect();
        let mut objects = BTreeMap::new();
        while let Some(entry) = self.entries.next() {
            let ObjectRef { digest, bytes } = entry.object;
            let field = format!("object {digest}");
            match named.get(&digest) {
                None => return Err(refused(field, "an object that the case names", "one that it does not")),
                Some(&expected) if bytes != expected => {
                    return Err(refused(field, format!("{expected} bytes"), format!("{bytes} bytes")));
                }
                Some(_) => {}
            }
            let Section { plain, .. } = self.read(&field, entry)?;
            if objects.insert(digest, plain).is_some() {
                return Err(refused(field, "it once", "it twice"));
            }
        }
        Ok(objects)
    }

    fn next(&mut self, field: &str, limit: u64) -> Result<Option<Section<'a>>, Refused> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        if entry.object.bytes > limit {
            return Err(refused(
                format!("{field} length"),
                format!("at most {limit} bytes"),
                entry.object.bytes,
            ));
        }
        self.read(field, entry).map(Some)
    }

    /// The next section, held against its digest. Packing that does not pay is left out, so equal lengths mean plain bytes.
    fn read(&mut self, field: &str, entry: Entry) -> Result<Section<'a>, Refused> {
        let Entry { object, packed_len } = entry;
        let length = usize::try_from(packed_len).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((packed, after)) = length else {
            return Err(refused(field, format!("{packed_len} bytes"), format!("{} bytes", self.rest.len())));
        };
        self.rest = after;
        let plain = if packed_len == object.bytes {
            Cow::Borrowed(packed)
        } else {
            self.unpacked(field, object, packed)?
        };
        match Digest::of(&plain) {
            found if found == object.digest => Ok(Section { object, plain }),
            found => Err(refused(format!("digest of {field}"), object.digest, found)),
        }
    }

    fn unpacked(&mut self, field: &str, object: ObjectRef, packed: &[u8]) -> Result<Cow<'a, [u8]>, Refused> {
        let (room, bytes) = (self.room, object.bytes);
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= room);
        let Some(length) = length else {
            let expected = format!("at most {room} bytes, or to lie as it is");
            return Err(refused(format!("{field}, packed"), expected, format!("{bytes} bytes")));
        };
        self.room -= bytes;
        let plain = packing::unpack(packed, length);
        plain.map(Cow::Owned).map_err(|error| refused(field, format!("{bytes} bytes once unpacked"), error))
    }
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
