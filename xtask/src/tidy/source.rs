//! Rules about one Rust file: its opening, its size, and tokens that may not stand in it.
//!
//! Works on tokens, so that text in strings and comments never counts; what a public signature
//! may name is checked by `surface`.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

use super::Finding;

/// A file over this many lines wants splitting.
const LINES_MAX: usize = 800;
/// A file over this many lines is pointed out.
const LINES_COMFORTABLE: usize = 400;

pub(super) fn check(path: &str, content: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !content.starts_with("//!") {
        let message = "opens without `//!`: what it is, and where the other half lives";
        findings.push(Finding::error(path, "opening", message));
    }
    let lines = content.lines().count();
    if lines > LINES_MAX {
        let message = format!("{lines} lines, at most {LINES_MAX}");
        findings.push(Finding::error(path, "size", message));
    } else if lines > LINES_COMFORTABLE {
        let message = format!("{lines} lines, {LINES_COMFORTABLE} are comfortable");
        findings.push(Finding::warning(path, "size", message));
    }
    if path == "clusterkit-core/src/lib.rs" && !is_no_std(content) {
        findings.push(Finding::error(
            path,
            "no-std",
            "the core must say `#![no_std]`",
        ));
    }
    match content.parse::<TokenStream>() {
        Ok(tokens) => {
            let mut scan = Scan {
                path,
                findings: &mut findings,
            };
            scan.tokens(tokens, is_test_file(path));
        }
        Err(error) => findings.push(Finding::error(path, "parse", error.to_string())),
    }
    findings
}

fn is_no_std(content: &str) -> bool {
    content.lines().any(|line| line.trim() == "#![no_std]")
}

fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| part == "tests") || path.ends_with("/tests.rs")
}

