//! Knows the host: probes that tell what io_uring, the limits of the process and the disk of a directory really allow,
//! and checks that turn them into findings with a remedy. Writes nothing but a probe file it removes again.

pub mod check;
pub mod probe;
pub mod report;
