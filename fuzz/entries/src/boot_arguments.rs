//! The boot arguments: words of whoever wrote the boot loader's configuration.

use app::options::Options;

/// Reads the bytes as text, as the device tree's reader does, and then as options.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (options, warnings) = Options::parse(&text);
    assert!(warnings.iter().all(|warning| text.contains(warning.word)));
    if let Some(mtu) = options.mtu {
        assert!((576..=app::options::MAX_MTU).contains(&mtu));
    }
    assert!(options.port != 0);
}
