//! A shard: partitions, coordinators and connections of one core, and the mesh between shards.
