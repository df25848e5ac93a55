//! From files to examples: records, builder, held-out split, augmenters.
//!
//! The order is fixed: what is held out is chosen before anything is augmented, so no variant of a held-out row is
//! ever trained on. Plugins are called with batches: a call across the boundary costs more than most rows do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fthost_data::source::read_rows;
use fthost_data::{
    Augmenter, BuildOutcome, DataBuilder, DataError, Example, Failure, Origin, Record, RoleError, rows,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Result, RunError};
use crate::plugins::Plugins;

/// Records or examples a plugin is called with at a time.
const BATCH: usize = 256;

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// JSONL, JSON, CSV or Parquet.
    pub files: Vec<PathBuf>,
    /// Tokens of a row at most; its end is cut off. Never more than the model's context.
    pub max_length: usize,
    /// What a row that can't be used means.
    pub on_bad_row: OnBadRow,
    /// Whether the rows of an optimizer step share micro-batches as tightly as they fit. The rows of a step are the
    /// same either way.
    pub packing: bool,
    /// What is kept from training, for evaluation; nothing if absent.
    pub held_out: Option<HeldOut>,
    /// Whether tokenised rows are kept in the cache folder for later runs on the same data. The rows are the same either
    /// way.
    pub cache: bool,
    /// Decides which rows are held out. Apart from `train.seed`, so that runs with several of those are judged on the
    /// same rows.
    pub split_seed: u64,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            max_length: 1024,
            on_bad_row: OnBadRow::Stop,
            packing: true,
            held_out: None,
            cache: true,
            split_seed: 0,
        }
    }
}

/// What a row that can't be used means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// The run ends, naming the row.
    #[default]
    Stop,
    /// The row is left out and counted.
    Skip,
}

/// `data.held_out.<kind>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldOut {
    /// So many rows of `data.files`, drawn.
    Rows(usize),
    /// A share of the rows of `data.files`, drawn; rounded, one row at least.
    Fraction(f64),
    /// Every row of files of their own.
    Files(Vec<PathBuf>),
}

impl DataConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.files.is_empty() {
            problems.push("`files` names no file".to_string());
        }
        if self.max_length == 0 {
            problems.push("`max_length` must be > 0, got `0`".to_string());
        }
        match &self.held_out {
            Some(HeldOut::Rows(0)) => problems.push("`held_out.rows` must be > 0, got `0`".into()),
            Some(HeldOut::Fraction(share)) if !(*share > 0.0 && *share < 1.0) => {
                problems.push(format!("`held_out.fraction` must be in (0, 1), got `{share}`"));
            }
            Some(HeldOut::Files(files)) if files.is_empty() => {
                problems.push("`held_out.files` names no file".into());
            }
            _ => {}
        }
        problems
    }
}

/// A row left out because of `on_bad_row = "skip"`, or by an augmenter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// File and line.
    pub origin: Origin,
    /// Why.
    pub reason: String,
}

/// What a run learns from and is judged on.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Training examples, the variants of each behind it.
    pub train: Vec<Example>,
    /// Held-out examples, in the files' order.
    pub held_out: Vec<Example>,
    /// Rows left out.
    pub skipped: Vec<Skipped>,
    /// `sha256:<hex>` over every example, trained on and held out.
    pub digest: String,
}

/// Reads `config.files` and makes examples of them.
///
/// # Errors
/// Files that can't be read, bad rows where those stop the run, plugins that fail, and a split that leaves nothing to
/// train on.
pub fn load(config: &DataConfig, plugins: &mut Plugins) -> Result<Dataset> {
    let mut reader = Reader { on_bad_row: config.on_bad_row, skipped: Vec::new() };
    let builder = &mut plugins.builder;
    let mut train = reader.examples(&config.files, builder)?;
    let held_out = match &config.held_out {
        None => Vec::new(),
        Some(HeldOut::Files(files)) => reader.examples(files, builder)?,
        Some(drawn) => split(&mut train, drawn, config.split_seed)?,
    };
    let train = augment(train, &mut plugins.augmenters, &mut reader.skipped)?;
    if train.is_empty() {
        let path = config.files.first().cloned().unwrap_or_default();
        return Err(DataError::Damaged { path, reason: "no usable row in `data.files`".into() }.into());
    }
    let digest = digest(&train, &held_out);
    Ok(Dataset { train, held_out, skipped: reader.skipped, digest })
}

/// Reads rows and keeps account of those left out.
struct Reader {
    on_bad_row: OnBadRow,
    skipped: Vec<Skipped>,
}

