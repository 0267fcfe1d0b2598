//! Configuration in two stages: what the operator wrote, under Kafka's names, then what was checked.
