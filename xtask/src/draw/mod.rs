//! `cargo xtask draw`: the pictures of `docs/placement.md`, from real runs of the solver.
//!
//! Every number in a picture comes from a plan computed here and checked by `placement::verify`;
//! nothing is drawn by hand. With `--check` nothing is written and a difference is an error. How
//! shapes become text is in `svg`.

mod scenes;
mod svg;

use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;

use crate::check::root;

/// Where the pictures are.
const DIRECTORY: &str = "docs/img";

/// Options of `cargo xtask draw`.
#[derive(Args)]
pub(crate) struct DrawArgs {
    /// Write nothing; fail when a picture is not what would be drawn.
    #[arg(long)]
    check: bool,
}

/// Draws every picture, or compares it with what is there.
pub(crate) fn run(args: &DrawArgs) -> anyhow::Result<()> {
    let directory = root()?.join(DIRECTORY);
    if args.check {
        let stale = stale(&directory)?;
        if !stale.is_empty() {
            bail!(
                "not up to date: {}; draw again: cargo xtask draw",
                stale.join(", ")
            );
        }
        println!("{DIRECTORY}: every picture is up to date");
        return Ok(());
    }
    std::fs::create_dir_all(&directory)?;
    for (name, picture) in scenes::all()? {
        let path = directory.join(name);
        std::fs::write(&path, picture).with_context(|| format!("{}", path.display()))?;
        println!("{DIRECTORY}/{name}");
    }
    Ok(())
}

/// Returns the names of pictures in `directory` that are not what would be drawn.
fn stale(directory: &Path) -> anyhow::Result<Vec<&'static str>> {
    let mut stale = Vec::new();
    for (name, picture) in scenes::all()? {
        let found = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        if found != picture {
            stale.push(name);
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pictures_in_the_repository_are_up_to_date() {
        let directory = root().unwrap().join(DIRECTORY);
        assert_eq!(stale(&directory).unwrap(), Vec::<&str>::new());
    }

    #[test]
    fn the_document_shows_every_picture() {
        let document = root().unwrap().join("docs/placement.md");
        let document = std::fs::read_to_string(document).unwrap();
        for (name, _) in scenes::all().unwrap() {
            assert!(document.contains(&format!("(img/{name})")), "{name}");
        }
    }
}
