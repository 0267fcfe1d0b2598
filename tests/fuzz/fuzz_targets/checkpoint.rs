//! Any bytes taken for a part of a checkpoint: see `forebay_engine::checkpoint::format`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_engine::checkpoint::format::fuzz_part(data));
