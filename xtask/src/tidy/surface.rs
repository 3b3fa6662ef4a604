//! No type of a dependency in a public signature, so that a dependency can be replaced.
//!
//! Reads one file at a time with `syn`: `pub` means reachable, because the lint `unreachable_pub`
//! refuses any other use of it. A type hidden behind an alias of another file is not seen.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::Ident;
use syn::visit::{self, Visit};
use syn::{Fields, ImplItem, Item, Path, Signature, UseTree, Visibility};

use super::Finding;

/// Dependencies that stay behind our own types. `bytes`, `serde` and std's are vocabulary.
const FOREIGN: &[&str] = &[
    "openraft",
    "redb",
    "bincode",
    "hyper",
    "hyper_util",
    "http",
    "http_body",
    "http_body_util",
    "sse_stream",
    "backon",
    "arc_swap",
    "jiff",
    "uuid",
    "prometheus_client",
    "form_urlencoded",
    "percent_encoding",
    "xxhash_rust",
    "md5",
    "md_5",
    "sha2",
    "fnv",
    "rand_chacha",
    "socket2",
    "tokio_util",
    "anyhow",
];

/// Crates whose public signatures count; programs have none.
const LIBRARIES: &[&str] = &[
    "clusterkit-core/src/",
    "clusterkit-raft/src/",
    "clusterkit-http/src/",
    "clusterkit-client/src/",
    "clusterkit/src/",
    "clusterkit-sim/src/",
];

pub(super) fn check(path: &str, content: &str) -> Vec<Finding> {
    let library = LIBRARIES.iter().any(|library| path.starts_with(library));
    if !library || path.contains("/bin/") || path.ends_with("/main.rs") {
        return Vec::new();
    }
    match syn::parse_file(content) {
        Ok(file) => {
            let mut surface = Surface {
                path,
                findings: Vec::new(),
            };
            surface.items(&file.items, &Imports::default());
            surface.findings
        }
        Err(error) => vec![Finding::error(path, "parse", error.to_string())],
    }
}

/// Names in scope that could be taken for a dependency or come from one.
#[derive(Clone, Debug, Default)]
struct Imports {
    /// Names brought in by `use`, and the dependency each comes from.
    foreign: BTreeMap<String, String>,
    /// Modules of ours, some called as a dependency is: `mod http;`.
    ours: BTreeSet<String>,
}

impl Imports {
    fn is_foreign_crate(&self, name: &Ident) -> bool {
        FOREIGN.iter().any(|foreign| name == foreign) && !self.ours.contains(&name.to_string())
    }
}

struct Surface<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl Surface<'_> {
    fn items(&mut self, items: &[Item], outer: &Imports) {
        let mut imports = outer.clone();
        let mut public = BTreeSet::new();
        for item in items {
            if let Item::Mod(module) = item {
                imports.ours.insert(module.ident.to_string());
            }
        }
        for item in items {
            match item {
                Item::Use(import) => {
                    collect_imports(&import.tree, None, &mut imports);
                    if is_public(&import.vis) {
                        self.reexports(&import.tree, &imports);
                    }
                }
                Item::Struct(item) if is_public(&item.vis) => {
                    public.insert(item.ident.to_string());
                }
                Item::Enum(item) if is_public(&item.vis) => {
                    public.insert(item.ident.to_string());
                }
                _ => {}
            }
        }
        for item in items {
            self.item(item, &imports, &public);
        }
    }

    fn item(&mut self, item: &Item, imports: &Imports, public: &BTreeSet<String>) {
        let mut names = Names {
            surface: self,
            imports,
            owner: String::new(),
        };
        match item {
            Item::Fn(item) if is_public(&item.vis) => names.signature(&item.sig),
            Item::Struct(item) if is_public(&item.vis) => {
                names.owner = item.ident.to_string();
                names.visit_generics(&item.generics);
                names.fields(&item.fields, false);
            }
            Item::Enum(item) if is_public(&item.vis) => {
                names.owner = item.ident.to_string();
                for variant in &item.variants {
                    names.fields(&variant.fields, true);
                }
            }
            Item::Type(item) if is_public(&item.vis) => {
                names.owner = item.ident.to_string();
                names.visit_type(&item.ty);
            }
            Item::Const(item) if is_public(&item.vis) => {
                names.owner = item.ident.to_string();
                names.visit_type(&item.ty);
            }
            Item::Trait(item) if is_public(&item.vis) => {
                names.owner = item.ident.to_string();
                for bound in &item.supertraits {
                    names.visit_type_param_bound(bound);
                }
                for member in &item.items {
                    if let syn::TraitItem::Fn(method) = member {
                        names.signature(&method.sig);
                    }
                }
            }
            Item::Impl(item) => {
                let own = type_name(&item.self_ty);
                names.owner = own.clone().unwrap_or_default();
                if let Some((path, _)) = &item.trait_ {
                    if own.is_some_and(|own| public.contains(&own)) {
                        names.visit_path(path);
                    }
                    return;
                }
                for member in &item.items {
                    if let ImplItem::Fn(method) = member
                        && is_public(&method.vis)
                    {
                        names.signature(&method.sig);
                    }
                }
            }
            Item::Mod(item) if !is_of_tests(&item.attrs) => {
                if let Some((_, items)) = &item.content {
                    self.items(items, imports);
                }
            }
            _ => {}
        }
    }

    fn reexports(&mut self, tree: &UseTree, outer: &Imports) {
        let mut exported = Imports {
            foreign: BTreeMap::new(),
            ours: outer.ours.clone(),
        };
        collect_imports(tree, None, &mut exported);
        for (name, root) in exported.foreign {
            let message = format!("re-exports `{name}` of {root}");
            self.findings
                .push(Finding::error(self.path, "foreign", message));
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_of_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<Path>()
                .is_ok_and(|condition| condition.is_ident("test"))
    })
}

