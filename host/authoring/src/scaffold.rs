//! `fthost plugin new`: a package that builds and passes its own tests at once.

use std::path::{Path, PathBuf};

use fthost_registry::PackageName;
use fthost_sandbox::RoleKind;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, context};

use crate::build::{Language, Workshop};
use crate::error::{AuthorError, Result, io};
use crate::sdk;

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../templates/", $name))
    };
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Scaffold<'a> {
    /// The plugin's name, and its folder's.
    pub name: &'a str,
    /// What it plays.
    pub role: RoleKind,
    /// What it is written in.
    pub language: Language,
    /// Where its folder is made.
    pub parent: &'a Path,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Scaffolded {
    /// The package's folder.
    pub folder: PathBuf,
    /// Files, from that folder.
    pub files: Vec<PathBuf>,
    /// Where the SDK and the contract stand that it is linked to.
    pub sdk: sdk::Sdk,
}

/// What is wrong with `name`, which is none.
fn name_problem(name: &str) -> String {
    let odd = |it: &char| !(it.is_ascii_lowercase() || it.is_ascii_digit() || *it == '-');
    match (name.chars().next(), name.chars().find(odd)) {
        (None, _) => "it is empty".into(),
        (Some(first), _) if !first.is_ascii_lowercase() => format!("it begins with `{first}`"),
        (_, Some(odd)) => format!("`{odd}` is not allowed"),
        _ if name.ends_with('-') => "it ends with `-`".into(),
        _ => "it is too long".into(),
    }
}

impl Scaffold<'_> {
    /// Makes the package. Nothing is left behind where something goes wrong.
    ///
    /// # Errors
    /// A name that can't be one, a folder that is there already, and a place that can't be written.
    pub fn write(&self, workshop: &Workshop<'_>) -> Result<Scaffolded> {
        if self.name.contains('/') || self.name.parse::<PackageName>().is_err() {
            let problem = name_problem(self.name);
            return Err(AuthorError::Name { name: self.name.to_string(), problem });
        }
        if self.language == Language::Rust && RUST_WORDS.contains(&self.name) {
            let problem = "it is a word that Rust or its library keeps for itself".to_string();
            return Err(AuthorError::Name { name: self.name.to_string(), problem });
        }
        let folder = self.parent.join(self.name);
        if std::fs::symlink_metadata(&folder).is_ok() {
            return Err(AuthorError::Exists { path: folder });
        }
        let files = self.files()?;
        let sdk = workshop.sdk()?;
        std::fs::create_dir_all(self.parent).map_err(io("make", self.parent))?;
        let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(self.parent);
        let fresh = fresh.map_err(io("write", self.parent))?;
        for (name, text) in &files {
            let path = fresh.path().join(name);
            let parent = path.parent().unwrap_or(fresh.path());
            std::fs::create_dir_all(parent).map_err(io("make", parent))?;
            std::fs::write(&path, text).map_err(io("write", &path))?;
        }
        sdk.link(fresh.path())?;
        open_to_all(fresh.path()).map_err(io("write", &folder))?;
        std::fs::rename(fresh.path(), &folder).map_err(io("write", &folder))?;
        // It has another name now: there is nothing to remove.
        let _ = fresh.keep();
        Ok(Scaffolded { folder, files: files.into_iter().map(|it| it.0).collect(), sdk })
    }

    fn files(&self) -> Result<Vec<(PathBuf, String)>> {
        let mut files = vec![
            ("plugin.toml".into(), self.rendered(template!("package/plugin.toml"))),
            ("README.md".into(), self.rendered(template!("package/README.md"))),
            (".gitignore".into(), self.rendered(template!("package/gitignore"))),
        ];
        let source = self.rendered(&self.source()?);
        match self.language {
            Language::Rust => {
                files.push(("Cargo.toml".into(), self.rendered(template!("rust/Cargo.toml"))));
                // The versions that the SDK was tested with.
                files.push(("Cargo.lock".into(), sdk::text("plugin-sdk/Cargo.lock").to_string()));
                files.push(("src/lib.rs".into(), source));
            }
            Language::C => {
                // The example's: there is one.
                let header = include_str!("../../../plugin-sdk/examples/c/src/fthost.h");
                files.push(("src/fthost.h".into(), header.to_string()));
                files.push((self.language.source().into(), source));
            }
            Language::Python | Language::Js => files.push((self.language.source().into(), source)),
        }
        files.push((format!("cases/{}.jsonl", self.role).into(), self.cases().to_string()));
        Ok(files)
    }

    fn cases(&self) -> &'static str {
        match self.role {
            RoleKind::Reward => template!("cases/reward.jsonl"),
            RoleKind::Evaluator => template!("cases/evaluator.jsonl"),
            RoleKind::DataBuilder => template!("cases/data-builder.jsonl"),
            RoleKind::Augmenter => template!("cases/augmenter.jsonl"),
        }
    }

    fn source(&self) -> Result<String> {
        let python =
            |body: &str| format!("{}{body}\n{}", template!("python/head.py"), template!("python/about.py"));
        let js = |body: &str| format!("{}{body}", template!("js/about.js"));
        Ok(match (self.language, self.role) {
            (Language::Rust, RoleKind::Reward) => template!("rust/reward.rs").into(),
            (Language::Rust, RoleKind::Evaluator) => template!("rust/evaluator.rs").into(),
            (Language::Rust, RoleKind::DataBuilder) => template!("rust/data-builder.rs").into(),
            (Language::Rust, RoleKind::Augmenter) => template!("rust/augmenter.rs").into(),
            (Language::Python, RoleKind::Reward) => python(template!("python/reward.py")),
            (Language::Python, RoleKind::Evaluator) => python(template!("python/evaluator.py")),
            (Language::Python, RoleKind::DataBuilder) => python(template!("python/data-builder.py")),
            (Language::Python, RoleKind::Augmenter) => python(template!("python/augmenter.py")),
            (Language::Js, RoleKind::Reward) => js(template!("js/reward.js")),
            (Language::Js, RoleKind::Evaluator) => js(template!("js/evaluator.js")),
            (Language::Js, RoleKind::DataBuilder) => js(template!("js/data-builder.js")),
            (Language::Js, RoleKind::Augmenter) => js(template!("js/augmenter.js")),
            (Language::C, RoleKind::Reward) => template!("c/reward.c").into(),
            (Language::C, RoleKind::Evaluator) => template!("c/evaluator.c").into(),
            (Language::C, role) => {
                return Err(AuthorError::NoScaffold {
                    role: role.to_string(),
                    language: "C".into(),
                    languages: vec!["rust".into(), "python".into(), "js".into()],
                });
            }
        })
    }

    fn rendered(&self, template: &str) -> String {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).trim_blocks(true).build();
        environment.set_syntax(syntax.expect("the usual delimiters"));
        let keys = config_keys(self.role);
        let list = |yes: &str, no: &str, summaries: bool| {
            let value = |it: &Key| match (summaries, it.default) {
                (true, _) => quoted(it.summary),
                (_, "true") => yes.to_string(),
                (_, "false") => no.to_string(),
                (_, default) => default.to_string(),
            };
            keys.iter().map(|it| format!("{}: {}", quoted(it.name), value(it))).collect::<Vec<_>>().join(", ")
        };
        let line =
            keys.first().map(|it| format!("config = {{ {} = {} }}", it.name, it.default.replace('\'', "\"")));
        let rendered = environment.render_str(
            template,
            context! {
                name => self.name,
                type => camel_case(self.name),
                role => self.role.as_str(),
                lang => self.language.as_str(),
                description => description(self.role),
                contract => contract_version(),
                config_line => line,
                config_python => format!("{{{}}}", list("True", "False", false)),
                summaries_python => format!("{{{}}}", list("", "", true)),
                config_js => format!("{{ {} }}", list("true", "false", false)),
                summaries_js => format!("{{ {} }}", list("", "", true)),
            },
        );
        rendered.expect("templates are the program's own")
    }
}

