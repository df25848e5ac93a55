//! Plain texts in chunks that end where a reader would end them: between characters, words, sentences or paragraphs.

use fthost_plugin_sdk::{Columns, ConfigProblem, Content, DataBuilder, Example, Row, export, plugin_config};
use row_tools::columns;
use unicode_segmentation::UnicodeSegmentation;

/// `[plugins.text-chunks.config]`.
#[plugin_config]
struct Config {
    /// The column that holds the text.
    #[default = "text"]
    column: String,
    /// What is never cut.
    #[default]
    unit: Unit,
    /// What `size` and `overlap` count.
    #[default]
    measure: Measure,
    /// How much a chunk holds at most; a unit that is longer stands alone.
    #[default = 1000]
    size: u32,
    /// How much of a chunk's end the next one begins with, in whole units.
    #[default = 0]
    overlap: u32,
    /// A chunk below this size is left out, unless it is a document's only one.
    #[default = 0]
    min_size: u32,
    /// Chunks reach across rows: what does not fill a chunk waits for the next row.
    #[default = false]
    across_rows: bool,
    /// What stands between rows where chunks reach across them.
    #[default = "\n\n"]
    separator: String,
    /// Columns handed on to evaluators; where absent all but the text.
    #[default = None]
    keep: Option<Vec<String>>,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Unit {
    /// What a reader sees as one character.
    Characters,
    /// Words; each Han or kana character is one.
    Words,
    /// Sentences, whose ends are those of Unicode's annex 29, `。！？` among them.
    #[default]
    Sentences,
    /// Paragraphs, between empty lines.
    Paragraphs,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Measure {
    /// Characters, spaces included.
    #[default]
    Characters,
    /// Words; each Han or kana character is one.
    Words,
    /// What `unit` says.
    Units,
}

/// A unit with the space that follows it, and its size.
#[derive(Clone)]
struct Piece {
    text: String,
    size: usize,
}

struct TextChunks {
    config: Config,
    /// What waits for the next row, and the row it began in.
    waiting: Vec<Piece>,
    began_in: Option<(u64, Columns)>,
}

impl TryFrom<Config> for TextChunks {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.size == 0 {
            return Err(ConfigProblem::new("size", "must be at least 1, got `0`"));
        }
        for (key, value) in [("overlap", config.overlap), ("min_size", config.min_size)] {
            let bad = if key == "overlap" { value >= config.size } else { value > config.size };
            if bad {
                return Err(ConfigProblem::new(key, format!("must be below `size`, got `{value}`")));
            }
        }
        Ok(Self { config, waiting: Vec::new(), began_in: None })
    }
}

impl TextChunks {
    fn pieces(&self, text: &str) -> Vec<Piece> {
        let units: Vec<&str> = match self.config.unit {
            Unit::Characters => text.graphemes(true).collect(),
            Unit::Words => between(text, &text_tools::word_starts(text)),
            Unit::Sentences => text_tools::sentences(text),
            Unit::Paragraphs => between(text, &paragraph_starts(text)),
        };
        let size = |unit: &str| match self.config.measure {
            Measure::Characters => unit.chars().count(),
            Measure::Words => text_tools::word_count(unit),
            Measure::Units => 1,
        };
        units.into_iter().map(|it| Piece { text: it.into(), size: size(it) }).collect()
    }

    /// Full chunks off the front of `pieces`; with `end` what is left too.
    fn take(&self, pieces: &mut Vec<Piece>, end: bool) -> Vec<String> {
        let mut chunks = Vec::new();
        // Where the next chunk begins.
        let mut start = 0;
        loop {
            let left = &pieces[start..];
            let (mut count, mut size) = (0, 0);
            while count < left.len() && (count == 0 || size + left[count].size <= self.config.size as usize) {
                size += left[count].size;
                count += 1;
            }
            let full = count < left.len();
            if !full && (!end || left.is_empty()) {
                break;
            }
            if size >= self.config.min_size as usize || (chunks.is_empty() && !full) {
                chunks.push(left[..count].iter().map(|it| &*it.text).collect());
            }
            start += if full { count - self.repeated(left, count) } else { count };
        }
        pieces.drain(..start);
        chunks
    }

