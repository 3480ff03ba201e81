//! What a stage keeps for merges alone.

use super::file::Hashed;

/// Error feedback and outer momentum, and what was hashed of them: they change in merges, and are digested with every window.
#[derive(Debug)]
pub(crate) struct OuterState {
    residual: Vec<f32>,
    momentum: Vec<f32>,
    pub(super) hashed: Hashed,
}

impl OuterState {
    pub fn of(residual: Vec<f32>, momentum: Vec<f32>) -> Self {
        Self { residual, momentum, hashed: Hashed::default() }
    }

    pub fn residual(&self) -> &[f32] {
        &self.residual
    }

    pub fn momentum(&self) -> &[f32] {
        &self.momentum
    }

    pub fn residual_mut(&mut self) -> &mut [f32] {
        self.hashed.forget();
        &mut self.residual
    }

    pub fn set_momentum(&mut self, momentum: Vec<f32>) {
        self.hashed.forget();
        self.momentum = momentum;
    }
}
