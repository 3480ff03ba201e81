//! The miner's shell: the engine on its thread, store and peers around the core
