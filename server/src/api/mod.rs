//! Handlers, one file per API family: decode, handler and reply together.

pub mod api_versions;
pub mod fetch;
pub mod metadata;
pub mod produce;
