//! libFuzzer's way into [`fuzz_entries::virtio_queue`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entries::virtio_queue::run(data));
