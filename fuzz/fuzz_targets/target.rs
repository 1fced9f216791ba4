//! libFuzzer's way into [`fuzz_entries::target`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::target::run(data));
