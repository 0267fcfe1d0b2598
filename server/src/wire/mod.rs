//! The Kafka wire format: bounded reading of requests, the table of APIs, error codes.
