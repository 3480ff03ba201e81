//! Signatures that this thread has made, kept for as long as somebody wants it.
//!
//! A simulator runs every node of a swarm in one thread, and some of them again from their journals: nearly all that is
//! verified there was signed there a moment before, and what is replayed signs it all once more. Signing has no randomness
//! in it (RFC 8032), so what was made once would be made again, and what was made with a key holds under that key. Only what
//! was made gets in here; whatever else is verified, forged or not, is verified in full, each time.
//!
//! Off unless a [`Remembering`] lives in the thread. A process of a real swarm has no use for it: it never meets its own
//! signatures.

use spec::{Digest, NodeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;

/// The two halves of a signature.
pub(crate) type Halves = ([u8; 32], [u8; 32]);

thread_local! {
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

/// While it lives, its thread remembers the signatures that it makes; afterwards all are forgotten. One at a time in a thread.
#[must_use = "the memory lasts as long as this"]
#[derive(Debug)]
pub struct Remembering {
    /// It belongs to the thread in which it was made.
    thread: PhantomData<*const ()>,
}

impl Remembering {
    /// Remembers at least the last `capacity` / 2 signatures and never more than `capacity`, each some 150 bytes.
    pub fn new(capacity: usize) -> Self {
        let memory = Memory { half: capacity / 2, young: HashMap::new(), old: HashMap::new() };
        MEMORY.set(Some(memory));
        Self { thread: PhantomData }
    }
}

impl Drop for Remembering {
    fn drop(&mut self) {
        MEMORY.set(None);
    }
}

/// What was signed, by signer and digest, in two generations: where the young one is full, the old one is dropped.
struct Memory {
    half: usize,
    young: HashMap<(NodeId, Digest), Halves>,
    old: HashMap<(NodeId, Digest), Halves>,
}

/// The signature of `signer` on `digest`, if this thread made and remembers one.
pub(crate) fn made(signer: NodeId, digest: Digest) -> Option<Halves> {
    MEMORY.with_borrow(|memory| {
        let Memory { young, old, .. } = memory.as_ref()?;
        young.get(&(signer, digest)).or_else(|| old.get(&(signer, digest))).copied()
    })
}

/// Remembers what was just made with the key of `signer`.
pub(crate) fn remember(signer: NodeId, digest: Digest, halves: Halves) {
    MEMORY.with_borrow_mut(|memory| {
        let Some(Memory { half, young, old }) = memory.as_mut().filter(|memory| memory.half > 0) else {
            return;
        };
        if young.len() == *half {
            *old = std::mem::take(young);
        }
        young.insert((signer, digest), halves);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_bounded_and_ends_with_who_wanted_it() {
        let id = |number: u8| (NodeId([number; 32]), Digest([number; 32]));
        let known =
            || (0..10).filter(|&number| made(id(number).0, id(number).1).is_some()).collect::<Vec<_>>();
        let fill = || {
            for number in 0..10 {
                let (signer, digest) = id(number);
                remember(signer, digest, ([number; 32], [0; 32]));
            }
        };
        fill();
        assert_eq!(known(), []);
        let remembering = Remembering::new(6);
        fill();
        assert_eq!(known(), [6, 7, 8, 9]);
        assert_eq!(made(NodeId([9; 32]), Digest([8; 32])), None);
        drop(remembering);
        assert_eq!(known(), []);
        let _nothing = Remembering::new(0);
        fill();
        assert_eq!(known(), []);
    }
}
