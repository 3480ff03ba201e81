//! The learner: tensors, autograd, stages, optimizer, units of work; no network
