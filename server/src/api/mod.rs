//! Handlers, one file per API family: decode, handler and reply together.
