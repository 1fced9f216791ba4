//! libFuzzer's way into [`fuzz_entries::initiator`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::initiator::run(data));
