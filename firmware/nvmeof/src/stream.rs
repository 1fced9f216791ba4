//! What the target needs of a TCP connection.

/// The byte stream of one TCP connection. Nothing blocks.
pub trait Stream {
    /// Shows the first contiguous part of what has arrived (perhaps nothing) to `take`, which says how many
    /// bytes of it are done with; returns that number. A ring shows what lies behind its end at the next call.
    fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize;

    /// Bytes that may be sent now.
    fn send_room(&self) -> usize;

    /// Shows the first contiguous free part of the send buffer (perhaps nothing) to `fill`, which says how
    /// many bytes of it are to be sent; returns that number.
    fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize;

    /// Ends the connection after what was sent.
    fn close(&mut self);

    /// Ends the connection at once.
    fn abort(&mut self);
}
