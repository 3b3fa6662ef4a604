//! What the demo loads: the tracked files of this repository, or the lines of a file.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::check::root;
use crate::tidy::{Files, files};

/// The records to load.
#[derive(Debug)]
pub(super) struct Input {
    /// Where they come from, for people.
    pub(super) origin: String,
    /// Keys and values; no key twice.
    pub(super) records: Vec<(String, Vec<u8>)>,
}

impl Input {
    /// Reads `file`, a record a line; without one, every tracked file of this repository.
    pub(super) fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let input = match file {
            Some(file) => {
                let content = std::fs::read(file)
                    .with_context(|| format!("cannot read the input {}", file.display()))?;
                let name = file
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                Self {
                    origin: format!("the lines of {}", file.display()),
                    records: lines(&name, &content),
                }
            }
            None => Self {
                origin: "the files of this repository".to_owned(),
                records: repository()?,
            },
        };
        ensure!(
            !input.records.is_empty(),
            "there is nothing to load in {}",
            input.origin
        );
        Ok(input)
    }

    /// Returns the size of all values.
    pub(super) fn bytes(&self) -> usize {
        self.records.iter().map(|(_, value)| value.len()).sum()
    }
}

fn lines(name: &str, content: &[u8]) -> Vec<(String, Vec<u8>)> {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    if content.is_empty() {
        return Vec::new();
    }
    let numbered = content.split(|byte| *byte == b'\n').enumerate();
    numbered
        .map(|(at, line)| (format!("{name}:{}", at + 1), line.to_vec()))
        .collect()
}

fn repository() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let root = root()?;
    let mut records = Vec::new();
    for path in files(&root, Files::Tracked)? {
        // A link, a file deleted and not committed: nothing to read.
        if let Ok(content) = std::fs::read(root.join(&path)) {
            records.push((path, content));
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_record() {
        let read = lines("a.txt", b"one\n\n\xff\xfe\n");
        let expected: Vec<(String, Vec<u8>)> = vec![
            ("a.txt:1".into(), b"one".to_vec()),
            ("a.txt:2".into(), Vec::new()),
            ("a.txt:3".into(), vec![0xff, 0xfe]),
        ];
        assert_eq!(read, expected);
        assert!(lines("a.txt", b"").is_empty());
        assert_eq!(lines("a.txt", b"no end").len(), 1);
    }

    #[test]
    fn a_missing_input_is_named() {
        let error = Input::read(Some(Path::new("no/such/file.txt"))).unwrap_err();
        assert!(error.to_string().contains("no/such/file.txt"), "{error}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(
            Input::read(Some(empty.path()))
                .unwrap_err()
                .to_string()
                .contains("nothing to load")
        );
    }

    #[test]
    fn this_repository_is_the_default() {
        let input = Input::read(None).unwrap();
        assert!(input.records.iter().any(|(path, _)| path == "Cargo.toml"));
        assert!(input.bytes() > 10_000);
    }
}
