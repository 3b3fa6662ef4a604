//! Golden vectors of every hash algorithm: the published reference values of each hash, and ours
//! for clients in other languages. What the vectors mean is stated in `docs/hashing.md`.

use clusterkit_core::hash::{HashAlgorithm, HashConfig, Partitioner};
use serde_json::Value;

fn vectors(section: &str) -> Vec<Value> {
    let text = include_str!("../data/hash-vectors.json");
    let document: Value = serde_json::from_str(text).unwrap();
    document[section].as_array().unwrap().clone()
}

fn algorithm(entry: &Value) -> HashAlgorithm {
    entry["algorithm"].as_str().unwrap().parse().unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// The input of xxHash's own sanity check: the top bytes of a multiplicative sequence.
fn sanity_buffer(length: u64) -> Vec<u8> {
    let mut generator: u64 = 0x9E37_79B1;
    (0..length)
        .map(|_| {
            let [top, ..] = generator.to_be_bytes();
            generator = generator.wrapping_mul(0x9E37_79B1_85EB_CA8D);
            top
        })
        .collect()
}

#[test]
fn published_reference_values_hold() {
    let mut seen = Vec::new();
    for entry in vectors("published") {
        let algorithm = algorithm(&entry);
        let input = match entry["sanity_buffer_bytes"].as_u64() {
            Some(length) => sanity_buffer(length),
            None => bytes(&entry["input_hex"]),
        };
        let digest = bytes(&entry["digest_hex"]);
        // We keep the first 4 or 8 bytes of a digest, read as big-endian.
        let kept = digest.len().min(match algorithm {
            HashAlgorithm::Md5 | HashAlgorithm::Fnv1a32 => 4,
            _ => 8,
        });
        let expected = digest[..kept]
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        assert_eq!(algorithm.hash(&input), expected, "{entry}");
        seen.push(algorithm);
    }
    for algorithm in HashAlgorithm::ALL {
        assert!(
            seen.iter().filter(|a| **a == algorithm).count() >= 3,
            "{algorithm}"
        );
    }
}

#[test]
fn golden_vectors_hold() {
    let entries = vectors("vectors");
    assert!(entries.len() >= 80);
    for entry in entries {
        let algorithm = algorithm(&entry);
        let key = bytes(&entry["key_hex"]);
        let hash = u64::from_str_radix(entry["hash_hex"].as_str().unwrap(), 16).unwrap();
        assert_eq!(algorithm.hash(&key), hash, "{entry}");
        for (count, partition) in entry["partitions"].as_object().unwrap() {
            let count = count.parse().unwrap();
            let partitioner = Partitioner::new(HashConfig::new(algorithm), count).unwrap();
            let found = u64::from(partitioner.partition(&key).value());
            assert_eq!(Some(found), partition.as_u64(), "{entry}");
        }
    }
}

#[test]
fn keys_land_where_clients_of_earlier_releases_look_for_them() {
    let check = |key: &str, hash: u64, of_64: u32, of_16: u32| {
        let config = HashConfig::new(HashAlgorithm::Md5);
        let partition = |count| {
            let partitioner = Partitioner::new(config, count).unwrap();
            partitioner.partition(key.as_bytes()).value()
        };
        assert_eq!(HashAlgorithm::Md5.hash(key.as_bytes()), hash, "{key}");
        assert_eq!((partition(64), partition(16)), (of_64, of_16), "{key}");
    };
    check("user:1", 3_182_550_288, 16, 0);
    check("user:123", 2_430_271_536, 48, 0);
    check("a", 214_005_177, 57, 9);
    check("", 3_558_706_393, 25, 9);
    let published = HashConfig::new(HashAlgorithm::Md5).describe(64);
    assert_eq!(published.algorithm, "md5");
    assert_eq!(published.encoding, "big_endian_uint32");
    assert_eq!(published.format, "partition-%d");
    assert_eq!(published.modulo, 64);
}
