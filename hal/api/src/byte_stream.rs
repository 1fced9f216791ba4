//! A line to an operator's machine: bytes in order, both ways.

/// Bytes both ways, without an end. Nothing is said of who is at the other end, or whether anybody is.
pub trait ByteStream {
    /// Takes received bytes into `into`; returns how many, 0 where there are none now.
    fn read(&mut self, into: &mut [u8]) -> usize;

    /// Queues bytes to be sent; returns how many found room.
    fn write(&mut self, bytes: &[u8]) -> usize;

    /// Shows the device what was queued and taken. Once a turn, at its end.
    fn flush(&mut self);

    /// Asks for an interrupt when bytes come, or when there is room again where there was none. True when something is
    /// there already: then the core must not sleep.
    fn arm(&mut self) -> bool;

    /// The core is awake and polls.
    fn disarm(&mut self);
}
