//! libFuzzer's way into [`fuzz_entries::device_tree`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::device_tree::run(data));
