//! Tests of the real binary with real clients, and of the rules of this code base.

mod clients;
mod crash;
mod disk_faults;
mod dump_log;
mod groups;
mod hostile;
mod many_partitions;
mod power_loss;
mod restart;
mod roundtrip;
mod startup;
mod tidy;
mod tools;
