//! Any bytes taken for the files of a data directory: see `forebay_engine::log::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_engine::log::fuzz::fuzz_recovery(data));
