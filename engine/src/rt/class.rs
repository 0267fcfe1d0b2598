//! Classes of work: each is a glommio task queue with its own shares, and its own bound of bytes in flight.

/// What a task or an I/O is for. The order is from most to least urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Produce, tail fetch, journal: what a client waits for now.
    Foreground,
    /// Lanes to and from other hosts.
    Replication,
    /// Reads of what the tail cache no longer holds: consumers that drain a backlog.
    ColdRead,
    /// Write-behind, checkpoint, retention, compaction, scrub.
    Housekeeping,
}
