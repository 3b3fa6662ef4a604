//! Every rule of the design has a test named after it: `rule_NN_..`.

use std::collections::BTreeSet;

use super::Finding;

/// How many rules there are: section 3 of the design.
const RULES: u8 = 15;
const PREFIX: &str = "fn rule_";

/// Which rules have a test, as far as was read.
#[derive(Debug, Default)]
pub(super) struct Tested(BTreeSet<u8>);

impl Tested {
    /// Takes note of the tests in the file `path`.
    pub(super) fn read(&mut self, path: &str, content: &str) {
        if path.starts_with("xtask/") {
            return; // It names rules without testing them.
        }
        for (at, _) in content.match_indices(PREFIX) {
            let number = content[at + PREFIX.len()..].split('_').next();
            self.0.extend(number.and_then(|it| it.parse::<u8>().ok()));
        }
    }

    /// Returns what is broken once every file was read.
    pub(super) fn check(&self) -> Vec<Finding> {
        let known = 1..=RULES;
        let strays = self.0.iter().filter(|rule| !known.contains(rule));
        let strays = strays.map(|rule| format!("there is no rule {rule}, and a test of it"));
        let missing = known.clone().filter(|rule| !self.0.contains(rule));
        let missing = missing.map(|rule| format!("no test `rule_{rule:02}_..` holds rule {rule}"));
        let all = strays.chain(missing);
        all.map(|it| Finding::error("DESIGN.md section 3", "rules", it))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_a_test_is_found() {
        let mut tested = Tested::default();
        for rule in (1..=15).filter(|rule| *rule != 9) {
            tested.read(
                "a/tests/it.rs",
                &format!("async fn rule_{rule:02}_holds() {{}}"),
            );
        }
        tested.read("xtask/src/x.rs", "fn rule_09_is_only_named() {}");
        tested.read("a/tests/it.rs", "fn rule_out() {}");
        let found = tested.check();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].to_string().contains("`rule_09_..`"),
            "{}",
            found[0]
        );
        tested.read("a/src/tests.rs", "fn rule_09_holds() {}");
        assert_eq!(tested.check(), []);
        tested.read("a/src/tests.rs", "fn rule_16_holds() {}");
        assert!(
            tested.check()[0]
                .to_string()
                .contains("there is no rule 16")
        );
    }
}