/// Names that cargo refuses for a package, and those that would hide a crate of the language.
const RUST_WORDS: [&str; 12] =
    ["test", "core", "std", "alloc", "self", "super", "crate", "fn", "mod", "type", "build", "deps"];

struct Key {
    name: &'static str,
    default: &'static str,
    summary: &'static str,
}

fn config_keys(role: RoleKind) -> Vec<Key> {
    let key = |name, default, summary| Key { name, default, summary };
    match role {
        RoleKind::Reward => vec![key("column", "'answer'", "The column that holds the expected answer.")],
        RoleKind::Evaluator => {
            vec![key("ignore_case", "false", "Whether upper and lower case are the same.")]
        }
        RoleKind::DataBuilder => vec![
            key("question", "'question'", "The column that holds the question."),
            key("answer", "'answer'", "The column that holds the answer."),
        ],
        RoleKind::Augmenter => vec![key("words", "5", "Words up to which an answer is short.")],
    }
}

fn description(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Reward => "Reward 1 for the expected answer, 0.5 for an answer that holds it",
        RoleKind::Evaluator => "Judge answers by the share that is exactly the expected one",
        RoleKind::DataBuilder => "Build prompts and answers from a column of questions and one of answers",
        RoleKind::Augmenter => "Derive prompts that ask for a short answer where the answer is short",
    }
}

/// `1.0`, of the SDK's contract.
fn contract_version() -> String {
    let host = sdk::text("wit/host.wit");
    let version = host.split_once('@').map_or("", |it| it.1.split(';').next().unwrap_or(""));
    version.rsplit_once('.').map_or(version, |it| it.0).to_string()
}

fn quoted(text: &str) -> String {
    format!("'{text}'")
}

fn camel_case(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|it| it.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    name.split('-').map(word).collect()
}

/// `tempfile` makes folders that only their owner may enter.
fn open_to_all(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
