//! Configuration in two stages: what the operator wrote, under Kafka's names, then what was checked.

/// Checked broker configuration.
#[derive(Clone, Debug)]
pub struct Config {
    _private: (),
}
