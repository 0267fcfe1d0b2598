//! Any bytes taken for a request: see `forebay_server::api::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_server::api::fuzz::fuzz_request(data));
