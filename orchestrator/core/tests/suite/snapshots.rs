//! What a snapshot holds, and that its form does not change unnoticed.

use crate::support::{World, run};
use orchestrator_core::{Orchestrator, Snapshot};
use spec::Digest;

/// The state in the midst of things: an epoch open, work handed out, receipts in.
fn in_the_midst() -> World {
    let mut world = World::opened(run());
    world.inner_step(0);
    world
}

#[test]
fn a_change_of_what_is_kept_raises_the_format() {
    let mut world = in_the_midst();
    let mut bytes = wire::to_bytes(&world.core.snapshot());
    // And in between: windows drawn, epochs that can be gone back to, work that is not in the ledger yet.
    world.inner_step(1);
    world.merge();
    bytes.extend(wire::to_bytes(&world.core.snapshot()));
    assert_eq!(
        (Snapshot::FORMAT, Digest::of(&bytes).short().to_string().as_str()),
        (3, "13ba72a4"),
        "where this digest is another, old snapshots are not read rightly any more: raise Snapshot::FORMAT"
    );
}

#[test]
fn half_a_snapshot_is_none_and_another_runs_configuration_is_refused() {
    let world = in_the_midst();
    let bytes = wire::to_bytes(&world.core.snapshot());
    assert!(postcard::from_bytes::<Snapshot>(&bytes[..bytes.len() / 2]).is_err());
    let mut config = world.config.clone();
    config.manifest.body.run = Digest::of(b"another");
    let snapshot = postcard::from_bytes(&bytes).unwrap();
    assert!(Orchestrator::restore(config, snapshot).is_err());
}