fn type_name(ty: &syn::Type) -> Option<String> {
    match ty {
        syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        _ => None,
    }
}

/// Where the names of a `use` come from.
#[derive(Clone, Copy)]
enum Root<'a> {
    Foreign(&'a str),
    Ours,
}

fn collect_imports(tree: &UseTree, root: Option<Root<'_>>, imports: &mut Imports) {
    match tree {
        UseTree::Path(path) => {
            let name = path.ident.to_string();
            let root = match root {
                Some(root) => root,
                None if imports.is_foreign_crate(&path.ident) => Root::Foreign(&name),
                None => Root::Ours, // or std's
            };
            collect_imports(&path.tree, Some(root), imports);
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                collect_imports(tree, root, imports);
            }
        }
        UseTree::Name(name) => bind(&name.ident, &name.ident, root, imports),
        UseTree::Rename(name) => bind(&name.ident, &name.rename, root, imports),
        UseTree::Glob(_) => {}
    }
}

/// Notes that `alias` stands for `name` below `root`.
fn bind(name: &Ident, alias: &Ident, root: Option<Root<'_>>, imports: &mut Imports) {
    let alias = alias.to_string();
    match root {
        Some(Root::Foreign(root)) => {
            imports.foreign.insert(alias, root.to_owned());
        }
        Some(Root::Ours) => {
            imports.ours.insert(alias);
        }
        None if imports.is_foreign_crate(name) => {
            imports.foreign.insert(alias, name.to_string());
        }
        None => {}
    }
}

/// Walks one public signature and reports every foreign name in it.
struct Names<'a, 'b> {
    surface: &'a mut Surface<'b>,
    imports: &'a Imports,
    owner: String,
}

impl Names<'_, '_> {
    fn signature(&mut self, signature: &Signature) {
        let owner = self.owner.clone();
        let name = &signature.ident;
        self.owner = if owner.is_empty() {
            name.to_string()
        } else {
            format!("{owner}::{name}")
        };
        visit::visit_signature(self, signature);
        self.owner = owner;
    }

    fn fields(&mut self, fields: &Fields, all_public: bool) {
        for field in fields {
            if all_public || is_public(&field.vis) {
                self.visit_type(&field.ty);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Names<'_, '_> {
    fn visit_path(&mut self, path: &'ast Path) {
        if let Some(first) = path.segments.first() {
            let name = first.ident.to_string();
            let direct = path.segments.len() > 1 && self.imports.is_foreign_crate(&first.ident);
            let imported = self.imports.foreign.get(&name).cloned();
            let root = imported.or_else(|| direct.then_some(name));
            if let Some(root) = root {
                let line = first.ident.span().start().line;
                let place = format!("{}:{line}", self.surface.path);
                let message = format!("public signature of {} names `{root}`", self.owner);
                self.surface
                    .findings
                    .push(Finding::error(place, "foreign", message));
            }
        }
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(code: &str) -> Vec<String> {
        check("clusterkit-raft/src/a.rs", code)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_public_function_names_no_foreign_type() {
        let found = findings("pub fn open(db: redb::Database) {}");
        assert_eq!(
            found,
            ["clusterkit-raft/src/a.rs:1: [foreign] public signature of open names `redb`"]
        );
        assert!(findings("pub(crate) fn open(db: redb::Database) {}").is_empty());
        assert!(
            findings("pub fn open() { redb::Database::open(); }").is_empty(),
            "bodies may"
        );
    }

    #[test]
    fn an_import_does_not_hide_it() {
        assert_eq!(
            findings(
                "use hyper::{Request, body::Incoming as Body};\npub fn a(_: Request<Body>) {}"
            )
            .len(),
            2
        );
        assert!(findings("use std::io::Request;\npub fn a(_: Request) {}").is_empty());
        assert_eq!(findings("pub use openraft::Raft;").len(), 1);
        assert!(findings("pub use crate::redb::Raft;").is_empty());
    }

    #[test]
    fn a_module_of_ours_may_be_called_as_a_dependency() {
        assert!(
            findings("mod http; pub use http::Source; pub fn a(_: http::Source) {}").is_empty()
        );
        assert!(findings("use crate::http; pub fn a(_: http::Source) {}").is_empty());
        assert_eq!(
            findings("pub use http::Source; pub fn a(_: http::Source) {}").len(),
            2
        );
    }

    #[test]
    fn fields_variants_methods_and_traits_count() {
        assert_eq!(
            findings("pub struct A { pub b: hyper::Uri, c: hyper::Uri }").len(),
            1
        );
        assert_eq!(findings("pub enum A { B(#[from] redb::Error) }").len(), 1);
        assert_eq!(
            findings(
                "impl A { pub fn b(&self) -> bincode::Config { todo!() } fn c(x: hyper::Uri) {} }"
            )
            .len(),
            1
        );
        assert_eq!(
            findings("pub trait A { fn b(&self) -> Vec<openraft::Vote>; }").len(),
            1
        );
        assert_eq!(findings("pub type A = Option<http::Uri>;").len(), 1);
        assert_eq!(
            findings("pub struct A; impl From<redb::Error> for A { }").len(),
            1
        );
        assert!(findings("pub(crate) struct A; impl From<redb::Error> for A { }").is_empty());
    }

    #[test]
    fn tests_and_programs_are_not_a_surface() {
        assert!(findings("#[cfg(test)] mod tests { pub fn a(_: redb::Error) {} }").is_empty());
        assert!(check("xtask/src/main.rs", "pub fn a(_: anyhow::Error) {}").is_empty());
    }
}
