//! The simulator: a deterministic executor with virtual time and an in-memory disk that forgets what was not synced.

#[derive(Clone)]
pub struct Sim {}
