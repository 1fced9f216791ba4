//! libFuzzer's way into [`fuzz_entries::wire`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::wire::run(data));
