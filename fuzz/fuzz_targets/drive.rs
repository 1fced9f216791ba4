//! libFuzzer's way into [`fuzz_entries::drive`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::drive::run(data));
