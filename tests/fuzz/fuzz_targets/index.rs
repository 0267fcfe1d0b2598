//! Any bytes taken for a side file with a segment's index: see `forebay_engine::segment::index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_engine::segment::index::fuzz_index(data));
