//! Archives for a kernel's first file system, in the "newc" form of cpio. No root needed.

use std::path::Path;

/// An archive in memory.
pub struct Archive {
    bytes: Vec<u8>,
    next_inode: u32,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self { bytes: Vec::new(), next_inode: 1 }
    }

    /// Adds a folder.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    /// Adds a file that may be executed.
    pub fn file(&mut self, name: &str, data: &[u8]) {
        self.entry(name, 0o100_755, data);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.entry(name, 0o120_777, target.as_bytes());
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry_with_device(name, 0o020_600, &[], (major, minor));
    }

    /// Adds all folders above a name, which the kernel does not make by itself.
    pub fn parents(&mut self, name: &str) {
        let mut parents: Vec<&Path> = Path::new(name).ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents {
            if !parent.as_os_str().is_empty() {
                self.folder(&parent.to_string_lossy());
            }
        }
    }

    /// The archive's bytes, whole blocks of 512: another archive may follow.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.pad(512);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entry_with_device(name, mode, data, (0, 0));
    }

    fn entry_with_device(&mut self, name: &str, mode: u32, data: &[u8], device: (u32, u32)) {
        let inode = self.next_inode;
        self.next_inode += 1;
        // The name counts with its NUL.
        let fields =
            [inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(data);
        self.pad(4);
    }

    fn pad(&mut self, alignment: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_form_that_the_kernel_reads() {
        let mut archive = Archive::new();
        archive.file("init", b"abc");
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081ed");
        assert_eq!(&bytes[54..62], b"00000003");
        assert_eq!(&bytes[94..102], b"00000005");
        // 110 bytes of header, 5 of name, padded to 116.
        assert_eq!(&bytes[110..120], b"init\0\0abc\0");
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn parents_come_from_the_top_down() {
        let mut archive = Archive::new();
        archive.parents("a/b/c");
        let text = String::from_utf8_lossy(&archive.finish()).into_owned();
        assert!(text.find("a\0").unwrap() < text.find("a/b\0").unwrap());
    }
}
