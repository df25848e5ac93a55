//! The weighted share of named checks that an answer passes. Checks are data: they stand in the configuration or in a
//! row's column, and can say nothing that takes long.

use fthost_plugin_sdk::{Columns, ConfigProblem, Group, Reward, Score, export};
use serde_json::Value;

mod check;
mod path;

use check::{Answer, Check, Ready};

/// `[plugins.unit-checks.config]`.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Checks of every answer.
    checks: Vec<Check>,
    /// A column that holds a row's own checks, a list of objects or its JSON text, beside those of `checks`.
    column: Option<String>,
    /// 1 only where every check passes, 0 otherwise, in the place of the share.
    all_or_nothing: bool,
}

struct UnitChecks {
    config: Config,
    checks: Vec<Ready>,
}

impl TryFrom<Config> for UnitChecks {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.checks.is_empty() && config.column.is_none() {
            return Err(ConfigProblem::new("checks", "must hold at least one, or `column` where they stand"));
        }
        let checks = ready(&config.checks)
            .map_err(|(at, key, message)| ConfigProblem::new(format!("checks[{at}]{key}"), message))?;
        Ok(Self { config, checks })
    }
}

/// The checks made ready; of the first that is none its place, its key (`.name`) and what is wrong.
fn ready(checks: &[Check]) -> Result<Vec<Ready>, (usize, String, String)> {
    let mut all: Vec<Ready> = Vec::with_capacity(checks.len());
    for (at, check) in checks.iter().enumerate() {
        let one = check.ready().map_err(|(key, message)| (at, format!(".{key}"), message))?;
        // Two checks of one name would be one component.
        if all.iter().any(|it| it.name == one.name) && check.name.is_some() {
            return Err((at, ".name".into(), format!("`{}` is named twice", one.name)));
        }
        all.push(one);
    }
    Ok(all)
}

impl UnitChecks {
    /// `Ok(Err(reason))` where the row has no checks, `Err` where it has some that are none.
    fn of_row(&self, columns: &Columns) -> Result<Result<Vec<Ready>, String>, String> {
        let Some(column) = &self.config.column else { return Ok(Ok(Vec::new())) };
        let checks: Result<Vec<Check>, _> = match columns.get(column) {
            None | Some(Value::Null) if self.checks.is_empty() => {
                return Ok(Err(format!("the row has no column `{column}`")));
            }
            None | Some(Value::Null) => return Ok(Ok(Vec::new())),
            Some(Value::String(text)) => serde_json::from_str(text),
            Some(other) => serde_json::from_value(other.clone()),
        };
        let checks = checks.map_err(|error| format!("column `{column}`: {error}"))?;
        if checks.is_empty() && self.checks.is_empty() {
            return Ok(Err(format!("column `{column}` is an empty list")));
        }
        let made = ready(&checks);
        made.map(Ok).map_err(|(at, key, message)| format!("column `{column}`, [{at}]{key}: {message}"))
    }

    fn judge(&self, text: &str, own: &[Ready]) -> Score {
        let checks = || self.checks.iter().chain(own);
        let answer = Answer::new(text);
        let passed: Vec<bool> = checks().map(|it| it.passes(&answer)).collect();
        let weight = |only_passed: bool| -> f64 {
            checks().zip(&passed).filter(|it| *it.1 || !only_passed).map(|it| it.0.weight).sum()
        };
        let value = match self.config.all_or_nothing {
            true => f64::from(u8::from(passed.iter().all(|it| *it))),
            false => weight(true) / weight(false),
        };
        let count = passed.iter().filter(|it| **it).count() as f64;
        let score = Score::new(value).with("passed", count).with("checks", passed.len() as f64);
        // Rows' own checks differ from row to row: only those of the configuration are metrics.
        self.checks.iter().zip(&passed).fold(score, |score, (check, passed)| {
            score.with(check.name.clone(), f64::from(u8::from(*passed)))
        })
    }
}

impl Reward for UnitChecks {
    fn score(&self, group: &Group) -> Vec<Score> {
        match self.of_row(&group.columns) {
            Err(error) => vec![Score::error(error); group.completions.len()],
            Ok(Err(reason)) => vec![Score::abstain(reason); group.completions.len()],
            Ok(Ok(own)) => group.completions.iter().map(|it| self.judge(&it.text, &own)).collect(),
        }
    }
}

