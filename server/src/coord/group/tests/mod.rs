//! Groups driven by scripts ([`scenarios`]) and at random ([`random`]), both in virtual time.

mod harness;
mod random;
mod scenarios;
