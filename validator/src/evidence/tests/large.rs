//! States that no memory has: what a file holds of them stays in the file.

use super::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Counts what is held, by all tests of this program together.
struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[global_allocator]
static HELD: Counting = Counting { now: AtomicUsize::new(0), most: AtomicUsize::new(0) };

/// More than all tests together hold, and a quarter of what any of those here would hold of a state.
const HELD_BYTES_MAX: usize = 1 << 30;

// SAFETY: the system's allocator does the work, with what the caller promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.now.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

impl Counting {
    fn count(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes, Relaxed) + bytes;
        self.most.fetch_max(now, Relaxed);
    }
}

/// Zeros that nobody writes to, which takes no memory.
fn zeros(len: usize) -> Vec<u8> {
    vec![0; len]
}

/// What is held is counted for all of the program: one after another.
static ONE_BY_ONE: Mutex<()> = Mutex::new(());

/// Whether less was held since than a quarter of what there is to judge.
fn holds_little<T>(judge: impl FnOnce() -> T) -> T {
    let before = HELD.now.load(Relaxed);
    HELD.most.store(before, Relaxed);
    let judged = judge();
    let held = HELD.most.load(Relaxed).saturating_sub(before);
    assert!(held < HELD_BYTES_MAX, "{held} bytes were held");
    judged
}

/// A state of 4 GiB and a byte of zeros, which is none: the accused bound it, so it is convicted.
#[test]
fn a_state_longer_than_four_gib_is_judged_where_it_lies() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut draft = honest();
    let digest = "1c5383e3e425b8b27d54e1b6bf91bb3320b8ba1496f7483f87b5f4490a542794".parse().unwrap();
    let bound = ObjectRef { digest, bytes: (4 << 30) + 1 };
    draft.receipts[0].state = Some(bound.digest);
    let mut case = draft.case();
    case.order.state = bound;
    let case = wire::to_bytes(&case);
    let mut sections: Vec<_> = [&case]
        .into_iter()
        .chain(&draft.objects[1..])
        .map(|bytes| (ObjectRef::of(bytes), bytes.into()))
        .collect();
    let last = 8 + 48 * sections.len();
    sections.push((bound, Default::default()));
    let mut begin = Packed { magic: *b"IEV1", sections }.to_bytes();
    begin[last + 40..last + 48].copy_from_slice(&bound.bytes.to_le_bytes());
    let mut file = zeros(begin.len() + bound.bytes as usize);
    file[..begin.len()].copy_from_slice(&begin);
    let Ok(Outcome::Convicted(conviction)) = holds_little(|| decide(&file)) else {
        panic!("{:?}", decide(&file))
    };
    assert!(conviction.finding.sentence().contains("state before the window"), "{conviction:?}");
}

#[test]
fn what_is_longer_than_a_frame_carries_is_not_packed_and_a_long_file_is_mapped() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let draft = honest();
    let long = zeros(PACKED_BYTES_MAX as usize + 1);
    let mut case = draft.case();
    case.order.inputs.push(ObjectRef::of(&long));
    let case = wire::to_bytes(&case);
    let objects: Vec<&[u8]> = draft.objects.iter().chain([&long]).map(|bytes| &bytes[..]).collect();
    let file = holds_little(|| Packed::of(&case, &objects).unwrap());
    assert!(file.sections.iter().all(|(object, section)| section.len() as u64 == object.bytes));
    let folder = tempfile::tempdir().unwrap();
    for (len, is_mapped) in [(64 << 20, false), ((64 << 20) + 1, true)] {
        let path = folder.path().join("file");
        std::fs::File::create(&path).unwrap().set_len(len).unwrap();
        let bytes = FileBytes::open(&path).unwrap();
        assert_eq!((bytes.len() as u64, matches!(bytes, FileBytes::Mapped(_))), (len, is_mapped));
    }
}

#[test]
fn a_stage_of_any_size_asks_for_no_more_memory_than_its_state_is_long() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut draft = honest();
    // Blocks of sixteen thousand million values.
    (draft.run.model.dim, draft.run.model.ffn) = (1 << 15, 3 << 15);
    draft.run.check().unwrap();
    let id = draft.run.id();
    draft.receipts.iter_mut().for_each(|receipt| receipt.run = id);
    let file = draft.file();
    let Ok(Outcome::Convicted(conviction)) = holds_little(|| decide(&file)) else { panic!("missed") };
    assert!(conviction.finding.sentence().contains("state before the window"), "{conviction:?}");
}

#[test]
fn what_is_packed_is_no_longer_than_a_frame_carries() {
    let draft = honest();
    let mut case = draft.case();
    case.order.state.bytes = PACKED_BYTES_MAX + 1;
    let case = wire::to_bytes(&case);
    let objects = draft.objects.iter().map(|bytes| (ObjectRef::of(bytes), &bytes[..])).collect();
    let mut file = Packed::new(*b"IEV1", &case, objects).to_bytes();
    // The state's line of the table: packed, and so long.
    let line = 8 + 48;
    assert_ne!(file[line + 32..line + 40], file[line + 40..line + 48], "it is packed");
    file[line + 32..line + 40].copy_from_slice(&(PACKED_BYTES_MAX + 1).to_le_bytes());
    let said = refusal(&file);
    assert!(said.contains("packed: expected at most") && said.contains("or to lie as it is"), "{said}");
}

#[test]
fn what_is_packed_is_bounded_for_the_file_as_a_whole() {
    let _alone = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let draft = honest();
    let halves = [0, 1].map(|more| zeros(PACKED_BYTES_MAX as usize / 2 + more));
    let mut case = draft.case();
    case.order.inputs.extend(halves.iter().map(|half| ObjectRef::of(half)));
    let case = wire::to_bytes(&case);
    let packed = |half: &Vec<u8>| (ObjectRef::of(half), transport::pack::pack(half).unwrap().into());
    let mut sections = vec![(ObjectRef::of(&case), (&case[..]).into())];
    sections.extend(halves.iter().map(packed));
    let said = refusal(&Packed { magic: *b"IEV1", sections }.to_bytes());
    assert!(said.contains(&format!("expected at most {} bytes, or", PACKED_BYTES_MAX / 2)), "{said}");
}
