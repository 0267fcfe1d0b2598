//! Know the host: checks, and later plans and applies, host settings.
fn main() {}