    /// How many of the first `count` units the next chunk begins with: whole ones, fewer than all, and with room for the
    /// unit that follows.
    fn repeated(&self, pieces: &[Piece], count: usize) -> usize {
        let (mut back, mut size) = (0, 0);
        while back + 1 < count && size + pieces[count - back - 1].size <= self.config.overlap as usize {
            size += pieces[count - back - 1].size;
            back += 1;
        }
        while back > 0 && size + pieces[count].size > self.config.size as usize {
            size -= pieces[count - back].size;
            back -= 1;
        }
        back
    }

    fn example(row: u64, text: &str, columns: &Columns) -> Option<Example> {
        let text = text.trim();
        (!text.is_empty()).then(|| Example {
            row,
            content: Content::Text(text.into()),
            columns: columns.clone(),
        })
    }
}

/// The text cut at `starts`; what stands before the first belongs to the first piece.
fn between<'a>(text: &'a str, starts: &[usize]) -> Vec<&'a str> {
    let inner = starts.iter().copied().skip(1);
    let bounds: Vec<usize> = [0].into_iter().chain(inner).chain([text.len()]).collect();
    bounds.windows(2).map(|it| &text[it[0]..it[1]]).filter(|it| !it.is_empty()).collect()
}

/// Where each paragraph begins: after an empty line.
fn paragraph_starts(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let (mut at, mut after_empty) = (0, true);
    for line in text.split_inclusive('\n') {
        let empty = line.trim().is_empty();
        if after_empty && !empty {
            starts.push(at);
        }
        after_empty = empty;
        at += line.len();
    }
    starts
}

impl DataBuilder for TextChunks {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let text = columns::text(&row.columns, &self.config.column)?;
        let text = text.replace("\r\n", "\n");
        let mut kept = columns::kept(&row.columns, self.config.keep.as_deref());
        if self.config.keep.is_none() {
            kept.shift_remove(&self.config.column);
        }
        if !self.config.across_rows {
            let chunks = self.take(&mut self.pieces(&text), true);
            return Ok(chunks.iter().filter_map(|it| Self::example(row.id, it, &kept)).collect());
        }
        let mut pieces = std::mem::take(&mut self.waiting);
        match pieces.last_mut() {
            Some(last) => {
                last.text.push_str(&self.config.separator);
                if self.config.measure == Measure::Characters {
                    last.size += self.config.separator.chars().count();
                }
            }
            None => self.began_in = None,
        }
        let (began, began_kept) = self.began_in.clone().unwrap_or_else(|| (row.id, kept.clone()));
        pieces.extend(self.pieces(&text));
        let chunks = self.take(&mut pieces, false);
        // A chunk belongs to the row in which the first of them began; those after it lie in this one.
        let examples = chunks.iter().enumerate().filter_map(|(at, it)| match at {
            0 => Self::example(began, it, &began_kept),
            _ => Self::example(row.id, it, &kept),
        });
        let examples = examples.collect();
        self.began_in = Some(if chunks.is_empty() { (began, began_kept) } else { (row.id, kept) });
        self.waiting = pieces;
        Ok(examples)
    }

    fn finish(&mut self) -> Vec<Example> {
        let mut pieces = std::mem::take(&mut self.waiting);
        let chunks = self.take(&mut pieces, true);
        let Some((row, kept)) = self.began_in.take() else { return Vec::new() };
        chunks.iter().filter_map(|it| Self::example(row, it, &kept)).collect()
    }
}

