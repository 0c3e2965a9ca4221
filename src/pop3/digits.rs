//! Numbers written straight into an octet buffer: a listing of a million messages formats no `String`.

/// Appends `value`, padded with zeros to at least `width` digits. The digits above nine are lower-case letters.
pub(super) fn write(out: &mut Vec<u8>, mut value: u64, radix: Radix, width: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = SYMBOLS[(value % radix as u64) as usize];
        value /= radix as u64;
        if value == 0 {
            break;
        }
    }
    let written = digits.len() - first;
    out.resize(out.len() + width.saturating_sub(written), b'0');
    out.extend_from_slice(&digits[first..]);
}

/// The base of a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Radix {
    /// Base ten.
    Decimal = 10,
    /// Base sixteen.
    Hexadecimal = 16,
}

const SYMBOLS: [u8; 16] = *b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for value in [0, 1, 9, 10, 15, 16, 255, u64::from(u32::MAX), u64::MAX] {
            for width in [0, 1, 8, 25] {
                let mut out = b"x".to_vec();
                write(&mut out, value, Radix::Decimal, width);
                write(&mut out, value, Radix::Hexadecimal, width);
                assert_eq!(String::from_utf8(out).unwrap(), format!("x{value:0width$}{value:0width$x}"));
            }
        }
    }
}
