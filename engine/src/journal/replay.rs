//! Reads what the last run left in the journal.
