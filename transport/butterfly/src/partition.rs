//! Who owns what.
//!
//! Two questions, answered one after the other. *How much* each member owns: the amounts that minimise the
//! finishing time of the slowest, found by bisection in whole blocks, so within a block per member of the
//! optimum. *Which* blocks: members are laid end to end, in an order drawn by the seed, over as many rows
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

/// What a member sends (and receives) at equal bandwidths, as a multiple of the contribution's size.
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
    let bandwidths: Vec<u64> = seats.iter().map(|seat| seat.bandwidth_bytes_per_s.max(1)).collect();
    let owned = amounts(blocks, &bandwidths, rows as u64);
    let mut order: Vec<usize> = (0..seats.len()).collect();
    order.sort_by_key(|&i| *blake3::keyed_hash(seed, seats[i].node.as_bytes()).as_bytes());

    let mut spans = Vec::new();
    let mut cursor = 0;
    for i in order {
        spans.push((cursor..cursor + owned[i], seats[i].node));
        cursor += owned[i];
    }
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

/// Blocks that each member owns, together `rows * blocks`.
fn amounts(blocks: u64, bandwidths: &[u64], rows: u64) -> Vec<u64> {
    let members = bandwidths.len() as i128;
    if members == 1 {
        return vec![blocks];
    }
    let (total, r) = (i128::from(blocks), i128::from(rows));
    let fastest = i128::from(*bandwidths.iter().max().unwrap_or(&1));
    let slowest = i128::from(*bandwidths.iter().min().unwrap_or(&1));
    // Time is counted in blocks that the fastest member can move.
    let ranges = |time: i128| -> Option<Vec<(i128, i128)>> {
        let ranges: Option<Vec<_>> = bandwidths
            .iter()
            .map(|&b| legal(members, r, total, time.saturating_mul(i128::from(b)) / fastest))
            .collect();
        let ranges = ranges?;
        let (least, most): (i128, i128) =
            (ranges.iter().map(|x| x.0).sum(), ranges.iter().map(|x| x.1).sum());
        (least <= r * total && r * total <= most).then_some(ranges)
    };
    let (mut below, mut enough) = (0, (total * (members + r)).saturating_mul(fastest) / slowest + fastest);
    while enough - below > 1 {
        let middle = below + (enough - below) / 2;
        if ranges(middle).is_some() { enough = middle } else { below = middle }
    }
    let ranges = ranges(enough).unwrap_or_else(|| vec![(0, total); bandwidths.len()]);

    // What is free to choose is spread evenly over the room there is.
    let least: i128 = ranges.iter().map(|x| x.0).sum();
    let room: i128 = ranges.iter().map(|x| x.1 - x.0).sum();
    let mut owned: Vec<i128> =
        ranges.iter().map(|(lo, hi)| lo + (r * total - least) * (hi - lo) / room.max(1)).collect();
    let mut rest = r * total - owned.iter().sum::<i128>();
    for (own, (_, hi)) in owned.iter_mut().zip(&ranges) {
        let more = rest.min(hi - *own);
        *own += more;
        rest -= more;
    }
    owned.into_iter().map(|own| own as u64).collect()
}

/// The amounts that let a member finish while moving `budget` blocks each way; `None` if none does.
///
/// With `own` of `total` blocks in `r` copies among `n` members it sends `r*total + own*(n-2r)/r` (pieces to
/// owners, its share of the sums to the rest) and receives `total + own*(n-2)`.
fn legal(n: i128, r: i128, total: i128, budget: i128) -> Option<(i128, i128)> {
    let (mut lo, mut hi) = (0, total);
    let spare = budget - r * total;
    match n - 2 * r {
        slope if slope > 0 => hi = hi.min((r * spare).div_euclid(slope)),
        0 if spare < 0 => return None,
        0 => {}
        slope => lo = lo.max(-(r * spare).div_euclid(-slope)),
    }
    let spare = budget - total;
    match n - 2 {
        0 if spare < 0 => return None,
        0 => {}
        slope => hi = hi.min(spare.div_euclid(slope)),
    }
    (lo <= hi && hi >= 0).then_some((lo, hi))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Digest;
    use std::collections::BTreeMap;

    fn seats(bandwidths: &[u64]) -> Vec<Seat> {
        let seat = |(i, &bandwidth_bytes_per_s): (usize, &u64)| Seat {
            node: NodeId([i as u8 + 1; 32]),
            root: Digest::default(),
            bandwidth_bytes_per_s,
        };
        bandwidths.iter().enumerate().map(seat).collect()
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
                    let seats = seats(&(0..n).map(|i| 1 + i * i * 7).collect::<Vec<_>>());
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
    fn at_equal_bandwidths_everyone_sends_and_receives_the_bound() {
        for copies in [Copies::One, Copies::Two] {
            for n in 1..=8u64 {
                let (seats, blocks) = (seats(&vec![5; n as usize]), 840 * n);
                let expected = (bound(n, copies) * blocks as f64).round() as u64;
                for (_, moved) in traffic(&seats, &partition(blocks, &seats, &[3; 32], whole(copies))) {
                    assert_eq!(moved, (expected, expected), "{n} members, {copies:?}");
                }
            }
        }
    }

    #[test]
    fn a_slow_member_owns_less_and_nobody_could_finish_much_earlier() {
        let (seats, blocks) = (seats(&[100, 100, 100, 100, 100, 80]), 60_000);
        let moved = traffic(&seats, &partition(blocks, &seats, &[3; 32], whole(Copies::Two)));
        let time = |(seat, &(sent, received)): (&Seat, &(u64, u64))| {
            sent.max(received) as f64 / seat.bandwidth_bytes_per_s as f64
        };
        let times: Vec<f64> = seats.iter().zip(moved.values()).map(time).collect();
        let slowest = times.iter().copied().fold(0.0, f64::max);
        // At the optimum all finish together: here each is within a few blocks of the last.
        assert!(times.iter().all(|t| slowest - t < 0.1), "{times:?}");
        // Equal shares would have kept the slow one this long.
        assert!(slowest < bound(6, Copies::Two) * blocks as f64 / 80.0 * 0.95);
    }

    #[test]
    fn another_seed_draws_other_pairs() {
        let seats = seats(&[1; 6]);
        let draw = |seed: u8| partition(600, &seats, &[seed; 32], whole(Copies::Two));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn long_shards_are_cut_again_and_nobody_owns_or_sends_more_for_it() {
        for (n, blocks) in (1..=9u64).flat_map(|n| [1, 7, 64, 1000].map(|blocks| (n, blocks))) {
            let seats = seats(&(0..n).map(|i| 1 + i * i * 7).collect::<Vec<_>>());
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
        let seats = seats(&[1; 5]);
        for parameters in [1, 1 << 20, 40 << 20] {
            let draw = |cut| draw(blocks(parameters), &[7; 32], &seats, cut);
            assert_eq!(draw(Cut::PAIRS), draw(whole(Copies::Two)));
        }
        // A sum of eight bytes, an exponent for each 128, and its head.
        let values = Cut::PAIRS.blocks_max * BLOCK;
        assert!(8 * values + values / 128 + 64 <= wire::limits::BODY_BYTES_MAX.into());
    }
}
