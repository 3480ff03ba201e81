//! The three cores as one type, and what is needed to build one again.

use crate::trace::{Effect, Event};
use miner_core::Miner;
use orchestrator_core::{ConfigError, Orchestrator};
use spec::Digest;
use validator_core::Validator;
use wire::{Machine, guest};

/// From what a core is built: the same recipe gives the same core.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // a handful in a world
pub enum Recipe {
    /// The one that hands out the work.
    Orchestrator(orchestrator_core::Config),
    /// One that holds a stage.
    Miner(guest::Config),
    /// One that replays.
    Validator(guest::Config),
}

/// A core of any role.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // a handful in a world
pub enum Core {
    /// See [`Recipe::Orchestrator`].
    Orchestrator(Orchestrator),
    /// See [`Recipe::Miner`].
    Miner(Miner),
    /// See [`Recipe::Validator`].
    Validator(Validator),
}

impl Recipe {
    /// A fresh core.
    ///
    /// # Errors
    /// When an orchestrator's configuration cannot be run.
    pub fn build(&self) -> Result<Core, ConfigError> {
        Ok(match self {
            Self::Orchestrator(config) => Core::Orchestrator(Orchestrator::new(config.clone())?),
            Self::Miner(config) => Core::Miner(Miner::new(config.clone())),
            Self::Validator(config) => Core::Validator(Validator::new(config.clone())),
        })
    }

    /// The key of a guest.
    pub fn key(&self) -> Option<&wire::Key> {
        match self {
            Self::Orchestrator(_) => None,
            Self::Miner(config) | Self::Validator(config) => Some(&config.key),
        }
    }

    /// Reads an event of this core, as [`crate::world::disk::Journal`] holds it.
    ///
    /// # Errors
    /// What the decoder says of bytes that are no event.
    pub fn decode(&self, bytes: &[u8]) -> Result<Event, postcard::Error> {
        Ok(match self {
            Self::Orchestrator(_) => Event::Orchestrator(postcard::from_bytes(bytes)?),
            Self::Miner(_) => Event::Miner(postcard::from_bytes(bytes)?),
            Self::Validator(_) => Event::Validator(postcard::from_bytes(bytes)?),
        })
    }
}

impl Core {
    /// The same core from the bytes of its snapshot, where its role keeps any.
    ///
    /// # Errors
    /// Why they are no snapshot of it.
    pub fn restarted(self, recipe: &Recipe) -> Result<Self, String> {
        let (Self::Orchestrator(core), Recipe::Orchestrator(config)) = (&self, recipe) else {
            return Ok(self);
        };
        let snapshot =
            postcard::from_bytes(&wire::to_bytes(&core.snapshot())).map_err(|error| error.to_string())?;
        let core = Orchestrator::restore(config.clone(), snapshot).map_err(|error| error.to_string())?;
        Ok(Self::Orchestrator(core))
    }

    /// Takes in an event of its own role.
    ///
    /// # Panics
    /// On an event of another role: a bug of the caller.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        match (self, event) {
            (Self::Orchestrator(core), Event::Orchestrator(event)) => {
                core.handle(now_ms, event).into_iter().map(Effect::Orchestrator).collect()
            }
            (Self::Miner(core), Event::Miner(event)) => {
                core.handle(now_ms, event).into_iter().map(Effect::Miner).collect()
            }
            (Self::Validator(core), Event::Validator(event)) => {
                core.handle(now_ms, event).into_iter().map(Effect::Validator).collect()
            }
            (_, event) => panic!("an event for another role: {event:?}"),
        }
    }

    /// Digest of everything the core remembers.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Orchestrator(core) => core.digest(),
            Self::Miner(core) => core.digest(),
            Self::Validator(core) => core.digest(),
        }
    }
}
