//! libFuzzer's way into [`fuzz_entries::boot_arguments`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::boot_arguments::run(data));
