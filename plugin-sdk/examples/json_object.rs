//! Reward 1.0 for a completion that is one JSON object, otherwise 0.0.
use fthost_plugin_sdk::{Group, Reward, Score, export, serde_json::Value};

struct JsonObject;

impl Reward for JsonObject {
    fn score(&self, group: &Group) -> Vec<Score> {
        group.completions.iter().map(|it| Score::from(is_object(&it.text))).collect()
    }
}

fn is_object(text: &str) -> bool {
    matches!(fthost_plugin_sdk::serde_json::from_str(text), Ok(Value::Object(_)))
}

export!(reward: JsonObject);
