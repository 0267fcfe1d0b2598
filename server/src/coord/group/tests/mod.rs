//! Groups driven by scripts ([`script`]) and at random ([`random`]), both in virtual time.

mod harness;
mod limits;
mod offsets;
mod random;
mod rebalance;
mod script;
mod static_members;
