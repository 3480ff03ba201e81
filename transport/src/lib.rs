//! The conversation: QUIC endpoint, identity, relay, streams, lossless packing
