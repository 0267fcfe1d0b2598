//! The bytes of journal files.
