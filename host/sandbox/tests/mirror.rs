//! Guests that give back what they are given: the ground for the fuzz target `boundary` and for its smoke test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_data::{
    Augmenter, BuildOutcome, Candidate, Columns, Content, DataBuilder, Example, Finish, Group, Origin,
    Outcome, Prompt, Record, Reward,
};
use fthost_sandbox::{ModelSlot, PluginConfig, Sandbox, SandboxConfig};
use serde_json::Value;

/// A builder that copies columns (the newest contract), an augmenter that doubles text and a reward that counts bytes (0.1).
pub struct Mirror {
    builder: Box<dyn DataBuilder>,
    augmenter: Box<dyn Augmenter>,
    reward: Box<dyn Reward>,
}

fn guest(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|it| it.join("tests/guests").is_dir());
    root.expect("the repository").join("tests/guests/dist").join(format!("{name}.wasm"))
}

impl Mirror {
    /// Loads the guests.
    pub fn load() -> Self {
        let (log, model) = (Arc::new(|_: &str, _, _: &str| {}), ModelSlot::default());
        let sandbox = Sandbox::new(SandboxConfig { cache_dir: None, seed: 0, log, model }).unwrap();
        let load = |name: &str| sandbox.load(name, &guest(name), &PluginConfig::default()).unwrap();
        let (new, old) = (load("hostile"), load("contract-0-1"));
        Self {
            builder: new.data_builder().unwrap(),
            augmenter: old.augmenter().unwrap(),
            reward: old.reward().unwrap(),
        }
    }

    /// Sends `text` as a prompt, an answer, a text, a column's name and value, and, where it is a JSON object, as columns.
    ///
    /// # Panics
    /// Where something comes back changed.
    pub fn check(&mut self, text: &str) {
        let mut columns = match serde_json::from_str(text) {
            Ok(Value::Object(columns)) => columns,
            _ => Columns::new(),
        };
        // The guest acts on this one.
        columns.remove("do");
        columns.insert(format!("_{text}"), Value::String(text.to_string()));
        let origin = Origin { source: "fuzz".into(), line: 1 };

        let record = Record { columns: columns.clone(), origin: origin.clone() };
        let BuildOutcome::Examples(built) = &self.builder.build(&[record]).unwrap()[0] else {
            panic!("{text:?}")
        };
        assert_eq!(built[0].columns, columns, "{text:?}");

        let content = Content::Text(text.to_string());
        let example = Example { content, columns: columns.clone(), origin, provenance: Vec::new() };
        let augmented = &self.augmenter.augment(&[example]).unwrap()[0].variants[0];
        assert_eq!(augmented.content, Content::Text(format!("{text}{text}")));
        assert_eq!(augmented.columns, columns, "{text:?}");

        let completion = Candidate { text: text.to_string(), token_count: 1, finish: Finish::Length };
        let group = Group {
            id: u64::MAX,
            step: 1,
            occasion: Default::default(),
            prompt: Prompt::Text(text.to_string()),
            completions: vec![completion],
            columns,
        };
        let outcome = &self.reward.score(&[group])[0][0];
        let asks = text == "ask";
        let counted = matches!(outcome, Outcome::Ok(score) if score.value == text.len() as f64);
        assert!(counted || asks, "{text:?} gave {outcome:?}");
    }
}
