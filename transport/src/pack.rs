//! Lossless packing of payload bodies.
