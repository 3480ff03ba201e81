//! The orchestrator as a value: handle(now, event) -> effects
