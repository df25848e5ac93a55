//! `completions/completions_<step>.parquet` or `.jsonl`: tables of what was sampled and what rewards said, a row a completion,
//! for whatever reads data frames. Replays read `scores/`, which has everything.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_data::{Finish, Prompt};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Result, RunError};
use crate::scores::Scores;

/// In the output folder; as TRL's.
pub const FOLDER: &str = "completions";

/// What a table is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompletionsFormat {
    /// Parquet, Snappy within.
    #[default]
    Parquet,
    /// A JSON object a line.
    Jsonl,
}

impl CompletionsFormat {
    fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Jsonl => "jsonl",
        }
    }
}

/// The cells of one column, of every completion; `None` where there is no value.
enum Cells {
    Int(Vec<i64>),
    Double(Vec<Option<f64>>),
    Text(Vec<Option<String>>),
}

impl Cells {
    fn declared(&self, name: &str) -> String {
        let kind = match self {
            Self::Int(_) => "required int64",
            Self::Double(_) => "optional double",
            Self::Text(_) => "optional binary",
        };
        let annotation = if matches!(self, Self::Text(_)) { " (UTF8)" } else { "" };
        format!("{kind} {name}{annotation};")
    }

    fn value(&self, row: usize) -> Value {
        match self {
            Self::Int(cells) => json!(cells[row]),
            Self::Double(cells) => json!(cells[row]),
            Self::Text(cells) => json!(cells[row]),
        }
    }

    fn write(&self, group: &mut SerializedRowGroupWriter<'_, File>) -> parquet::errors::Result<()> {
        let Some(mut column) = group.next_column()? else { return Ok(()) };
        match self {
            Self::Int(cells) => column.typed::<Int64Type>().write_batch(cells, None, None)?,
            Self::Double(cells) => {
                let there: Vec<f64> = cells.iter().flatten().copied().collect();
                column.typed::<DoubleType>().write_batch(&there, Some(&levels(cells)), None)?
            }
            Self::Text(cells) => {
                let there: Vec<ByteArray> =
                    cells.iter().flatten().map(|it| ByteArray::from(it.as_str())).collect();
                column.typed::<ByteArrayType>().write_batch(&there, Some(&levels(cells)), None)?
            }
        };
        column.close()
    }
}

/// 1 where there is a value.
fn levels<T>(cells: &[Option<T>]) -> Vec<i16> {
    cells.iter().map(|it| i16::from(it.is_some())).collect()
}

/// A table, column by column.
struct Table {
    columns: Vec<(String, Cells)>,
    rows: usize,
}

impl Table {
    fn of(scores: &Scores) -> Self {
        let rows: Vec<(usize, usize)> = (scores.groups.iter().enumerate())
            .flat_map(|(group, it)| (0..it.group.completions.len()).map(move |row| (group, row)))
            .collect();
        let group = |at: &(usize, usize)| &scores.groups[at.0].group;
        let completion = |at: &(usize, usize)| &group(at).completions[at.1];
        let ints = |of: &dyn Fn(&(usize, usize)) -> i64| Cells::Int(rows.iter().map(of).collect());
        let texts =
            |of: &dyn Fn(&(usize, usize)) -> Option<String>| Cells::Text(rows.iter().map(of).collect());
        let doubles =
            |of: &dyn Fn(&(usize, usize)) -> Option<f64>| Cells::Double(rows.iter().map(of).collect());
        let mut columns = vec![
            ("step".to_string(), ints(&|_| scores.step as i64)),
            ("row".to_string(), ints(&|at| group(at).id as i64)),
            ("prompt".to_string(), texts(&|at| Some(text_of(&group(at).prompt)))),
            ("completion".to_string(), texts(&|at| Some(completion(at).text.clone()))),
            ("token_count".to_string(), ints(&|at| i64::from(completion(at).token_count))),
            ("finish".to_string(), texts(&|at| Some(finish(completion(at).finish).to_string()))),
            ("columns".to_string(), texts(&|at| Some(json!(group(at).columns).to_string()))),
        ];
        for reward in &scores.rewards {
            let outcome = |at: &(usize, usize)| &reward.outcomes[at.0][at.1];
            let name = &reward.plugin.name;
            columns.push((format!("rewards/{name}"), doubles(&|at| outcome(at).value())));
            columns.push((format!("outcomes/{name}"), texts(&|at| Some(outcome(at).kind().to_string()))));
        }
        let sum = |at: &(usize, usize)| scores.sums.get(at.0).and_then(|it| *it.get(at.1)?);
        columns.push(("reward".to_string(), doubles(&sum)));
        Self { columns, rows: rows.len() }
    }

