//! Harness for the tests: starts brokers and real clients, keeps the oracle of acknowledged records.
