//! The ring of journal files, written once in advance and used again and again.
