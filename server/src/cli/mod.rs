//! The command line: the broker and the tools of Kafka under their own names.
