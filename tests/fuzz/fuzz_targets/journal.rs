//! Any bytes taken for a commit of the journal: see `forebay_engine::journal::format`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_engine::journal::format::fuzz_commit(data));
