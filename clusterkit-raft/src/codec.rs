//! The one place where values become bytes: a version byte, then bincode.
//!
//! Used for everything this crate stores or sends to a peer, and offered to the crates above so
//! that peers speak one encoding. Not a self-describing format: the reader must know the type.
//! JSON documents for people and other languages live in the HTTP crate.

use std::error::Error;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version byte in front of every encoded value.
pub const VERSION: u8 = 1;

/// The most bytes one decoded value may claim, in bytes (1 GiB): a damaged length must not make
/// the process allocate without bound.
pub const DECODE_MAX_BYTES: usize = 1 << 30;

/// Why bytes could not be read, or a value not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// There was not even a version byte.
    #[error("{what} is empty, expected a version byte")]
    Empty {
        /// What was being read.
        what: &'static str,
    },
    /// Written by a version of this library that this one does not know.
    #[error("{what} has format version {found}, this build reads version {VERSION}")]
    Version {
        /// What was being read.
        what: &'static str,
        /// The version byte found.
        found: u8,
    },
    /// The bytes are not a value of the expected type.
    #[error("{what} is malformed ({length} bytes)")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// How many bytes there were.
        length: usize,
        /// What the decoder found wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A value was followed by bytes that do not belong to it.
    #[error("{what} is followed by {extra} unexpected bytes")]
    Trailing {
        /// What was being read.
        what: &'static str,
        /// How many bytes were left over.
        extra: usize,
    },
    /// The value cannot be represented.
    #[error("{what} cannot be encoded")]
    Encode {
        /// What was being written.
        what: &'static str,
        /// What the encoder found wrong.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Returns `value` as bytes, the version byte first.
///
/// # Errors
/// [`CodecError::Encode`] when the type's serialization fails.
pub fn encode<T: Serialize + ?Sized>(what: &'static str, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard()).map_err(
        |error| CodecError::Encode {
            what,
            source: Box::new(error),
        },
    )?;
    Ok(bytes)
}

/// Reads a value that [`encode`] wrote, all of `bytes` and nothing more.
///
/// # Errors
/// [`CodecError`] saying what is wrong with the bytes. Never panics, whatever the bytes.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let Some((&version, rest)) = bytes.split_first() else {
        return Err(CodecError::Empty { what });
    };
    if version != VERSION {
        return Err(CodecError::Version {
            what,
            found: version,
        });
    }
    let config = bincode::config::standard().with_limit::<DECODE_MAX_BYTES>();
    let (value, used) =
        bincode::serde::decode_from_slice(rest, config).map_err(|error| CodecError::Malformed {
            what,
            length: bytes.len(),
            source: Box::new(error),
        })?;
    match rest.len() - used {
        0 => Ok(value),
        extra => Err(CodecError::Trailing { what, extra }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Sample = (u64, String, Option<Vec<u8>>);

    #[test]
    fn each_defect_is_named() {
        let good = encode("sample", &(7u64, "seven", Some(vec![1u8]))).unwrap();
        assert_eq!(good[0], VERSION);
        assert_eq!(
            decode::<Sample>("sample", &good).unwrap(),
            (7, String::from("seven"), Some(vec![1]))
        );
        let check = |bytes: &[u8], expected: &str| {
            let error = decode::<Sample>("sample", bytes).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(&[], "sample is empty, expected a version byte");
        check(
            &[9, 1, 2],
            "sample has format version 9, this build reads version 1",
        );
        check(&good[..4], "sample is malformed (4 bytes)");
        let mut long = good;
        long.push(0);
        check(&long, "sample is followed by 1 unexpected bytes");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Sample>("sample", &bytes);
            let mut versioned = vec![VERSION];
            versioned.extend(bytes);
            let _ = decode::<Sample>("sample", &versioned);
        }
    }
}
