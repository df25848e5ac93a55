//! A plugin of contract 0.2: a reward that scores the length of each answer, an augmenter that puts the doubled text in its
//! place, and an evaluator that counts. Written against the released files, as a plugin of that time would be.

wit_bindgen::generate!({
    inline: "
        package fthost:guest;
        world guest {
            include fthost:plugin/reward@0.2.0;
            include fthost:plugin/augmenter@0.2.0;
            include fthost:plugin/evaluator@0.2.0;
            import fthost:plugin/logprobs@0.2.0;
        }
    ",
    path: "../../../wit/released/0.2.0",
    generate_all,
});

use std::cell::Cell;

use exports::fthost::plugin::{about, augment, evaluate, score};
use fthost::plugin::types::{
    Content, Detail, Direction, Example, Group, Metric, Model, Outcome, Prompt, Sample, Score,
};
use fthost::plugin::{log, logprobs};

thread_local! {
    static GRADED: Cell<u64> = const { Cell::new(0) };
}

struct Guest;

impl about::Guest for Guest {
    fn describe() -> about::Description {
        about::Description {
            name: "contract-0-2".into(),
            version: "0.1.0".into(),
            summary: "A plugin of contract 0.2".into(),
            config_schema: r#"{"type": "object"}"#.into(),
        }
    }

    fn configure(_: String) -> Result<(), Vec<about::ConfigProblem>> {
        log::log(log::Level::Info, "configured");
        Ok(())
    }
}

impl score::Guest for Guest {
    fn score(groups: Vec<Group>) -> Result<Vec<Vec<Outcome>>, String> {
        let outcome = |text: &str| match text {
            "ask" => match logprobs::logprobs(&Model::Run, &[(Prompt::Text("a".into()), "b".into())]) {
                Ok(all) => Outcome::Ok(Score { value: all[0].sum, components: Vec::new() }),
                Err(reason) => Outcome::Error(reason),
            },
            _ => Outcome::Ok(Score {
                value: text.len() as f64,
                components: vec![("bytes".into(), text.len() as f64)],
            }),
        };
        Ok(groups.iter().map(|it| it.completions.iter().map(|it| outcome(&it.text)).collect()).collect())
    }
}

impl augment::Guest for Guest {
    fn augment(examples: Vec<Example>) -> Result<Vec<augment::Augmented>, String> {
        let derived = |it: Example| match it.content {
            Content::Text(text) => augment::Augmented {
                original: augment::Fate::Drop("doubled".into()),
                variants: vec![augment::Derived {
                    example: Example {
                        row: it.row,
                        content: Content::Text(format!("{text}{text}")),
                        columns: it.columns,
                    },
                    operation: "double".into(),
                }],
            },
            _ => augment::Augmented { original: augment::Fate::Keep, variants: Vec::new() },
        };
        Ok(examples.into_iter().map(derived).collect())
    }
}

impl evaluate::Guest for Guest {
    fn grade(samples: Vec<Sample>) -> Result<Vec<Detail>, String> {
        GRADED.set(GRADED.get() + samples.len() as u64);
        Ok(samples.iter().map(|it| Detail { id: it.id, values: Vec::new(), note: None }).collect())
    }

    fn finish() -> Result<Vec<Metric>, String> {
        let count = GRADED.take();
        let (name, direction) = ("graded".into(), Direction::HigherIsBetter);
        Ok(vec![Metric { name, value: count as f64, direction, confidence: None, count }])
    }
}

export!(Guest);
