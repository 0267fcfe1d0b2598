//! Group commit: while one write is in flight the next one gathers.
