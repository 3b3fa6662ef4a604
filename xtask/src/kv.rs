//! Records of the key-value service, through `clusterkit-client`: routed by key, byte for byte.
//!
//! The service speaks JSON, whose strings are text; [`encode`] makes any bytes text and back.

use std::time::Duration;

use anyhow::{Context, bail};

/// Returns `value` as text: itself behind a `t`, or in hexadecimal behind an `x` if it is not text.
pub(crate) fn encode(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => format!("t{text}"),
        Err(_) => {
            let mut out = String::with_capacity(1 + 2 * value.len());
            out.push('x');
            for byte in value {
                for half in [byte >> 4, byte & 15] {
                    out.push(char::from_digit(u32::from(half), 16).unwrap_or_default());
                }
            }
            out
        }
    }
}

/// Returns the bytes that [`encode`] made into `text`.
pub(crate) fn decode(text: &str) -> anyhow::Result<Vec<u8>> {
    match text.split_at_checked(1) {
        Some(("t", text)) => Ok(text.as_bytes().to_vec()),
        Some(("x", digits)) => {
            let digits: Option<Vec<u32>> = digits.chars().map(|c| c.to_digit(16)).collect();
            let digits = digits.context("a value is not in hexadecimal")?;
            let byte = |pair: &[u32]| u8::try_from(pair.iter().fold(0, |sum, half| sum * 16 + half));
            let bytes = digits.chunks(2).map(byte).collect::<Result<_, _>>();
            bytes.context("a value is not in hexadecimal")
        }
        _ => bail!("a value was not written by us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive() {
        for value in [&b""[..], b"text", b"x00", "\u{0}\u{1f}\"\\\u{2028}".as_bytes(), &[0xff, 0, 0x80, 0x0a]] {
            assert_eq!(decode(&encode(value)).unwrap(), value);
        }
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&every)).unwrap(), every);
    }

    #[test]
    fn what_we_did_not_write_is_refused() {
        assert!(decode("").is_err());
        assert!(decode("zz").is_err());
        assert!(decode("xg0").is_err());
    }
}
