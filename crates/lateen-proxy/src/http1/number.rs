//! Numbers in heads and before chunks, without the detour through a formatter.

use bytes::{BufMut, BytesMut};

/// Writes a number in decimal digits.
pub(super) fn decimal(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[start..]);
}

/// Writes the size of a chunk, which is not zero, in hexadecimal digits.
pub(super) fn hexadecimal(out: &mut BytesMut, mut size: usize) {
    let mut digits = [0; 16];
    let mut start = digits.len();
    while size > 0 {
        start -= 1;
        digits[start] = b"0123456789abcdef"[size % 16];
        size /= 16;
    }
    out.put_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 9, 10, 12345, u64::MAX] {
            let mut out = BytesMut::new();
            decimal(&mut out, number);
            assert_eq!(str::from_utf8(&out).unwrap(), number.to_string());
        }
        for size in [1, 15, 16, 0xabc, usize::MAX] {
            let mut out = BytesMut::new();
            hexadecimal(&mut out, size);
            assert_eq!(str::from_utf8(&out).unwrap(), format!("{size:x}"));
        }
    }
}
