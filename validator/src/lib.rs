//! The validator's shell: replay through engine::work
