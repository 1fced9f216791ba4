//! libFuzzer's way into [`fuzz_entries::ethernet`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::ethernet::run(data));