struct Scan<'a> {
    path: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Scan<'_> {
    fn tokens(&mut self, tokens: TokenStream, in_tests: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        // Set by `#[cfg(test)]` until the item it stands on ends.
        let mut item_of_tests = false;
        for (index, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    let after_hash = index > 0 && is_punct(&tokens[index - 1], '#');
                    if after_hash && group.delimiter() == Delimiter::Bracket {
                        item_of_tests |= is_cfg_test(&group.stream());
                        self.attribute(&group.stream());
                    }
                    self.tokens(group.stream(), in_tests || item_of_tests);
                    if group.delimiter() == Delimiter::Brace {
                        item_of_tests = false;
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => item_of_tests = false,
                TokenTree::Ident(name) => {
                    self.name(name, &tokens[index + 1..], in_tests || item_of_tests);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn attribute(&mut self, tokens: &TokenStream) {
        let Some(TokenTree::Ident(name)) = tokens.clone().into_iter().next() else {
            return;
        };
        if name == "ignore" || name == "should_panic" {
            let message = format!("`#[{name}]` is not used here");
            self.report(&name, "attributes", message);
        }
    }

    fn name(&mut self, name: &Ident, rest: &[TokenTree], in_tests: bool) {
        let is_call = matches!(rest.first(),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
        if in_tests && is_call && name == "sleep" {
            self.report(
                name,
                "sleep",
                "a test waits on a condition with a limit, never sleeps",
            );
        }
        let is_root = matches!(rest, [a, b, ..] if is_punct(a, ':') && is_punct(b, ':'));
        if !is_root {
            return;
        }
        if name == "bincode" && !in_tests && !is_codec(self.path) {
            let message = "bincode stays in clusterkit-raft's codec module, and in tests";
            self.report(name, "codec", message);
        }
        if name == "openraft" && !self.path.starts_with("clusterkit-raft/") {
            self.report(name, "walls", "openraft stays in clusterkit-raft");
        }
        if name == "fs" && !in_tests && !may_touch_files(self.path) {
            let message = "files are reached through clusterkit_raft::disk only";
            self.report(name, "disk", message);
        }
    }

    fn report(&mut self, at: &Ident, rule: &'static str, message: impl Into<String>) {
        let place = format!("{}:{}", self.path, at.span().start().line);
        self.findings.push(Finding::error(place, rule, message));
    }
}

fn is_codec(path: &str) -> bool {
    path == "clusterkit-raft/src/codec.rs" || path.starts_with("clusterkit-raft/src/codec/")
}

/// What touches a disk behind the seam's back is durable by accident, and not simulated.
fn may_touch_files(path: &str) -> bool {
    let of_a_program = path.starts_with("xtask/") || path.contains("/bin/");
    of_a_program || path.ends_with("/build.rs") || path == "clusterkit-raft/src/disk/os.rs"
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_cfg_test(attribute: &TokenStream) -> bool {
    let mut tokens = attribute.clone().into_iter();
    let is_cfg = matches!(tokens.next(), Some(TokenTree::Ident(name)) if name == "cfg");
    let Some(TokenTree::Group(condition)) = tokens.next() else {
        return false;
    };
    is_cfg && mentions_test(condition.stream())
}

fn mentions_test(tokens: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    if matches!(tokens.first(), Some(TokenTree::Ident(name)) if name == "not") {
        return false;
    }
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(name) => name == "test",
        TokenTree::Group(group) => mentions_test(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a snippet behind a proper opening, and returns the rules it breaks.
    fn rules(path: &str, code: &str) -> Vec<&'static str> {
        let found = check(path, &format!("//! A file.\n{code}"));
        found.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_file_opens_with_what_it_is() {
        assert_eq!(check("a/src/b.rs", "fn main() {}")[0].rule, "opening");
        assert!(rules("a/src/b.rs", "fn main() {}").is_empty());
    }

    #[test]
    fn a_long_file_wants_splitting() {
        let lines = |count: usize| "// line\n".repeat(count);
        assert!(rules("a/src/b.rs", &lines(300)).is_empty());
        let warned = check("a/src/b.rs", &format!("//! A file.\n{}", lines(500)));
        assert!(warned[0].warning);
        let refused = check("a/src/b.rs", &format!("//! A file.\n{}", lines(801)));
        assert!(!refused[0].warning);
    }

    #[test]
    fn core_is_no_std() {
        assert_eq!(rules("clusterkit-core/src/lib.rs", "mod a;"), ["no-std"]);
        assert!(rules("clusterkit-core/src/lib.rs", "#![no_std]\nmod a;").is_empty());
    }

    #[test]
    fn tests_are_neither_ignored_nor_expected_to_panic() {
        assert_eq!(
            rules("a/tests/it/main.rs", "#[ignore] #[test] fn a() {}"),
            ["attributes"]
        );
        let panics = "#[cfg(test)] mod tests { #[should_panic(expected = \"x\")] fn a() {} }";
        assert_eq!(rules("a/src/b.rs", panics), ["attributes"]);
        assert!(rules("a/src/b.rs", "const A: &str = \"#[ignore]\"; // #[ignore]").is_empty());
    }

    #[test]
    fn tests_do_not_sleep() {
        let sleeps = "async fn a() { tokio::time::sleep(LIMIT).await }";
        assert_eq!(rules("a/tests/it/main.rs", sleeps), ["sleep"]);
        assert_eq!(rules("a/src/b/tests.rs", sleeps), ["sleep"]);
        assert!(
            rules("a/src/b.rs", sleeps).is_empty(),
            "outside tests it is somebody's business"
        );
        let inside = format!("#[cfg(test)] mod tests {{ {sleeps} }}");
        assert_eq!(rules("a/src/b.rs", &inside), ["sleep"]);
        let after = format!("#[cfg(test)] mod tests {{ fn a() {{}} }} {sleeps}");
        assert!(
            rules("a/src/b.rs", &after).is_empty(),
            "the item of tests has ended"
        );
        let outside = format!("#[cfg(not(test))] mod real {{ {sleeps} }}");
        assert!(rules("a/src/b.rs", &outside).is_empty());
    }

    #[test]
    fn files_are_reached_through_one_module() {
        let reads = "fn a() { std::fs::read(PATH) }";
        assert_eq!(rules("clusterkit/src/feed.rs", reads), ["disk"]);
        assert_eq!(rules("clusterkit/src/a.rs", "use std::fs::File;"), ["disk"]);
        assert!(rules("clusterkit-raft/src/disk/os.rs", reads).is_empty());
        assert!(rules("clusterkit/tests/it/main.rs", reads).is_empty());
        assert!(rules("xtask/src/draw/mod.rs", reads).is_empty());
    }

    #[test]
    fn bincode_stays_in_one_module_and_openraft_in_one_crate() {
        let encodes = "fn a() { bincode::serde::encode_to_vec(1) }";
        assert_eq!(rules("clusterkit-raft/src/store.rs", encodes), ["codec"]);
        assert!(rules("clusterkit-raft/src/codec.rs", encodes).is_empty());
        assert!(rules("clusterkit-core/tests/it/state.rs", encodes).is_empty());
        assert_eq!(
            rules("clusterkit/src/lib.rs", "use openraft::Raft;"),
            ["walls"]
        );
        assert!(rules("clusterkit-raft/src/lib.rs", "use openraft::Raft;").is_empty());
        assert!(
            rules(
                "clusterkit/src/lib.rs",
                "/// Not openraft::Raft.\nfn a() {}"
            )
            .is_empty()
        );
    }
}
