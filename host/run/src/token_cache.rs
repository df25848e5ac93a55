//! Tokenised rows on disk, named by the digest of everything they are made of, and mapped where they are found again.
//!
//! A file holds a head of 64 bytes (magic, version, checksum of the rest, key, length of the description), the
//! description in CBOR (what is no token: examples, skipped rows, where the arrays lie), and the arrays of
//! [`TokenRows`], aligned to 8. Numbers are little-endian. It is written under a temporary name and renamed, so a file
//! that is there is whole; one that is not, or was made by another version, is made again.
//!
//! Rows from the cache are the rows that files and plugins gave. What differs is that data builder and augmenters are
//! not asked, so they log nothing.
//!
//! `unsafe` here: mapping a cached file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use fthost_data::digest::{hex, of_file as file_digest};
use fthost_data::{Example, TokenRows};
use fthost_sandbox::{CONTRACT_VERSION, RoleKind};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::config::RunConfig;
use crate::dataset::{HeldOut, Skipped};
use crate::digest;
use crate::error::Result;
use crate::place::{cache_dir, remove_oldest};
use crate::plugins::Plugins;
use crate::rows::Rows;

/// Goes up with every change of how rows are read, built, tokenised or laid out in the file.
const VERSION: u32 = 3;
const MAGIC: &[u8; 8] = b"fthosttk";
const HEAD: usize = 64;
/// Arrays begin at multiples of this.
const ALIGNMENT: usize = 8;
const EXTENSION: &str = "rows";
/// Files kept; those not used for the longest go first.
const KEPT: usize = 32;

/// Where the rows of one run are cached.
#[derive(Debug, Clone)]
pub struct TokenCache {
    path: PathBuf,
    key: [u8; 32],
}

/// What the cache holds of a run's rows.
pub enum Found {
    /// All of them.
    Rows(Box<Rows>),
    /// Nothing yet.
    Nothing,
    /// A file that can't be used, and why.
    Damaged(String),
}

/// What is no token.
#[derive(Serialize, Deserialize)]
struct Description<E, S> {
    train: Arrays,
    held_out: Arrays,
    examples: E,
    sample: Example,
    skipped: S,
    digest: String,
}

#[derive(Serialize, Deserialize)]
struct Arrays {
    /// Bytes of each, in the order of [`TokenRows::bytes`].
    lengths: [u64; 4],
    sources: Vec<Arc<str>>,
}

impl Arrays {
    fn of(rows: &TokenRows) -> Self {
        Self { lengths: rows.bytes().map(|it| it.len() as u64), sources: rows.sources().to_vec() }
    }
}

impl TokenCache {
    /// The place for the rows of `config`; none where a role is played in process, which no digest names.
    ///
    /// # Errors
    /// Files that can't be read.
    pub fn of(config: &RunConfig, plugins: &Plugins) -> Result<Option<Self>> {
        let builder = plugins.builder.iter().map(|it| it.identity());
        let mut roles = builder.chain(plugins.augmenters.iter().map(|it| it.identity()));
        if roles.any(|it| it.digest.is_empty()) {
            return Ok(None);
        }
        let key: [u8; 32] = Sha256::digest(made_of(config, plugins)?.to_string().as_bytes()).into();
        let name = hex(&key);
        Ok(Some(Self { path: cache_dir().join("tokens").join(format!("{name}.{EXTENSION}")), key }))
    }

    /// The rows, where they are there.
    pub fn read(&self) -> Found {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => return self.damaged(error),
        };
        // SAFETY: the map is only read. A cached file is never written to again, only replaced by a rename or removed,
        // which leaves this map as it is; whoever cuts one short behind the program's back ends it with SIGBUS.
        let map = match unsafe { Mmap::map(&file) } {
            Ok(map) => Arc::new(map),
            Err(error) => return self.damaged(error),
        };
        match parse(&map, &self.key) {
            Ok(rows) => {
                // What is used is kept; a cache that may only be read serves too.
                let _ = file.set_modified(SystemTime::now());
                Found::Rows(Box::new(rows))
            }
            Err(reason) => self.damaged(reason),
        }
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> Found {
        Found::Damaged(format!(
            "cached rows can't be used and are made again: `{}`: {reason}",
            self.path.display()
        ))
    }

    /// Keeps `rows` for the next run, or says why not.
    ///
    /// # Errors
    /// What a person is told; the run goes on.
    pub fn write(&self, rows: &Rows) -> std::result::Result<(), String> {
        let fail = |error: &dyn std::fmt::Display| {
            format!("rows can't be cached: `{}`: {error}", self.path.display())
        };
        let folder = self.path.parent().expect("a file of the cache folder");
        let description = Description {
            train: Arrays::of(&rows.train),
            held_out: Arrays::of(&rows.held_out),
            examples: &rows.examples,
            sample: rows.sample.clone(),
            skipped: &rows.skipped,
            digest: rows.digest.clone(),
        };
        let mut described = Vec::new();
        ciborium::into_writer(&description, &mut described).map_err(|it| fail(&it))?;
        self.write_file(folder, &described, rows).map_err(|it| fail(&it))?;
        remove_oldest(folder, EXTENSION, KEPT).map_err(|it| fail(&it))
    }

