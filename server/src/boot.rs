//! Starts shards, joins them, stops them; says what it did.
