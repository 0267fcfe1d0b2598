//! Listener, connections, frames.