    fn write_file(&self, folder: &Path, described: &[u8], rows: &Rows) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut length = (described.len() as u64).to_le_bytes().to_vec();
        length.extend([0; 8]);
        let mut parts = vec![&self.key[..], &length, described];
        parts.extend(rows.train.bytes());
        parts.extend(rows.held_out.bytes());
        let padding = [0; ALIGNMENT];
        let padded = || parts.iter().flat_map(|it| [*it, &padding[..padding_of(it.len())]]);
        let checksum = padded().fold(0, crc32c::crc32c_append);
        let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(folder)?);
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&checksum.to_le_bytes())?;
        padded().try_for_each(|it| file.write_all(it))?;
        file.into_inner()?.persist(&self.path)?;
        Ok(())
    }
}

fn padding_of(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT) - length
}

/// Everything that decides the rows: the files as named and as they are, the keys of `[data]` that choose among them,
/// the plugins that build and augment, tokenizer and chat template, and the code.
fn made_of(config: &RunConfig, plugins: &Plugins) -> Result<Value> {
    let data = &config.data;
    let mut files: Vec<&PathBuf> = data.files.iter().collect();
    if let Some(HeldOut::Files(held_out)) = &data.held_out {
        files.extend(held_out);
    }
    let mut contents = Vec::with_capacity(files.len());
    for file in files {
        contents.push(digest::of_file(file)?);
    }
    let mut tokenizer = Vec::new();
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        let path = config.model.folder().join(name);
        tokenizer.push(if path.exists() { Some(file_digest(&path)?) } else { None });
    }
    let making = |it: &&fthost_sandbox::Plugin| {
        it.roles().iter().any(|it| matches!(it, RoleKind::DataBuilder | RoleKind::Augmenter))
    };
    let plugin = |it: &fthost_sandbox::Plugin| {
        let (identity, config) = (it.identity(), it.config());
        json!({
            "name": identity.name, "digest": identity.digest, "config": config.config, "limits": config.limits,
            "grants": config.grants, "roles": it.roles(), "resources": it.resources(),
        })
    };
    let making: Vec<Value> = plugins.loaded.iter().filter(making).map(plugin).collect();
    // Plugins draw their random numbers from the run's seed.
    let seed = (!making.is_empty()).then_some(config.train.seed);
    // Who asks a model gets rows of that model's making.
    let model = if plugins.ask_while_data_is_made() {
        Some(json!([
            digest::of_model(config.model.folder())?,
            config.judges,
            config.adapter,
            config.eval.batch_size
        ]))
    } else {
        None
    };
    Ok(json!({
        "version": VERSION, "fthost": env!("CARGO_PKG_VERSION"), "contract": CONTRACT_VERSION,
        "files": data.files, "held_out": data.held_out, "contents": contents, "max_length": data.max_length,
        "on_bad_row": data.on_bad_row, "split_seed": data.split_seed,
        "pairs": config.objective.has_pairs(), "margins": config.objective.has_margins(),
        "labels": config.objective.has_labels(),
        "plugins": making, "seed": seed, "tokenizer": tokenizer, "model": model,
    }))
}

fn parse(map: &Arc<Mmap>, key: &[u8; 32]) -> std::result::Result<Rows, String> {
    let head = map.get(..HEAD).ok_or("it is cut short")?;
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    if &head[..8] != MAGIC {
        return Err("it is no file of this cache".into());
    }
    if number(8) != VERSION {
        return Err(format!("its version is {}, not {VERSION}", number(8)));
    }
    if number(12) != crc32c::crc32c(&map[16..]) {
        return Err("its checksum is another".into());
    }
    if &head[16..48] != key {
        return Err("it was made of something else".into());
    }
    let length = u64::from_le_bytes(head[48..56].try_into().expect("eight bytes")) as usize;
    let end = HEAD.checked_add(length).filter(|it| *it <= map.len()).ok_or("it is cut short")?;
    let description: Description<Vec<Example>, Vec<Skipped>> =
        ciborium::from_reader(&map[HEAD..end]).map_err(|error| error.to_string())?;
    let mut at = end;
    let mut rows = |arrays: Arrays| {
        let ranges = arrays.lengths.map(|length| {
            let start = at + padding_of(at);
            at = start.saturating_add(length as usize);
            start..at
        });
        TokenRows::mapped(map, ranges, arrays.sources)
    };
    let (train, held_out) = (rows(description.train)?, rows(description.held_out)?);
    let Description { examples, sample, skipped, digest, .. } = description;
    // Of a pair that was taken apart there are two rows.
    if train.is_empty() || examples.len() > held_out.len() || examples.is_empty() != held_out.is_empty() {
        return Err("its parts don't fit".into());
    }
    Ok(Rows { train: Arc::new(train), held_out, examples, sample, skipped, digest, questions: Vec::new() })
}
