//! Handlers, one file per API family: decode, handler and reply together.

pub mod api_versions;
pub mod cluster;
pub mod configs;
pub mod fetch;
pub mod fuzz;
pub mod groups;
pub mod list_offsets;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod producer_ids;
pub mod records;
pub mod topics;

#[cfg(test)]
mod tests;
