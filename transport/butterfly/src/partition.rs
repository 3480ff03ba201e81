//! Who owns what.
//!
//! *How much* each member owns: the same, whatever its link. Pieces and sums are two rounds, and everybody waits for the slowest of each.
//! Of `P` blocks in `r` copies among `n`, who owns `w` sends `rP - w` and takes in `w(n-1)` in the first, sends `w(n-r)/r` and
//! takes in `P - w` in the second. For a link that is as fast both ways the larger of the two is least at `w = rP/n` in both rounds,
//! so with equal shares the slowest member needs the least that it can need, and nobody else needs longer.
//! *Which* blocks: members are laid end to end, in an order drawn by the seed, over as many rows
//! as there are copies; the members found one above the other own the blocks between two cuts. A member
//! owns at most a row's length, hence never meets itself, and there are at most as many cuts as members. A stretch
//! that is longer than a shard may be is cut again, evenly: its owners have several shards there.

use serde::{Deserialize, Serialize};
use spec::NodeId;
use std::ops::Range;
use wire::merge::Seat;

/// Parameters in a block: the grain of shards, and a leaf of the tree over a contribution.
pub const BLOCK: u64 = 1024;

/// How many members add up each shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copies {
    /// One: cheapest, and nobody notices a lie.
    One,
    /// Two: a dead owner is survived, a lying one is noticed.
    Two,
}

impl Copies {
    /// The number of owners of a shard among `members`.
    fn among(self, members: usize) -> usize {
        members.min(match self {
            Self::One => 1,
            Self::Two => 2,
        })
    }
}

/// How a stage is cut into shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// How many members add up each shard.
    pub copies: Copies,
    /// Blocks of the longest shard there may be.
    pub blocks_max: u64,
}

impl Cut {
    /// The cut of every run: pairs, and shards of at most 2^24 parameters. A piece of one is 16 MiB of codes, its sum 64 MiB
    /// in four bytes each and 128 in eight: what one frame carries, however large the stage and however few its miners.
    pub const PAIRS: Self = Self { copies: Copies::Two, blocks_max: (1 << 24) / BLOCK };

    /// So many shards there are at most, of a stage of `blocks` blocks among `members`.
    pub fn shards_max(self, blocks: u64, members: usize) -> u64 {
        2 * members as u64 + blocks / self.blocks_max
    }

    /// The shards of a stretch; none of an empty one.
    fn shards_of(self, stretch: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let length = stretch.end - stretch.start;
        let count = length.div_ceil(self.blocks_max);
        let at = move |shard: u64| stretch.start + length * shard / count;
        (0..count).map(move |shard| at(shard)..at(shard + 1))
    }
}

/// A stretch of the stage's blocks and who adds it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its place in the list.
    pub index: u32,
    /// Blocks of [`BLOCK`] parameters; the stage's last block may be short.
    pub blocks: Range<u64>,
    /// The owners. The first sends the sum to those who do not own the shard.
    pub owners: Vec<NodeId>,
}

/// What a member sends (and receives), as a multiple of the contribution's size.
pub fn bound(members: u64, copies: Copies) -> f64 {
    let n = members as f64;
    match (members, copies) {
        (0 | 1, _) => 0.0,
        (_, Copies::One) => 2.0 * (n - 1.0) / n,
        (_, Copies::Two) => (3.0 * n - 4.0) / n,
    }
}

/// Blocks of a stage of `parameters` parameters.
pub fn blocks(parameters: u64) -> u64 {
    parameters.div_ceil(BLOCK)
}

/// The shards that follow from the caller's secret and what the members committed to.
pub fn draw(blocks: u64, secret: &[u8; 32], seats: &[Seat], cut: Cut) -> Vec<Shard> {
    let mut hasher = blake3::Hasher::new_derive_key("iota butterfly draw v1");
    hasher.update(secret);
    for seat in seats {
        hasher.update(seat.node.as_bytes()).update(seat.root.as_bytes());
    }
    partition(blocks, seats, hasher.finalize().as_bytes(), cut)
}