export!(data_builder: TextChunks from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use serde_json::{Value, json};

    fn texts(examples: Vec<Example>) -> Vec<String> {
        let text = |it: Example| match it.content {
            Content::Text(text) => text,
            other => panic!("{other:?}"),
        };
        examples.into_iter().map(text).collect()
    }

    /// Chunks of each row, then those of the end.
    fn chunks(config: Value, rows: &[&str]) -> Result<Vec<Vec<String>>, String> {
        let mut builder: TextChunks =
            testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())?;
        let rows = rows.iter().map(|it| testing::row(json!({ "text": it }))).collect();
        let built = testing::build(&mut builder, rows)?;
        let mut all = built.outcomes.into_iter().map(|it| it.map(texts)).collect::<Result<Vec<_>, _>>()?;
        all.push(texts(built.finished));
        Ok(all)
    }

    fn of_one(config: Value, text: &str) -> Vec<String> {
        chunks(config, &[text]).unwrap().remove(0)
    }

    #[test]
    fn sentences_are_never_cut() {
        let text = "One is here. Two is there! Is three? Four.";
        assert_eq!(of_one(json!({"size": 27}), text), ["One is here. Two is there!", "Is three? Four."]);
        let chinese = "今天下雨。我们回家吧！好不好？好。";
        assert_eq!(of_one(json!({"size": 12}), chinese), ["今天下雨。我们回家吧！", "好不好？好。"]);
        // A sentence that is longer than a chunk stands alone.
        assert_eq!(
            of_one(json!({"size": 5}), "Short. A long sentence. End."),
            ["Short.", "A long sentence.", "End."]
        );
    }

    #[test]
    fn the_next_chunk_begins_with_the_overlap() {
        let words = json!({"unit": "words", "measure": "units", "size": 3, "overlap": 1});
        assert_eq!(of_one(words.clone(), "a b c d e"), ["a b c", "c d e"]);
        assert_eq!(of_one(words.clone(), "a b c d"), ["a b c", "c d"]);
        assert_eq!(of_one(words, "我爱你们。"), ["我爱你", "你们。"]);
        let sentences = json!({"size": 12, "overlap": 6});
        assert_eq!(
            of_one(sentences, "Aaaa. Bbbb. Cccc. Dddd."),
            ["Aaaa. Bbbb.", "Bbbb. Cccc.", "Cccc. Dddd."]
        );
    }

    #[test]
    fn units_and_measures() {
        let paragraphs = json!({"unit": "paragraphs", "measure": "units", "size": 1});
        assert_eq!(of_one(paragraphs, "A\nb\n\n\nC\r\n\r\nD"), ["A\nb", "C", "D"]);
        let characters = json!({"unit": "characters", "size": 2});
        assert_eq!(of_one(characters.clone(), "abcde"), ["ab", "cd", "e"]);
        // A letter with its accent is one unit of two characters.
        assert_eq!(of_one(characters, "e\u{301}a"), ["e\u{301}", "a"]);
        assert_eq!(of_one(json!({"measure": "words", "size": 3}), "A b. C d. E."), ["A b.", "C d. E."]);
        assert_eq!(of_one(json!({"size": 6, "min_size": 4}), "Aaaa. B."), ["Aaaa."]);
        assert_eq!(of_one(json!({"size": 9, "min_size": 4}), "B."), ["B."]);
    }

    #[test]
    fn chunks_may_reach_across_rows() {
        let config =
            json!({"unit": "words", "measure": "units", "size": 3, "across_rows": true, "separator": "|"});
        let all = chunks(config.clone(), &["a b", "c d e f", "g"]).unwrap();
        assert_eq!(all, [vec![], vec!["a b|c".to_owned()], vec!["d e f|".into()], vec!["g".into()]]);
        let mut builder: TextChunks = testing::configure::<Config, _>(config).unwrap();
        let row = |id, text: &str| Row { id, ..testing::row(json!({ "text": text, "id": id })) };
        let built = testing::build(&mut builder, vec![row(4, "a b"), row(9, "c d")]).unwrap();
        let example = &built.outcomes[1].as_ref().unwrap()[0];
        assert_eq!((example.row, &example.columns["id"]), (4, &json!(4)));
        assert_eq!((built.finished[0].row, built.finished.len()), (9, 1));
    }

    #[test]
    fn nothing_of_a_text_is_lost() {
        let text = "Dr. Who said: \"No.\" Then 3.5 people left!\n\n你好。再见。 The end";
        for (unit, size) in [("characters", 7), ("words", 11), ("sentences", 20), ("paragraphs", 10)] {
            let joined = of_one(json!({"unit": unit, "size": size}), text).join(" ");
            let letters = |text: &str| text.chars().filter(|it| !it.is_whitespace()).collect::<String>();
            assert_eq!(letters(&joined), letters(text), "{unit}");
        }
    }

    #[test]
    fn impossible_values_name_their_key() {
        assert_eq!(chunks(json!({"size": 0}), &[]).unwrap_err(), "size");
        assert_eq!(chunks(json!({"size": 5, "overlap": 5}), &[]).unwrap_err(), "overlap");
        assert_eq!(chunks(json!({"size": 5, "min_size": 6}), &[]).unwrap_err(), "min_size");
        assert!(chunks(json!({}), &[" "]).unwrap_err().contains("is empty"));
    }
}
