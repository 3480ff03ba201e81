//! Cases from numbers.

/// Longest case, in bytes.
const CASE_BYTES_MAX: usize = 1 << 20;
/// Most edits of one case.
const EDITS_MAX: u64 = 6;
/// Values at which lengths and counts go wrong.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 40, u64::MAX >> 1, u64::MAX];

/// The bytes of a target's case.
pub fn case(target: &str, seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut dice = Dice::new(target, number);
    let mut bytes = dice.pick(seeds).cloned().unwrap_or_default();
    if dice.below(32) == 0 {
        let len = dice.below(400);
        bytes = dice.bytes(len);
    }
    for _ in 0..=dice.below(EDITS_MAX) {
        edit(&mut bytes, seeds, &mut dice);
        bytes.truncate(CASE_BYTES_MAX);
    }
    bytes
}

fn edit(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.place(bytes.len());
    let end = at + dice.place((bytes.len() - at).min(64));
    match dice.below(9) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        3 => {
            let len = 1 + dice.below(16);
            let noise = dice.bytes(len);
            bytes.splice(at..at, noise);
        }
        4 => {
            let number = varint(dice.edge());
            let until = (at + number.len() * dice.below(2) as usize).min(bytes.len());
            bytes.splice(at..until, number);
        }
        5 => {
            let number = dice.edge().to_le_bytes();
            let number = &number[..[1, 2, 4, 8][dice.below(4) as usize]];
            let until = (at + number.len()).min(bytes.len());
            bytes.splice(at..until, number.iter().copied());
        }
        6 => {
            if let Some(other) = dice.pick(seeds) {
                let from = dice.place(other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
        }
        7 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        _ => {
            let value = dice.below(256) as u8;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
    }
}

/// A number as postcard writes it.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Random numbers that are the same for the same target and case.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(target: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&number.to_le_bytes()).update(target.as_bytes());
        Self(hasher.finalize_xof())
    }

    /// 0 to `end` - 1.
    fn below(&mut self, end: u64) -> u64 {
        let mut word = [0; 8];
        self.0.fill(&mut word);
        u64::from_le_bytes(word) % end.max(1)
    }

    /// 0 to `len`.
    fn place(&mut self, len: usize) -> usize {
        self.below(len as u64 + 1) as usize
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.0.fill(&mut bytes);
        bytes
    }

    fn edge(&mut self) -> u64 {
        self.pick(&EDGES).copied().unwrap_or_default()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }
}