export!(reward: UnitChecks from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::group;
    use serde_json::json;

    fn made(config: Value) -> Result<UnitChecks, ConfigProblem> {
        UnitChecks::try_from(serde_json::from_value::<Config>(config).unwrap())
    }

    fn passes(check: Value, text: &str) -> bool {
        made(json!({"checks": [check]})).unwrap().judge(text, &[]).value() == Some(1.0)
    }

    #[test]
    fn checks_of_text() {
        assert!(passes(json!({"contains": "Paris"}), "In Paris."));
        assert!(!passes(json!({"contains": "paris"}), "In Paris."));
        assert!(passes(json!({"contains": "paris", "ignore_case": true}), "In Paris."));
        assert!(passes(json!({"not_contains": "sorry"}), "fine"));
        assert!(passes(json!({"equals": "a b"}), " a b\n") && !passes(json!({"equals": "a"}), "a b"));
        assert!(
            passes(json!({"starts_with": "Dear"}), "Dear all") && passes(json!({"ends_with": "."}), "End. ")
        );
        assert!(passes(json!({"matches": r"^\d+$"}), "123") && !passes(json!({"matches": "^a$"}), "ba"));
        assert!(passes(json!({"equals": "a", "negate": true}), "b"));
    }

    #[test]
    fn checks_of_amounts() {
        assert!(
            passes(json!({"words": {"max": 3}}), "我爱你") && !passes(json!({"words": {"max": 2}}), "我爱你")
        );
        assert!(passes(json!({"lines": {"equals": 2}}), "a\n\nb\n"));
        assert!(passes(json!({"characters": {"min": 2, "max": 2}}), "é!"));
        assert!(passes(json!({"sentences": {"equals": 2}}), "你好。再见！"));
        assert!(passes(json!({"number": {"equals": 0.5, "tolerance": 0.01}}), "about 1/2"));
        assert!(
            passes(json!({"number": {"min": 10}}), "答案是三百")
                && !passes(json!({"number": {"min": 10}}), "none")
        );
    }

    #[test]
    fn checks_of_json_and_script() {
        let answer = r#"{"user": {"tags": ["a", "b"], "age": 36}}"#;
        assert!(passes(json!({"json": {"path": "$.user.tags[1]", "equals": "b"}}), answer));
        assert!(passes(json!({"json": {"path": "$['user'].age", "min": 18, "max": 99}}), answer));
        assert!(passes(json!({"json": {"path": "/user/age", "type": "number"}}), answer));
        assert!(passes(json!({"json": {"path": "$.user.age", "equals": 36.0}}), answer));
        assert!(
            !passes(json!({"json": {"path": "$.user.name"}}), answer) && passes(json!({"json": {}}), answer)
        );
        assert!(passes(json!({"json": {"path": "$.user.tags", "length": {"equals": 2}}}), answer));
        assert!(
            passes(json!({"script": {"is": "Han"}}), "今天 2 月。")
                && !passes(json!({"script": {"is": "Han"}}), "today")
        );
        assert!(passes(json!({"script": {"is": "Latin", "share": 0.5}}), "abc 你好"));
    }

    #[test]
    fn the_score_is_the_weighted_share_and_names_are_components() {
        let config = json!({"checks": [{"contains": "a", "name": "has_a", "weight": 3}, {"contains": "b"}]});
        let score = &made(config.clone()).unwrap().score(&group(json!({}), &["a"]))[0];
        assert_eq!((score.value(), score.component("has_a")), (Some(0.75), Some(1.0)));
        assert_eq!((score.component("contains"), score.component("passed")), (Some(0.0), Some(1.0)));
        let mut strict = config;
        strict["all_or_nothing"] = json!(true);
        assert_eq!(made(strict).unwrap().score(&group(json!({}), &["a"]))[0].value(), Some(0.0));
    }

    #[test]
    fn a_row_s_own_checks_count_and_bad_ones_are_errors() {
        let reward = made(json!({"column": "tests"})).unwrap();
        let of = |columns: Value| reward.score(&group(columns, &["ab"]))[0].value();
        assert_eq!(of(json!({"tests": [{"contains": "a"}, {"contains": "x"}]})), Some(0.5));
        assert_eq!(of(json!({"tests": "[{\"contains\": \"a\"}]"})), Some(1.0));
        assert_eq!(of(json!({"tests": [{"holds": "a"}]})), None);
        assert_eq!(of(json!({})), None);
    }

    #[test]
    fn a_check_that_is_none_names_its_key() {
        let key = |check: Value| made(json!({"checks": [{"contains": "a"}, check]})).err().unwrap().key;
        assert_eq!(key(json!({})), "checks[1].contains");
        assert_eq!(key(json!({"matches": "("})), "checks[1].matches");
        assert_eq!(key(json!({"contains": "a", "equals": "b"})), "checks[1].equals");
        assert_eq!(key(json!({"contains": "a", "weight": -1})), "checks[1].weight");
        assert_eq!(key(json!({"json": {"path": "$..a"}})), "checks[1].json.path");
        assert_eq!(key(json!({"script": {"is": "Klingon"}})), "checks[1].script.is");
        assert_eq!(key(json!({"words": {}})), "checks[1].words");
        assert_eq!(made(json!({})).err().unwrap().key, "checks");
    }
}
