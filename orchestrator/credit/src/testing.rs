//! What trials share.

use crate::Work;
use spec::{Digest, NodeId};

/// Work of so many FLOPs; all else is made up.
pub fn work(name: u8, stage: u16, flops: u64) -> Work {
    Work {
        miner: NodeId([name; 32]),
        stage,
        forwards: 4,
        folded: 4,
        steps: 2,
        flops,
        first: 0,
        last: 9,
        head: Digest([name; 32]),
        audits_equal: 1,
    }
}
