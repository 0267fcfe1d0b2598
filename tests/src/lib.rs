//! Harness for the tests: starts brokers and real clients, and knows what every record must look like.

pub mod broker;
pub mod payload;
pub mod tools;
