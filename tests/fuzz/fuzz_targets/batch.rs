//! Any bytes taken for a batch from a producer: see `forebay_engine::batch::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_engine::batch::fuzz::fuzz_batch(data));
