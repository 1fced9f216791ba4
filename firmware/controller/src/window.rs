//! Writing a part of a page that is never built as a whole.

/// The bytes `start..start + bytes.len()` of a larger page; what is put elsewhere falls away.
pub(crate) struct Window<'a> {
    start: u64,
    bytes: &'a mut [u8],
}

impl<'a> Window<'a> {
    /// A window whose bytes are all zero to begin with.
    pub(crate) fn new(start: u64, bytes: &'a mut [u8]) -> Self {
        bytes.fill(0);
        Self { start, bytes }
    }

    /// Puts what of `data` at offset `at` of the page lies in the window.
    pub(crate) fn put(&mut self, at: u64, data: &[u8]) {
        let (skip_data, skip_window) =
            if at < self.start { (self.start - at, 0) } else { (0, at - self.start) };
        let (Ok(skip_data), Ok(skip_window)) = (usize::try_from(skip_data), usize::try_from(skip_window))
        else {
            return;
        };
        let (Some(from), Some(to)) = (data.get(skip_data..), self.bytes.get_mut(skip_window..)) else {
            return;
        };
        for (place, byte) in to.iter_mut().zip(from) {
            *place = *byte;
        }
    }

    /// Whether any of the `length` bytes at `at` lie in the window.
    pub(crate) fn covers(&self, at: u64, length: u64) -> bool {
        at < self.start.saturating_add(self.bytes.len() as u64) && at.saturating_add(length) > self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_inside_is_written() {
        let mut bytes = [9u8; 4];
        let mut window = Window::new(10, &mut bytes);
        assert!(window.covers(9, 2) && window.covers(13, 1) && !window.covers(9, 1) && !window.covers(14, 9));
        window.put(8, &[1, 2, 3]);
        window.put(13, &[4, 5, 6]);
        window.put(u64::MAX, &[7]);
        window.put(0, &[8; 10]);
        assert_eq!(bytes, [3, 0, 0, 4]);
    }
}
