//! libFuzzer's way into [`fuzz_entries::crash_record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::crash_record::run(data));
