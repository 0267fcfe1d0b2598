//! Benchmarks of the engine, and of any Kafka broker.
fn main() {}
