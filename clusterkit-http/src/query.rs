//! Query strings: decoding that bears what old clients send, and encoding for our own requests.
//!
//! Old clients do not escape keys: a stray `%`, a raw UTF-8 byte or any printable character in a
//! value is taken as it stands. `+` is a space, as forms write it.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The parameters of one query string.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    raw: &'a str,
}

impl<'a> Query<'a> {
    /// Reads `raw`, what stands after the `?`.
    #[must_use]
    pub const fn new(raw: &'a str) -> Self {
        Self { raw }
    }

    /// Returns the decoded bytes of the first parameter called `name`: a key need not be text.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.raw.split('&').find_map(|pair| {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            (found == name).then(|| decode(value))
        })
    }

    /// Returns the first parameter called `name` as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        form_urlencoded::parse(self.raw.as_bytes())
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
    }
}

fn decode(value: &str) -> Vec<u8> {
    let spaced = value.replace('+', " ");
    percent_decode_str(&spaced).collect()
}

/// Escapes `value` for one segment of a path or one value of a query.
#[must_use]
pub fn escape(value: &str) -> String {
    utf8_percent_encode(value, KEPT).to_string()
}

/// Escapes raw bytes for one segment of a path or one value of a query.
#[must_use]
pub fn escape_bytes(value: &[u8]) -> String {
    percent_encoding::percent_encode(value, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescaped_keys_of_old_clients_are_taken_as_they_stand() {
        let check = |raw: &str, expected: &[u8]| {
            assert_eq!(Query::new(raw).bytes("key").as_deref(), Some(expected));
        };
        check("key=user:123", b"user:123");
        check("x=1&key=a/b?c=d", b"a/b?c=d");
        check("key=100%", b"100%");
        check("key=50%zz", b"50%zz");
        check("key=a%20b+c", b"a b c");
        check("key=%ff%00", &[0xff, 0]);
        check("key=é", "é".as_bytes());
        check("key=", b"");
        check("key", b"");
        assert_eq!(Query::new("other=1").bytes("key"), None);
        assert_eq!(Query::new("").bytes("key"), None);
    }

    #[test]
    fn escaping_round_trips_every_byte() {
        let all: Vec<u8> = (0..=255).collect();
        let raw = format!("key={}", escape_bytes(&all));
        assert_eq!(Query::new(&raw).bytes("key"), Some(all));
        assert_eq!(escape("a/b c"), "a%2Fb%20c");
    }
}
