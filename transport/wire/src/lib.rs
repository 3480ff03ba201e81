//! Messages, envelope, versions and limits: bytes and nothing else
