//! Dependency direction between our crates, and which crate may see which foreign one.
//!
//! Reads `cargo metadata --no-deps`; whether an optional dependency is switched on is decided by
//! cargo, so the client is also built alone (`cargo xtask test --step clippy-client`).

use serde_json::Value;

use super::Finding;

/// Our crates and which of ours each may depend on (dev-dependencies included).
const LAYERS: &[(&str, &[&str])] = &[
    ("clusterkit-core", &[]),
    ("clusterkit-raft", &["clusterkit-core"]),
    ("clusterkit-http", &["clusterkit-core", "clusterkit-raft"]),
    ("clusterkit-client", &["clusterkit-core", "clusterkit-http"]),
    (
        "clusterkit",
        &["clusterkit-core", "clusterkit-raft", "clusterkit-http"],
    ),
    (
        "clusterkit-sim",
        &[
            "clusterkit-core",
            "clusterkit-raft",
            "clusterkit-http",
            "clusterkit",
            "clusterkit-client",
            "clusterkit-examples",
        ],
    ),
    (
        "clusterkit-examples",
        &[
            "clusterkit-core",
            "clusterkit-http",
            "clusterkit",
            "clusterkit-client",
        ],
    ),
    (
        "xtask",
        &[
            "clusterkit-core",
            "clusterkit-http",
            "clusterkit-client",
            "clusterkit-sim",
        ],
    ),
];

/// Foreign crates with a wall around them: only these crates of ours name them.
const WALLS: &[(&str, &[&str])] = &[
    ("openraft", &["clusterkit-raft"]),
    ("bincode", &["clusterkit-raft"]), // and tests of the core, which check that its types suit it
    ("redb", &["clusterkit-raft", "clusterkit-examples"]),
    ("anyhow", &["clusterkit-examples", "xtask"]),
    ("prometheus-client", &["clusterkit-http"]),
];

/// What the pure core may depend on, dev-dependencies aside.
const CORE_MAY: &[&str] = &[
    "async-trait",
    "fnv",
    "md-5",
    "serde",
    "sha2",
    "thiserror",
    "xxhash-rust",
];

pub(super) fn check(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let packages = metadata["packages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, may)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            findings.push(Finding::error(
                name,
                "layers",
                "crate is not in tidy's list of layers",
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            findings.extend(check_dependency(name, may, dependency));
        }
    }
    findings
}

fn check_dependency(name: &str, may: &[&str], dependency: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let target = dependency["name"].as_str().unwrap_or_default();
    let of_tests = dependency["kind"].as_str() == Some("dev");
    let ours = LAYERS.iter().any(|(layer, _)| *layer == target);
    if ours && target != name && !may.contains(&target) {
        let message = format!("may not depend on {target}: dependencies point down only");
        findings.push(Finding::error(name, "layers", message));
    }
    if let Some((_, inside)) = WALLS.iter().find(|(walled, _)| *walled == target)
        && !inside.contains(&name)
        && !(target == "bincode" && of_tests)
    {
        let message = format!("may not depend on {target}: only {} may", inside.join(", "));
        findings.push(Finding::error(name, "walls", message));
    }
    if name == "clusterkit-core" && !of_tests && !ours && !CORE_MAY.contains(&target) {
        let message = format!("{target} is not among the crates the pure core may use");
        findings.push(Finding::error(name, "pure-core", message));
    }
    if name == "clusterkit-client" && target == "clusterkit-http" {
        let server = dependency["features"]
            .as_array()
            .is_some_and(|features| features.iter().any(|feature| feature == "server"));
        if server || dependency["uses_default_features"].as_bool() != Some(false) {
            let message = "takes clusterkit-http with its `server` half, which brings Raft";
            findings.push(Finding::error(name, "layers", message));
        }
    }
    if name == "clusterkit-http"
        && target == "clusterkit-raft"
        && !of_tests
        && dependency["optional"].as_bool() != Some(true)
    {
        let message = "clusterkit-raft must be optional, behind the `server` feature";
        findings.push(Finding::error(name, "layers", message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_one(name: &str, dependency: &Value) -> Vec<String> {
        let metadata = json!({"packages": [{"name": name, "dependencies": [dependency]}]});
        check(&metadata).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn core_depends_on_none_of_ours() {
        let found = check_one("clusterkit-core", &json!({"name": "clusterkit-http"}));
        assert!(
            found[0].contains("may not depend on clusterkit-http"),
            "{found:?}"
        );
        assert!(check_one("clusterkit-core", &json!({"name": "serde"})).is_empty());
        assert!(check_one("clusterkit-core", &json!({"name": "tokio"}))[0].contains("pure core"));
        let of_tests = json!({"name": "criterion", "kind": "dev"});
        assert!(check_one("clusterkit-core", &of_tests).is_empty());
    }

    #[test]
    fn node_does_not_know_its_client() {
        assert_eq!(
            check_one("clusterkit", &json!({"name": "clusterkit-client"})).len(),
            1
        );
        assert_eq!(
            check_one("clusterkit-raft", &json!({"name": "clusterkit-http"})).len(),
            1
        );
        assert!(check_one("clusterkit", &json!({"name": "clusterkit-raft"})).is_empty());
    }

    #[test]
    fn client_takes_only_the_client_half_of_http() {
        let with = |features: &[&str], default: bool| json!({"name": "clusterkit-http", "features": features, "uses_default_features": default});
        assert!(check_one("clusterkit-client", &with(&[], false)).is_empty());
        assert_eq!(
            check_one("clusterkit-client", &with(&["server"], false)).len(),
            1
        );
        assert_eq!(check_one("clusterkit-client", &with(&[], true)).len(), 1);
    }

    #[test]
    fn http_keeps_raft_optional() {
        let raft = |optional| json!({"name": "clusterkit-raft", "optional": optional});
        assert!(check_one("clusterkit-http", &raft(true)).is_empty());
        assert_eq!(check_one("clusterkit-http", &raft(false)).len(), 1);
    }

    #[test]
    fn openraft_and_bincode_stay_behind_their_wall() {
        assert!(check_one("clusterkit-raft", &json!({"name": "openraft"})).is_empty());
        assert_eq!(
            check_one("clusterkit", &json!({"name": "openraft"})).len(),
            1
        );
        assert_eq!(
            check_one("clusterkit-http", &json!({"name": "bincode"})).len(),
            1
        );
    }

    #[test]
    fn a_crate_nobody_placed_is_reported() {
        assert!(check_one("clusterkit-util", &json!({}))[0].contains("list of layers"));
    }
}
