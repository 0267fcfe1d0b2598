//! Plain counters per shard, merged when scraped.
