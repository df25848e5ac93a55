//! `fthost data`: rows as training sees them.

use std::io::{IsTerminal, stdout};

use fthost_data::{DataError, Example, Preview, Tokenizer};
use fthost_run::dataset::{OnBadRow, Skipped};
use fthost_run::{Result, dataset, models};

use crate::args::PreviewArgs;
use crate::{plugin, render};

/// Prints the first rows of the training part, and what there is in all.
pub fn preview(args: &PreviewArgs) -> Result<()> {
    let config = models::found(&plugin::config(&args.file)?)?;
    let tokenizer = Tokenizer::load(config.model.folder())?;
    let dataset = dataset::load(&config.data, &mut plugin::load(&config, &args.file.file, false)?)?;
    let styled = render::is_styled(stdout().is_terminal());
    println!("{}", render::legend(styled));
    let mut skipped = dataset.skipped;
    let mut lengths = Vec::with_capacity(dataset.train.len());
    let mut supervised = 0;
    for example in &dataset.train {
        let shown = |content| {
            Preview::new(&Example { content, ..example.clone() }, &tokenizer, config.data.max_length)
        };
        let rows = config.objective.refusal(example).map_or_else(
            || config.objective.shown(example).into_iter().map(shown).collect(),
            |reason| Err(DataError::BadRow { origin: example.origin.clone(), reason }),
        );
        let rows: std::result::Result<Vec<Preview>, DataError> = rows;
        match (rows, config.data.on_bad_row) {
            (Ok(rows), _) => {
                if lengths.len() < args.rows {
                    rows.iter().for_each(|it| print!("\n{}", render::preview(it, styled)));
                }
                lengths.push(rows.iter().map(|it| it.kept).sum());
                supervised += rows.iter().map(|it| it.supervised).sum::<usize>();
            }
            (Err(DataError::BadRow { origin, reason }), OnBadRow::Skip) => {
                skipped.push(Skipped { origin, reason });
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    skipped.sort_by(|a, b| (&a.origin.source, a.origin.line).cmp(&(&b.origin.source, b.origin.line)));
    println!(
        "\n{} rows to train on, {} held out, {} skipped",
        lengths.len(),
        dataset.held_out.len(),
        skipped.len()
    );
    for skipped in skipped.iter().take(render::SKIPPED_SHOWN) {
        println!("  skipped {}: {}", skipped.origin, skipped.reason);
    }
    let tokens: usize = lengths.iter().sum();
    println!(
        "{tokens} tokens, {supervised} supervised; a row has {} to {}, {} on average",
        lengths.iter().min().unwrap_or(&0),
        lengths.iter().max().unwrap_or(&0),
        tokens / lengths.len().max(1)
    );
    Ok(())
}
