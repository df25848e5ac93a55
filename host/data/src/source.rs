//! Rows from JSONL, JSON, CSV and Parquet files, each with its file and line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::SerializedFileReader;
use serde_json::Value;

use crate::error::{DataError, Result, io};
use crate::record::{Columns, Origin, Record};

/// Rows in the file's order; a row that can't be read is an error of its own and does not end the file.
pub type Rows = Box<dyn Iterator<Item = Result<Record>>>;

/// Opens `path`; its name decides the format.
///
/// # Errors
/// A file that can't be opened, an unknown format, and, for JSON and Parquet, a file damaged as a whole.
pub fn read_rows(path: &Path) -> Result<Rows> {
    let source: Arc<str> = path.to_string_lossy().into();
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
    match extension {
        "jsonl" | "ndjson" => jsonl(path, source),
        "json" => json(path, source),
        "csv" => csv_rows(path, source),
        "parquet" => parquet_rows(path, source),
        _ => Err(DataError::UnknownFormat { path: path.to_path_buf() }),
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(io(path))
}

fn damaged(path: &Path, reason: impl ToString) -> DataError {
    DataError::Damaged { path: path.to_path_buf(), reason: reason.to_string() }
}

fn bad_row(origin: Origin, reason: impl ToString) -> DataError {
    DataError::BadRow { origin, reason: reason.to_string() }
}

fn record(origin: Origin, value: Value) -> Result<Record> {
    match value {
        Value::Object(columns) => Ok(Record { columns, origin }),
        other => Err(bad_row(origin, format!("a row must be an object, got `{other}`"))),
    }
}

fn jsonl(path: &Path, source: Arc<str>) -> Result<Rows> {
    let lines = BufReader::new(open(path)?).lines().enumerate();
    let not_blank =
        |line: &(usize, std::io::Result<String>)| !matches!(&line.1, Ok(it) if it.trim().is_empty());
    Ok(Box::new(lines.filter(not_blank).map(move |(index, line)| {
        let origin = Origin { source: source.clone(), line: index as u64 + 1 };
        let line = line.map_err(|error| bad_row(origin.clone(), error))?;
        let value = serde_json::from_str(&line).map_err(|error| bad_row(origin.clone(), error))?;
        record(origin, value)
    })))
}

/// An array of rows, or an object that holds exactly one array.
fn json(path: &Path, source: Arc<str>) -> Result<Rows> {
    let value = serde_json::from_reader(BufReader::new(open(path)?)).map_err(|it| damaged(path, it))?;
    let rows = match value {
        Value::Array(rows) => rows,
        Value::Object(columns) => {
            let mut arrays = columns.into_iter().filter_map(|(_, value)| match value {
                Value::Array(rows) => Some(rows),
                _ => None,
            });
            match (arrays.next(), arrays.next()) {
                (Some(rows), None) => rows,
                _ => {
                    return Err(damaged(
                        path,
                        "expected an array of rows, or an object with one array in it",
                    ));
                }
            }
        }
        _ => return Err(damaged(path, "expected an array of rows")),
    };
    Ok(Box::new(
        rows.into_iter().enumerate().map(move |(index, value)| {
            record(Origin { source: source.clone(), line: index as u64 + 1 }, value)
        }),
    ))
}

/// Every column is a string: CSV knows nothing else.
fn csv_rows(path: &Path, source: Arc<str>) -> Result<Rows> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(open(path)?);
    let headers = reader.headers().map_err(|it| damaged(path, it))?.clone();
    Ok(Box::new(reader.into_records().enumerate().map(move |(index, row)| {
        let line = row.as_ref().ok().and_then(|it| it.position()).map_or(index as u64 + 2, |it| it.line());
        let origin = Origin { source: source.clone(), line };
        let row = row.map_err(|error| bad_row(origin.clone(), error))?;
        if row.len() != headers.len() {
            return Err(bad_row(origin, format!("{} fields, the header has {}", row.len(), headers.len())));
        }
        let columns: Columns =
            headers.iter().zip(&row).map(|(name, value)| (name.to_string(), Value::from(value))).collect();
        Ok(Record { columns, origin })
    })))
}

fn parquet_rows(path: &Path, source: Arc<str>) -> Result<Rows> {
    let reader = SerializedFileReader::new(open(path)?).map_err(|it| damaged(path, it))?;
    Ok(Box::new(reader.into_iter().enumerate().map(move |(index, row)| {
        let origin = Origin { source: source.clone(), line: index as u64 + 1 };
        let row = row.map_err(|error| bad_row(origin.clone(), error))?;
        record(origin, row.to_json_value())
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}/", folder.path().display());
        read_rows(&path)
            .unwrap()
            .map(|row| match row {
                Ok(row) => format!("{}: {}", row.origin.line, Value::Object(row.columns)),
                Err(error) => error.to_string().replace(&prefix, ""),
            })
            .collect()
    }

    #[test]
    fn a_bad_line_is_named_and_the_rest_is_read() {
        let got = rows("a.jsonl", "{\"text\": \"one\"}\n\n{\"text\"\n[1]\n{\"text\": \"two\"}\n");
        insta::assert_snapshot!(got.join("\n"), @r#"
        1: {"text":"one"}
        a.jsonl:3: EOF while parsing an object at line 1 column 7
        a.jsonl:4: a row must be an object, got `[1]`
        5: {"text":"two"}
        "#);
    }

    #[test]
    fn csv_rows_carry_their_line_even_after_a_field_of_several() {
        let got = rows("a.csv", "prompt,completion\n\"two\nlines\",b\nx\nc,d\n");
        insta::assert_snapshot!(got.join("\n"), @r#"
        2: {"prompt":"two\nlines","completion":"b"}
        a.csv:4: 1 fields, the header has 2
        5: {"prompt":"c","completion":"d"}
        "#);
    }

    #[test]
    fn json_may_wrap_its_rows_in_an_object() {
        assert_eq!(
            rows("a.json", "{\"version\": 1, \"data\": [{\"text\": \"x\"}]}"),
            ["1: {\"text\":\"x\"}"]
        );
    }

    #[test]
    fn an_unknown_format_lists_the_known_ones() {
        let error = read_rows(Path::new("rows.xlsx")).err().unwrap().to_string();
        assert!(error.contains(".jsonl, .json, .csv, .parquet"), "{error}");
    }
}