impl Reader {
    fn examples(
        &mut self,
        files: &[PathBuf],
        builder: &mut Option<Box<dyn DataBuilder>>,
    ) -> Result<Vec<Example>> {
        let mut examples = Vec::new();
        for file in files {
            match builder {
                None => self.known_shapes(file, &mut examples)?,
                Some(builder) => self.built(file, builder.as_mut(), &mut examples)?,
            }
        }
        if let Some(builder) = builder {
            examples.extend(builder.finish()?);
        }
        Ok(examples)
    }

    fn known_shapes(&mut self, file: &Path, examples: &mut Vec<Example>) -> Result<()> {
        for row in read_rows(file)? {
            match row.and_then(rows::example) {
                Ok(example) => examples.push(example),
                Err(error) => self.judge(error)?,
            }
        }
        Ok(())
    }

    fn built(
        &mut self,
        file: &Path,
        builder: &mut dyn DataBuilder,
        examples: &mut Vec<Example>,
    ) -> Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        for row in read_rows(file)? {
            match row {
                Ok(record) => batch.push(record),
                Err(error) => self.judge(error)?,
            }
            if batch.len() == BATCH {
                self.build(&std::mem::take(&mut batch), builder, examples)?;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.build(&batch, builder, examples) }
    }

    fn build(
        &mut self,
        records: &[Record],
        builder: &mut dyn DataBuilder,
        examples: &mut Vec<Example>,
    ) -> Result<()> {
        let outcomes = builder.build(records)?;
        one_each(&builder.identity().name, "build", records.len(), outcomes.len())?;
        for (record, outcome) in records.iter().zip(outcomes) {
            match outcome {
                BuildOutcome::Examples(made) => examples.extend(made),
                BuildOutcome::BadRow { reason } => {
                    self.judge(DataError::BadRow { origin: record.origin.clone(), reason })?;
                }
            }
        }
        Ok(())
    }

    /// A bad row is skipped or stops the run; any other error stops it.
    fn judge(&mut self, error: DataError) -> Result<()> {
        match (error, self.on_bad_row) {
            (DataError::BadRow { origin, reason }, OnBadRow::Skip) => {
                self.skipped.push(Skipped { origin, reason });
                Ok(())
            }
            (error, _) => Err(error.into()),
        }
    }
}

/// A plugin answers each item of a batch, no more and no less.
fn one_each(plugin: &str, call: &'static str, items: usize, answers: usize) -> Result<()> {
    if items == answers {
        return Ok(());
    }
    let failure = Failure::Contract { message: format!("{answers} answers to {items} items") };
    Err(RoleError { plugin: plugin.to_string(), call, items, failure }.into())
}

/// Takes the held-out part out of `examples`. What was made of one row stays together.
fn split(examples: &mut Vec<Example>, drawn: &HeldOut, seed: u64) -> Result<Vec<Example>> {
    let origin = |it: &Example| (it.origin.source.to_string(), it.origin.line);
    let mut rows: Vec<_> = examples.iter().map(origin).collect::<BTreeSet<_>>().into_iter().collect();
    let (key, count) = match drawn {
        HeldOut::Rows(count) => ("data.held_out.rows", *count),
        HeldOut::Fraction(share) => {
            ("data.held_out.fraction", ((rows.len() as f64 * share).round() as usize).max(1))
        }
        HeldOut::Files(_) => unreachable!("files of their own are not drawn"),
    };
    if count >= rows.len() {
        return Err(RunError::NothingToTrainOn { key, held_out: count, rows: rows.len() });
    }
    rows.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let chosen: BTreeSet<_> = rows.into_iter().take(count).collect();
    let (held_out, train) = std::mem::take(examples).into_iter().partition(|it| chosen.contains(&origin(it)));
    *examples = train;
    Ok(held_out)
}

