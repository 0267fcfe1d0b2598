//! How many connections the broker takes, in all and from one address.
//!
//! Counted on shard 0 for all shards: connections come rarely enough that asking it costs nothing, and nothing need be shared.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
};

use crate::config::Network;

pub struct Limits {
    connections_max: usize,
    per_ip_max: usize,
    open: Cell<usize>,
    by_ip: RefCell<HashMap<IpAddr, usize>>,
}

impl Limits {
    pub fn new(config: &Network) -> Limits {
        Limits {
            connections_max: config.connections_max,
            per_ip_max: config.connections_per_ip_max,
            open: Cell::new(0),
            by_ip: RefCell::default(),
        }
    }

    /// Counts a connection in, if it may come in.
    pub fn enter(&self, ip: IpAddr) -> bool {
        let mut by_ip = self.by_ip.borrow_mut();
        let from_ip = by_ip.get(&ip).copied().unwrap_or(0);
        if self.open.get() >= self.connections_max || from_ip >= self.per_ip_max {
            return false;
        }
        self.open.set(self.open.get() + 1);
        by_ip.insert(ip, from_ip + 1);
        true
    }

    /// Counts a connection out that was counted in.
    pub fn leave(&self, ip: IpAddr) {
        let mut by_ip = self.by_ip.borrow_mut();
        let from_ip = by_ip.get_mut(&ip).expect("who leaves has entered");
        *from_ip -= 1;
        if *from_ip == 0 {
            by_ip.remove(&ip);
        }
        assert!(self.open.get() > 0, "who leaves was counted");
        self.open.set(self.open.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_leaving_makes_room() {
        let limits = Limits {
            connections_max: 3,
            per_ip_max: 2,
            open: Cell::new(0),
            by_ip: RefCell::default(),
        };
        let a = IpAddr::from([127, 0, 0, 1]);
        let b = IpAddr::from([127, 0, 0, 2]);
        assert!(limits.enter(a));
        assert!(limits.enter(a));
        assert!(!limits.enter(a), "two from one address");
        assert!(limits.enter(b));
        assert!(!limits.enter(b), "three in all");
        limits.leave(a);
        assert!(limits.enter(b));
        assert!(!limits.enter(a));
    }
}
