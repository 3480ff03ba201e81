//! What a model costs on a fleet: stage cut, memory, predicted step time; pure