/// Each example with its variants behind it, augmenter by augmenter; what one leaves out is `skipped`.
fn augment(
    mut examples: Vec<Example>,
    augmenters: &mut [Box<dyn Augmenter>],
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<Example>> {
    for augmenter in augmenters {
        let mut augmented = Vec::with_capacity(examples.len());
        let mut rest = examples.into_iter().peekable();
        while rest.peek().is_some() {
            let batch: Vec<Example> = rest.by_ref().take(BATCH).collect();
            let answers = augmenter.augment(&batch)?;
            one_each(&augmenter.identity().name, "augment", batch.len(), answers.len())?;
            for (example, answer) in batch.into_iter().zip(answers) {
                match answer.dropped {
                    None => augmented.push(example),
                    Some(reason) => skipped.push(Skipped {
                        origin: example.origin,
                        reason: format!("left out by `{}`: {reason}", augmenter.identity().name),
                    }),
                }
                augmented.extend(answer.variants);
            }
        }
        examples = augmented;
    }
    Ok(examples)
}

/// Of what is learned and judged, wherever the files lie.
fn digest(train: &[Example], held_out: &[Example]) -> String {
    let mut hash = Sha256::new();
    for (part, examples) in [("train", train), ("held_out", held_out)] {
        hash.update(format!("{part} {}\n", examples.len()));
        for example in examples {
            let told = (&example.content, &example.columns, &example.provenance);
            hash.update(serde_json::to_vec(&told).expect("an example serialises"));
            hash.update(b"\n");
        }
    }
    fthost_data::digest::text(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use fthost_data::{Augmented, Columns, Content, PluginIdentity, Provenance};

    use super::*;

    fn identity(name: &str) -> PluginIdentity {
        PluginIdentity { name: name.into(), version: "1.0.0".into(), digest: String::new() }
    }

    /// Joins two records into one text; keeps a last odd one back; refuses records without `word`.
    struct Pairs {
        identity: PluginIdentity,
        waiting: Option<Record>,
        calls: Vec<usize>,
    }

    fn text(text: String, origin: Origin) -> Example {
        Example { content: Content::Text(text), columns: Columns::new(), origin, provenance: Vec::new() }
    }

    impl DataBuilder for Pairs {
        fn identity(&self) -> &PluginIdentity {
            &self.identity
        }

        fn build(&mut self, records: &[Record]) -> std::result::Result<Vec<BuildOutcome>, RoleError> {
            self.calls.push(records.len());
            let word = |it: &Record| it.columns["word"].as_str().unwrap_or_default().to_string();
            let one = |record: &Record| {
                if !record.columns.contains_key("word") {
                    return BuildOutcome::BadRow { reason: "no `word`".into() };
                }
                match self.waiting.take() {
                    Some(first) => {
                        let joined = format!("{} {}", word(&first), word(record));
                        BuildOutcome::Examples(vec![text(joined, first.origin)])
                    }
                    None => {
                        self.waiting = Some(record.clone());
                        BuildOutcome::Examples(Vec::new())
                    }
                }
            };
            Ok(records.iter().map(one).collect())
        }

        fn finish(&mut self) -> std::result::Result<Vec<Example>, RoleError> {
            Ok(self.waiting.take().map(|it| text("odd".into(), it.origin)).into_iter().collect())
        }
    }

    /// Adds one variant to each example whose text is longer than `longer_than`.
    struct Shout {
        identity: PluginIdentity,
        longer_than: usize,
        /// Answers forgotten.
        short_by: usize,
    }

    impl Augmenter for Shout {
        fn identity(&self) -> &PluginIdentity {
            &self.identity
        }

        fn augment(&mut self, examples: &[Example]) -> std::result::Result<Vec<Augmented>, RoleError> {
            let variants = |it: &Example| {
                let Content::Text(words) = &it.content else { return Augmented::default() };
                if words == "twice" {
                    return Augmented { dropped: Some("said before".into()), variants: Vec::new() };
                }
                let mut example = it.clone();
                example.content = Content::Text(words.to_uppercase());
                let plugin = self.identity.name.clone();
                example.provenance.push(Provenance { plugin, operation: "shout".into() });
                let variants = if words.len() > self.longer_than { vec![example] } else { Vec::new() };
                Augmented { dropped: None, variants }
            };
            Ok(examples.iter().skip(self.short_by).map(variants).collect())
        }
    }

    fn shout(name: &str, longer_than: usize, short_by: usize) -> Box<dyn Augmenter> {
        Box::new(Shout { identity: identity(name), longer_than, short_by })
    }

    fn config(folder: &Path, text: &str) -> DataConfig {
        let path = folder.join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        DataConfig { files: vec![path], ..DataConfig::default() }
    }

    fn lines(key: &str, count: usize) -> String {
        (0..count).map(|it| format!("{{\"{key}\": \"w{it}\"}}\n")).collect()
    }

    fn texts(examples: &[Example]) -> Vec<&str> {
        let mut texts = Vec::new();
        for example in examples {
            let Content::Text(text) = &example.content else { panic!("{example:?}") };
            texts.push(text.as_str());
        }
        texts
    }

    #[test]
    fn a_builder_is_called_with_batches_and_asked_for_what_it_kept_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), &format!("{}{{\"other\": 1}}\n", lines("word", 515)));
        config.on_bad_row = OnBadRow::Skip;
        let mut builder = Pairs { identity: identity("pairs"), waiting: None, calls: Vec::new() };
        let mut reader = Reader { on_bad_row: config.on_bad_row, skipped: Vec::new() };
        let mut built = Vec::new();
        reader.built(&config.files[0], &mut builder, &mut built).unwrap();
        assert_eq!(builder.calls, [256, 256, 4]);
        assert_eq!((built.len(), reader.skipped.len()), (257, 1));
        assert_eq!((reader.skipped[0].origin.line, reader.skipped[0].reason.as_str()), (516, "no `word`"));
        let mut plugins = Plugins { builder: Some(Box::new(builder)), ..Plugins::none() };
        let whole = load(&config, &mut plugins).unwrap();
        assert_eq!(texts(&whole.train)[..2], ["w514 w0", "w1 w2"], "what was kept back comes first");
        config.on_bad_row = OnBadRow::Stop;
        let error = load(&config, &mut plugins).unwrap_err();
        assert!(error.to_string().ends_with("rows.jsonl:516: no `word`"), "{error}");
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn variants_follow_their_original_and_each_augmenter_sees_what_the_one_before_left() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "{\"text\": \"ab\"}\n{\"text\": \"c\"}\n");
        let mut plugins = Plugins { augmenters: vec![shout("a", 1, 0), shout("b", 0, 0)], ..Plugins::none() };
        let made = load(&config, &mut plugins).unwrap();
        assert_eq!(texts(&made.train), ["ab", "AB", "AB", "AB", "c", "C"]);
        let names = |it: &Example| it.provenance.iter().map(|it| it.plugin.clone()).collect::<String>();
        assert_eq!(made.train.iter().map(names).collect::<Vec<_>>(), ["", "b", "a", "ab", "", "b"]);
        assert_ne!(made.digest, load(&config, &mut Plugins::none()).unwrap().digest);
    }

    #[test]
    fn an_example_that_an_augmenter_leaves_out_is_skipped_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "{\"text\": \"ab\"}\n{\"text\": \"twice\"}\n");
        let mut plugins = Plugins { augmenters: vec![shout("a", 9, 0)], ..Plugins::none() };
        let made = load(&config, &mut plugins).unwrap();
        assert_eq!(texts(&made.train), ["ab"]);
        assert_eq!((made.skipped[0].origin.line, made.skipped.len()), (2, 1));
        assert_eq!(made.skipped[0].reason, "left out by `a`: said before");
    }

    #[test]
    fn a_plugin_that_forgets_an_answer_breaks_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &lines("text", 300));
        let mut plugins = Plugins { augmenters: vec![shout("a", 0, 1)], ..Plugins::none() };
        let error = load(&config, &mut plugins).unwrap_err();
        insta::assert_snapshot!(error, @"plugin `a` broke the contract: 255 answers to 256 items in `augment` of 256 items");
        assert_eq!(error.exit_code(), 4);
    }

    #[test]
    fn held_out_rows_are_drawn_by_their_own_seed_and_never_augmented() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), &lines("text", 40));
        let held_out = |config: &DataConfig| {
            let mut plugins = Plugins { augmenters: vec![shout("a", 0, 0)], ..Plugins::none() };
            let made = load(config, &mut plugins).unwrap();
            let (held_out, train) = (texts(&made.held_out), texts(&made.train));
            assert_eq!(train.len(), 2 * (40 - held_out.len()));
            assert!(
                held_out.iter().all(|it| !train.contains(it) && !train.contains(&it.to_uppercase().as_str()))
            );
            held_out.into_iter().map(str::to_string).collect::<Vec<_>>()
        };
        config.held_out = Some(HeldOut::Rows(4));
        let four = held_out(&config);
        assert_eq!(four.len(), 4);
        assert_eq!(four, held_out(&config));
        let mut number: Vec<usize> = four.iter().map(|it| it[1..].parse().unwrap()).collect();
        assert!(number.is_sorted(), "in the files' order: {four:?}");
        number.dedup();
        config.held_out = Some(HeldOut::Fraction(0.1));
        assert_eq!(held_out(&config), four);
        config.split_seed = 1;
        assert_ne!(held_out(&config), four);
        config.held_out = Some(HeldOut::Rows(40));
        let error = load(&config, &mut Plugins::none()).unwrap_err();
        insta::assert_snapshot!(error, @"`data.held_out.rows` holds out 40 of 40 rows: nothing is left to train on");
    }

    #[test]
    fn what_was_made_of_one_row_is_held_out_together() {
        let origin = |line| Origin { source: "a".into(), line };
        let mut examples: Vec<Example> = (0..20).map(|it| text(it.to_string(), origin(it / 2))).collect();
        let held_out = split(&mut examples, &HeldOut::Rows(3), 5).unwrap();
        assert_eq!((held_out.len(), examples.len()), (6, 14));
        assert!(held_out.chunks(2).all(|it| it[0].origin == it[1].origin));
    }

    #[test]
    fn files_of_their_own_are_held_out_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), &lines("text", 3));
        let path = folder.path().join("held.csv");
        std::fs::write(&path, "text\nx\ny\n").unwrap();
        config.held_out = Some(HeldOut::Files(vec![path]));
        let made = load(&config, &mut Plugins::none()).unwrap();
        assert_eq!((texts(&made.train), texts(&made.held_out)), (vec!["w0", "w1", "w2"], vec!["x", "y"]));
    }
}
