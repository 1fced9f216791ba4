//! CRC32C (Castagnoli), the digest of NVMe/TCP (RFC 3720 appendix B.4, RFC 3385).
//!
//! Reflected polynomial 82F63B78h, start and final value inverted. The hardware kernels keep three
//! independent streams in flight, because the instruction has a latency of about three cycles and a
//! throughput of one; the streams are joined by multiplying with x^n, done with tables made at compile time.

/// CRC32C of `bytes`, continuing from `crc`: start with 0 and feed consecutive pieces.
///
/// ```
/// assert_eq!(hal_simd::crc32c(0, b"123456789"), 0xe306_9283);
/// ```
#[must_use]
#[inline]
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    !raw(!crc, bytes)
}

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[k][b]`: the effect of byte `b` followed by `k` zero bytes.
#[cfg(any(test, not(all(target_arch = "aarch64", target_feature = "crc"))))]
static TABLES: [[u32; 256]; 8] = slice_tables();

const fn slice_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// Eight bytes a step with eight tables; needs nothing of the processor.
#[cfg(any(test, not(all(target_arch = "aarch64", target_feature = "crc"))))]
fn portable(mut crc: u32, bytes: &[u8]) -> u32 {
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word) ^ u64::from(crc);
        let at = |k: usize| TABLES[7 - k][(word >> (8 * k)) as usize & 0xff];
        crc = at(0) ^ at(1) ^ at(2) ^ at(3) ^ at(4) ^ at(5) ^ at(6) ^ at(7);
    }
    for &byte in tail {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    crc
}

/// Bytes of one of the three streams of a step of the hardware kernels.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "crc")))]
mod lanes {
    pub const LONG: usize = 1360;
    pub const SHORT: usize = 168;

    /// What a register becomes after so many zero bytes: a linear map, one table for each of its bytes.
    pub type Shift = [[u32; 256]; 4];

    pub static SHIFT_LONG: Shift = shift(LONG);
    pub static SHIFT_SHORT: Shift = shift(SHORT);

    const fn shift(bytes: usize) -> Shift {
        let mut columns = [0u32; 32];
        let mut bit = 0;
        while bit < 32 {
            let mut crc = 1u32 << bit;
            let mut n = 0;
            while n < bytes {
                // Zero bytes change nothing but the register itself.
                crc = crc >> 8 ^ BYTE[(crc & 0xff) as usize];
                n += 1;
            }
            columns[bit] = crc;
            bit += 1;
        }
        let mut tables = [[0u32; 256]; 4];
        let mut k = 0;
        while k < 4 {
            let mut byte = 0;
            while byte < 256 {
                let mut sum = 0;
                let mut bit = 0;
                while bit < 8 {
                    if byte >> bit & 1 != 0 {
                        sum ^= columns[8 * k + bit];
                    }
                    bit += 1;
                }
                tables[k][byte] = sum;
                byte += 1;
            }
            k += 1;
        }
        tables
    }

    // A constant of its own: a `const fn` may not read a `static`.
    const BYTE: [u32; 256] = super::slice_tables()[0];

    pub fn apply(shift: &Shift, crc: u32) -> u32 {
        let [a, b, c, d] = crc.to_le_bytes();
        shift[0][usize::from(a)]
            ^ shift[1][usize::from(b)]
            ^ shift[2][usize::from(c)]
            ^ shift[3][usize::from(d)]
    }
}

/// Writes the body of a kernel around the two instructions that it needs.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "crc")))]
macro_rules! kernel {
    ($crc:ident, $bytes:ident, $word:expr, $byte:expr) => {{
        let mut crc: u32 = $crc;
        let mut rest: &[u8] = $bytes;
        for (lane, shift) in [(lanes::LONG, &lanes::SHIFT_LONG), (lanes::SHORT, &lanes::SHIFT_SHORT)] {
            while rest.len() >= 3 * lane {
                let (first, others) = rest.split_at(lane);
                let (second, others) = others.split_at(lane);
                let (third, others) = others.split_at(lane);
                let (mut a, mut b, mut c) = (crc, 0u32, 0u32);
                let words = first.as_chunks::<8>().0.iter();
                let words = words.zip(second.as_chunks::<8>().0).zip(third.as_chunks::<8>().0);
                for ((x, y), z) in words {
                    a = $word(a, u64::from_le_bytes(*x));
                    b = $word(b, u64::from_le_bytes(*y));
                    c = $word(c, u64::from_le_bytes(*z));
                }
                crc = lanes::apply(shift, lanes::apply(shift, a) ^ b) ^ c;
                rest = others;
            }
        }
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            crc = $word(crc, u64::from_le_bytes(*word));
        }
        for &byte in tail {
            crc = $byte(crc, byte);
        }
        crc
    }};
}

#[cfg(all(target_arch = "aarch64", target_feature = "crc"))]
#[inline]
fn raw(crc: u32, bytes: &[u8]) -> u32 {
    use core::arch::aarch64::{__crc32cb, __crc32cd};
    // SAFETY: the instructions exist, since the target feature `crc` is compiled in.
    let word = |crc: u32, word: u64| unsafe { __crc32cd(crc, word) };
    // SAFETY: as above.
    let byte = |crc: u32, byte: u8| unsafe { __crc32cb(crc, byte) };
    kernel!(crc, bytes, word, byte)
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn raw(crc: u32, bytes: &[u8]) -> u32 {
    if has_sse42() {
        // SAFETY: the processor was asked.
        unsafe { sse42(crc, bytes) }
    } else {
        portable(crc, bytes)
    }
}

#[cfg(all(target_arch = "x86_64", any(test, target_os = "linux")))]
fn has_sse42() -> bool {
    std::arch::is_x86_feature_detected!("sse4.2")
}

#[cfg(all(target_arch = "x86_64", not(any(test, target_os = "linux"))))]
const fn has_sse42() -> bool {
    cfg!(target_feature = "sse4.2")
}

/// # Safety
/// The processor has SSE4.2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
unsafe fn sse42(crc: u32, bytes: &[u8]) -> u32 {
    use core::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};
    let word = |crc: u32, word: u64| _mm_crc32_u64(u64::from(crc), word) as u32;
    let byte = |crc: u32, byte: u8| _mm_crc32_u8(crc, byte);
    kernel!(crc, bytes, word, byte)
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "crc"))))]
#[inline]
fn raw(crc: u32, bytes: &[u8]) -> u32 {
    portable(crc, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, a bit at a time.
    fn slow(crc: u32, bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!crc, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 != 0 { c >> 1 ^ POLYNOMIAL } else { c >> 1 })
        })
    }

    #[test]
    fn vectors_of_rfc_3720() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        for (bytes, crc) in [
            (&b""[..], 0),
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
            (&falling, 0x113f_db5c),
        ] {
            assert_eq!(crc32c(0, bytes), crc);
            assert_eq!(!portable(!0, bytes), crc);
        }
    }

    #[test]
    fn all_kernels_agree_at_every_length_and_alignment() {
        let data: Vec<u8> = (0..9000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in (0..600).chain([1000, 4079, 4080, 4081, 4096, 8192, 8990]) {
            for start in [0, 1, 3, 7] {
                let bytes = &data[start..start + length];
                let expected = slow(0x1234, bytes);
                assert_eq!(crc32c(0x1234, bytes), expected, "{length} bytes at {start}");
                assert_eq!(!portable(!0x1234, bytes), expected, "{length} bytes at {start}");
            }
        }
    }

    #[test]
    fn pieces_give_the_same_as_the_whole() {
        let data: Vec<u8> = (0..5000u32).map(|i| ((i * i) >> 3) as u8).collect();
        let whole = crc32c(0, &data);
        for cut in [0, 1, 8, 504, 505, 4080, 4999, 5000] {
            assert_eq!(crc32c(crc32c(0, &data[..cut]), &data[cut..]), whole);
        }
    }
}