/// Cuts `blocks` blocks into shards for `seats`, given in key order. The draw is a function of `seed`
/// alone, so every member finds the same.
pub fn partition(blocks: u64, seats: &[Seat], seed: &[u8; 32], cut: Cut) -> Vec<Shard> {
    let rows = cut.copies.among(seats.len());
    if rows == 0 || blocks == 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..seats.len()).collect();
    order.sort_by_key(|&i| *blake3::keyed_hash(seed, seats[i].node.as_bytes()).as_bytes());

    // Laid end to end, the `k`-th ends where so many equal shares end.
    let (length, members) = (u128::from(blocks) * rows as u128, seats.len() as u128);
    let end = |place: usize| (length * place as u128 / members) as u64;
    let spans: Vec<_> =
        order.iter().enumerate().map(|(place, &i)| (end(place)..end(place + 1), seats[i].node)).collect();
    let mut cuts: Vec<u64> = spans.iter().map(|(span, _)| span.start % blocks).chain([0, blocks]).collect();
    cuts.sort_unstable();
    cuts.dedup();

    let mut shards = Vec::new();
    for stretch in cuts.windows(2) {
        let owner = |row: usize| {
            let block = stretch[0] + row as u64 * blocks;
            spans.iter().find(|(span, _)| span.contains(&block)).map(|(_, node)| *node)
        };
        let mut owners: Vec<NodeId> = (0..rows).filter_map(owner).collect();
        // Each owner speaks for its share, so that the gather is spread like the rest.
        for turn in 0..rows as u64 {
            let at = |turn: u64| stretch[0] + (stretch[1] - stretch[0]) * turn / rows as u64;
            for blocks in cut.shards_of(at(turn)..at(turn + 1)) {
                shards.push(Shard { index: shards.len() as u32, blocks, owners: owners.clone() });
            }
            owners.rotate_left(1);
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Digest;
    use std::collections::BTreeMap;

    fn seats(members: u64) -> Vec<Seat> {
        (1..=members).map(|i| Seat { node: NodeId([i as u8; 32]), root: Digest::default() }).collect()
    }

    /// As few shards as there can be.
    fn whole(copies: Copies) -> Cut {
        Cut { copies, blocks_max: u64::MAX }
    }

    /// Blocks sent and received by each member.
    fn traffic(seats: &[Seat], shards: &[Shard]) -> BTreeMap<NodeId, (u64, u64)> {
        let mut traffic: BTreeMap<_, _> = seats.iter().map(|seat| (seat.node, (0, 0))).collect();
        let mut flow = |from: NodeId, to: NodeId, blocks: u64| {
            traffic.get_mut(&from).unwrap().0 += blocks;
            traffic.get_mut(&to).unwrap().1 += blocks;
        };
        for shard in shards {
            let blocks = shard.blocks.end - shard.blocks.start;
            for seat in seats {
                for &owner in shard.owners.iter().filter(|&&owner| owner != seat.node) {
                    flow(seat.node, owner, blocks);
                }
                if !shard.owners.contains(&seat.node) {
                    flow(shard.owners[0], seat.node, blocks);
                }
            }
        }
        traffic
    }

    #[test]
    fn every_block_has_its_owners_whatever_the_numbers() {
        for copies in [Copies::One, Copies::Two] {
            for n in 1..=9 {
                for blocks in [1, 2, 3, 7, 64, 1000] {
                    let seats = seats(n);
                    let shards = partition(blocks, &seats, &[n as u8; 32], whole(copies));
                    let mut next = 0;
                    for (i, shard) in shards.iter().enumerate() {
                        assert_eq!((shard.index as usize, shard.blocks.start), (i, next));
                        next = shard.blocks.end;
                        assert_eq!(shard.owners.len(), copies.among(seats.len()), "{n} {blocks} {shard:?}");
                        assert!(shard.owners.len() < 2 || shard.owners[0] != shard.owners[1]);
                    }
                    assert_eq!(next, blocks);
                    assert!(shards.len() <= 2 * seats.len());
                }
            }
        }
    }

    #[test]
    fn everyone_sends_and_receives_the_bound() {
        for copies in [Copies::One, Copies::Two] {
            for n in 1..=8u64 {
                let (seats, blocks) = (seats(n), 840 * n);
                let expected = (bound(n, copies) * blocks as f64).round() as u64;
                for (_, moved) in traffic(&seats, &partition(blocks, &seats, &[3; 32], whole(copies))) {
                    assert_eq!(moved, (expected, expected), "{n} members, {copies:?}");
                }
            }
        }
    }

    /// Time of the two rounds, each as long as its slowest member takes, where so much is owned.
    fn time(total: u64, rows: u64, bandwidths: &[u64], owned: &[u64]) -> f64 {
        let (n, total, rows) = (bandwidths.len() as f64, total as f64, rows as f64);
        let slowest = |moves: &dyn Fn(f64) -> f64| {
            let each = owned.iter().zip(bandwidths).map(|(&own, &link)| moves(own as f64) / link as f64);
            each.fold(0.0, f64::max)
        };
        slowest(&|own| (rows * total - own).max(own * (n - 1.0)))
            + slowest(&|own| (own * (n - rows) / rows).max(total - own))
    }

    /// The shortest time of all ways to own it.
    fn shortest(total: u64, rows: u64, bandwidths: &[u64], owned: &mut Vec<u64>) -> f64 {
        let left = rows * total - owned.iter().sum::<u64>();
        if owned.len() == bandwidths.len() {
            return if left == 0 { time(total, rows, bandwidths, owned) } else { f64::INFINITY };
        }
        let mut best = f64::INFINITY;
        for own in 0..=left.min(total) {
            owned.push(own);
            best = best.min(shortest(total, rows, bandwidths, owned));
            owned.pop();
        }
        best
    }

    #[test]
    fn no_other_shares_are_faster_whatever_the_links() {
        for bandwidths in
            [[1, 1, 1, 1], [2, 2, 2, 1], [10, 5, 2, 1], [10, 1, 1, 1], [3, 3, 2, 2], [9, 8, 7, 6]]
        {
            for (rows, copies) in [(1, Copies::One), (2, Copies::Two)] {
                let (blocks, seats) = (24, seats(4));
                let shards = partition(blocks, &seats, &[3; 32], whole(copies));
                let own = |seat: &Seat| {
                    let own = shards.iter().filter(|shard| shard.owners.contains(&seat.node));
                    own.map(|shard| shard.blocks.end - shard.blocks.start).sum()
                };
                let owned: Vec<u64> = seats.iter().map(own).collect();
                let best = shortest(blocks, rows, &bandwidths, &mut vec![]);
                assert_eq!(time(blocks, rows, &bandwidths, &owned), best, "{bandwidths:?}, {owned:?}");
            }
        }
    }

    #[test]
    fn another_seed_draws_other_pairs() {
        let seats = seats(6);
        let draw = |seed: u8| partition(600, &seats, &[seed; 32], whole(Copies::Two));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn long_shards_are_cut_again_and_nobody_owns_or_sends_more_for_it() {
        for (n, blocks) in (1..=9u64).flat_map(|n| [1, 7, 64, 1000].map(|blocks| (n, blocks))) {
            let seats = seats(n);
            let draw = |cut| partition(blocks, &seats, &[n as u8; 32], cut);
            let long = draw(whole(Copies::Two));
            for blocks_max in [1, 2, 3, 10, 64] {
                let cut = Cut { copies: Copies::Two, blocks_max };
                let short = draw(cut);
                assert!(
                    short.len() as u64 <= cut.shards_max(blocks, n as usize),
                    "{n} {blocks} {blocks_max}"
                );
                let owners = |shards: &[Shard]| -> Vec<Vec<NodeId>> {
                    let each = |shard: &Shard| {
                        let count = (shard.blocks.end - shard.blocks.start) as usize;
                        vec![shard.owners.clone(); count]
                    };
                    shards.iter().flat_map(each).collect()
                };
                assert_eq!(owners(&short), owners(&long), "{n} {blocks} {blocks_max}");
                assert_eq!(traffic(&seats, &short), traffic(&seats, &long));
                let mut next = 0;
                for (index, shard) in (0..).zip(&short) {
                    assert_eq!((shard.index, shard.blocks.start), (index, next));
                    assert!((1..=blocks_max).contains(&(shard.blocks.end - next)));
                    next = shard.blocks.end;
                }
                assert_eq!(next, blocks);
            }
        }
    }

    #[test]
    fn small_stages_are_cut_as_they_always_were_and_no_shard_is_too_long_for_a_frame() {
        let seats = seats(5);
        for parameters in [1, 1 << 20, 40 << 20] {
            let draw = |cut| draw(blocks(parameters), &[7; 32], &seats, cut);
            assert_eq!(draw(Cut::PAIRS), draw(whole(Copies::Two)));
        }
        // A sum of eight bytes, an exponent for each 128, and its head.
        let values = Cut::PAIRS.blocks_max * BLOCK;
        assert!(8 * values + values / 128 + 64 <= wire::limits::BODY_BYTES_MAX.into());
    }
}
