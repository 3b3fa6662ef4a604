//! Unit tests of the hash module: names, limits, descriptions. Golden vectors are checked in
//! `tests/it/hashing.rs`.

use alloc::string::ToString;

use super::*;

#[test]
fn names_round_trip_and_unknown_ones_are_refused_by_name() {
    for algorithm in HashAlgorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        let json = serde_json::to_string(&algorithm).unwrap();
        assert_eq!(json, alloc::format!("\"{algorithm}\""));
        assert_eq!(
            serde_json::from_str::<HashAlgorithm>(&json).unwrap(),
            algorithm
        );
    }
    assert_eq!(
        "murmur3".parse::<HashAlgorithm>().unwrap_err().to_string(),
        "hash.algorithm is `murmur3`, must be one of xxh3_64, md5, fnv1a_32, sha256"
    );
    assert_eq!(HashAlgorithm::default(), HashAlgorithm::Xxh3_64);
}

#[test]
fn counts_out_of_range_are_refused() {
    for algorithm in HashAlgorithm::ALL {
        let config = HashConfig::new(algorithm);
        for bad in [0, PARTITIONS_MAX + 1, u32::MAX] {
            assert_eq!(
                config.validate(bad).unwrap_err().to_string(),
                alloc::format!("partition_count is `{bad}`, must be 1 to 65536")
            );
        }
        for good in [1, 2, 3, 256, PARTITIONS_MAX] {
            assert_eq!(config.validate(good), Ok(()));
        }
    }
}

#[test]
fn extremes_of_the_hash_stay_below_the_count() {
    for reduction in [Reduction::Modulo, Reduction::MultiplyShift] {
        for count in [1, 2, 3, 1000, PARTITIONS_MAX, u32::MAX] {
            let nonzero = NonZeroU32::new(count).unwrap();
            for hash in [0, 1, u64::from(u32::MAX), u64::MAX / 2, u64::MAX] {
                assert!(reduction.apply(hash, nonzero).value() < count);
            }
        }
    }
}

#[test]
fn doubling_a_multiply_shift_count_splits_each_partition_in_two() {
    let few = Partitioner::new(HashConfig::default(), 128).unwrap();
    let many = Partitioner::new(HashConfig::default(), 256).unwrap();
    for i in 0..10_000_u32 {
        let key = i.to_le_bytes();
        assert_eq!(
            few.partition(&key).value(),
            many.partition(&key).value() / 2
        );
    }
}

#[test]
fn every_description_gives_its_partitioner_back() {
    for algorithm in HashAlgorithm::ALL {
        let config = HashConfig::new(algorithm);
        let partitioner = config.describe(77).partitioner().unwrap();
        assert_eq!(partitioner, Partitioner::new(config, 77).unwrap());
    }
}

#[test]
fn a_description_this_version_cannot_compute_is_an_error_never_a_guess() {
    let check = |change: fn(&mut HashDescription<'static>), expected: &str| {
        let mut description = HashConfig::default().describe(64);
        change(&mut description);
        assert_eq!(description.partitioner().unwrap_err().to_string(), expected);
    };
    check(
        |d| d.algorithm = "crc32",
        "hash.algorithm is `crc32`, must be one of xxh3_64, md5, fnv1a_32, sha256",
    );
    check(|d| d.seed = Some(7), "hash.seed is `7`, must be 0");
    check(
        |d| d.reduce = "modulo",
        "hash.reduce is `modulo`, must be multiply_shift",
    );
    check(
        |d| d.encoding = "little_endian_uint64",
        "hash.encoding is `little_endian_uint64`, must be uint64",
    );
    check(
        |d| d.modulo = 0,
        "partition_count is `0`, must be 1 to 65536",
    );
}

#[test]
fn keys_spread_over_all_partitions() {
    for algorithm in HashAlgorithm::ALL {
        let partitioner = Partitioner::new(HashConfig::new(algorithm), 64).unwrap();
        let mut hits = [0_u32; 64];
        for i in 0..64_000 {
            let partition = partitioner.partition(alloc::format!("user:{i}").as_bytes());
            hits[partition.index()] += 1;
        }
        let (low, high) = (hits.iter().min().unwrap(), hits.iter().max().unwrap());
        assert!(
            *low > 800 && *high < 1_200,
            "{algorithm}: {low}..{high} of 1000"
        );
    }
}