    fn write_parquet(&self, file: File) -> parquet::errors::Result<()> {
        let declared: Vec<String> = self.columns.iter().map(|(name, cells)| cells.declared(name)).collect();
        let schema = parse_message_type(&format!("message completions {{ {} }}", declared.join(" ")))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
        let mut group = writer.next_row_group()?;
        self.columns.iter().try_for_each(|it| it.1.write(&mut group))?;
        group.close()?;
        writer.close().map(|_| ())
    }

    fn jsonl(&self) -> String {
        let row = |row: usize| -> Map<String, Value> {
            self.columns.iter().map(|(name, cells)| (name.clone(), cells.value(row))).collect()
        };
        (0..self.rows).map(|it| format!("{}\n", Value::Object(row(it)))).collect()
    }
}

/// A conversation as JSON.
fn text_of(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(messages) => json!(messages).to_string(),
    }
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// Writes the table of a rollout into an output folder, whole or not at all, and gives its path. Columns: `step`, `row` (of the
/// data set), `prompt`, `completion`, `token_count`, `finish`, `columns` (the row's others, as JSON), of each reward
/// `rewards/<name>` (null where it gave no score) and `outcomes/<name>`, and `reward`, their sum (null where nothing is learned).
///
/// # Errors
/// Files that can't be written.
pub fn write(scores: &Scores, format: CompletionsFormat, folder: &Path) -> Result<PathBuf> {
    let parent = folder.join(FOLDER);
    let path = parent.join(format!("completions_{:05}.{}", scores.step, format.extension()));
    let temporary = parent.join(".completions");
    let table = Table::of(scores);
    let written = || -> std::io::Result<()> {
        std::fs::create_dir_all(&parent)?;
        match format {
            CompletionsFormat::Parquet => {
                table.write_parquet(File::create(&temporary)?).map_err(std::io::Error::other)?;
            }
            CompletionsFormat::Jsonl => std::fs::write(&temporary, table.jsonl())?,
        }
        std::fs::rename(&temporary, &path)
    };
    written().map_err(RunError::output(&path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use fthost_data::source::read_rows;
    use fthost_data::{Candidate, Columns, Failure, Group, Outcome, PluginIdentity, Score};

    use super::*;
    use crate::scores::RewardScores;

    fn scores() -> Scores {
        let completion = |text: &str| Candidate { text: text.into(), token_count: 2, finish: Finish::Stop };
        let group = Group {
            id: 3,
            step: 10,
            occasion: Default::default(),
            prompt: Prompt::Text("2 + \"2\"\n=".into()),
            completions: ["4", "", "五"].map(completion).to_vec(),
            columns: Columns::from_iter([("answer".to_string(), json!(4))]),
        };
        let plugin =
            PluginIdentity { name: "answer-match".into(), version: "1.0.0".into(), digest: String::new() };
        let outcomes = vec![
            Outcome::Ok(Score { value: 1.0, components: Vec::new() }),
            Outcome::Abstain { reason: "empty".into() },
            Outcome::Failed(Failure::Trap { message: "no".into() }),
        ];
        let mut scores = Scores::of_rollout(10, &[group]);
        scores.rewards.push(RewardScores { plugin, outcomes: vec![outcomes] });
        scores.sums = vec![vec![Some(1.0), None, None]];
        scores
    }

    #[test]
    fn a_table_is_read_as_it_was_written_in_both_formats() {
        let folder = tempfile::tempdir().unwrap();
        let read = |format| -> Vec<Columns> {
            let path = write(&scores(), format, folder.path()).unwrap();
            read_rows(&path).unwrap().map(|it| it.unwrap().columns).collect()
        };
        let [parquet, jsonl] = [CompletionsFormat::Parquet, CompletionsFormat::Jsonl].map(read);
        assert_eq!(parquet, jsonl);
        insta::assert_snapshot!(json!(parquet[0]), @r#"{"step":10,"row":3,"prompt":"2 + \"2\"\n=","completion":"4","token_count":2,"finish":"stop","columns":"{\"answer\":4}","rewards/answer-match":1.0,"outcomes/answer-match":"ok","reward":1.0}"#);
        assert_eq!(
            [&parquet[1]["rewards/answer-match"], &parquet[1]["reward"]],
            [&Value::Null, &Value::Null]
        );
        let outcomes: Vec<&Value> = parquet.iter().map(|it| &it["outcomes/answer-match"]).collect();
        assert_eq!(outcomes[..2], ["ok", "abstained"]);
        assert_eq!(parquet[2]["completion"], "五");
        let left = std::fs::read_dir(folder.path().join(FOLDER)).unwrap().flatten();
        let mut names: Vec<String> = left.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(
            names,
            ["completions_00010.jsonl", "completions_00010.parquet"],
            "nothing temporary is left"
        );
    }
}
