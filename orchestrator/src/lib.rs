//! The orchestrator's shell: journal, peers, presigned URLs, manifests
