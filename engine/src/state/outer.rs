//! What a stage keeps for merges alone.

use super::file::Hashed;
use std::sync::Arc;

/// Error feedback and outer momentum, and what was hashed of them: they change in merges, and are digested with every window.
/// The files of states share them until then.
#[derive(Debug)]
pub(crate) struct OuterState {
    residual: Arc<Vec<f32>>,
    momentum: Arc<Vec<f32>>,
    pub(super) hashed: Hashed,
}

impl OuterState {
    pub fn of(residual: Vec<f32>, momentum: Vec<f32>) -> Self {
        Self { residual: Arc::new(residual), momentum: Arc::new(momentum), hashed: Hashed::default() }
    }

    pub fn residual(&self) -> &[f32] {
        &self.residual
    }

    pub fn momentum(&self) -> &[f32] {
        &self.momentum
    }

    /// Both, in the order of the file.
    pub fn shared(&self) -> [Arc<Vec<f32>>; 2] {
        [&self.residual, &self.momentum].map(Arc::clone)
    }

    /// What a file shares stays as it is: the first change after that is made on a copy.
    pub fn residual_mut(&mut self) -> &mut [f32] {
        self.hashed.forget();
        Arc::make_mut(&mut self.residual).as_mut_slice()
    }

    pub fn set_momentum(&mut self, momentum: Vec<f32>) {
        self.hashed.forget();
        self.momentum = Arc::new(momentum);
    }
}
