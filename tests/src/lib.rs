//! Harness for the tests: starts brokers and real clients, and knows what every record must look like.

pub mod broker;
pub mod disk;
pub mod http;
pub mod payload;
pub mod raw_batch;
pub mod tools;
pub mod wire_client;
