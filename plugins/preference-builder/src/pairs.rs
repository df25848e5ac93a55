//! Which pairs a list of answers gives.

use fthost_plugin_sdk::plugin_config;
use row_tools::columns;
use serde_json::Value;

/// Which pairs are made.
#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best and the worst answer.
    #[default]
    BestWorst,
    /// The best answer with each other one.
    BestWithOthers,
    /// Each answer with the next best.
    Neighbours,
    /// Every pair.
    All,
}

/// An answer; a higher score is a better one.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// What it says.
    pub text: String,
    /// How good it is.
    pub score: f64,
}

/// A number for each of `count` answers.
pub fn numbers(list: &[Value], count: usize) -> Result<Vec<f64>, String> {
    if list.len() != count {
        return Err(format!("{} scores for {count} answers", list.len()));
    }
    let number = |it: &Value| it.as_f64().ok_or_else(|| format!("a score is {}", columns::kind(it)));
    list.iter().map(number).collect()
}

/// The scores that stand in the answers themselves.
pub fn scores_within(answers: &[Value], key: &str) -> Result<Vec<f64>, String> {
    let score = |it: &Value| it.get(key).and_then(Value::as_f64);
    let all: Option<Vec<f64>> = answers.iter().map(score).collect();
    all.ok_or_else(|| format!("no column `{key}`, and not every answer has a number `{key}`"))
}

/// Answers with their scores.
pub fn scored(answers: &[Value], scores: Vec<f64>) -> Result<Vec<Scored>, String> {
    let text = |it: &Value| match it {
        Value::String(text) => Some(text.clone()),
        other => ["text", "content", "response", "answer"]
            .iter()
            .find_map(|key| other.get(*key)?.as_str().map(str::to_owned)),
    };
    let one = |(at, (answer, score)): (usize, (&Value, f64))| match text(answer) {
        Some(text) if !text.trim().is_empty() => Ok(Scored { text, score }),
        Some(_) => Err(format!("answer {} is empty", at + 1)),
        None => Err(format!("answer {} has no text", at + 1)),
    };
    answers.iter().zip(scores).enumerate().map(one).collect()
}

/// Places of the better and the worse answer of each pair, those furthest apart first; pairs of equal scores, of the same
/// text, and closer than `margin` are none.
pub fn choose(answers: &[Scored], choice: Choice, margin: f64, most: usize) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..answers.len()).collect();
    order.sort_by(|a, b| answers[*b].score.total_cmp(&answers[*a].score));
    let last = order.len().saturating_sub(1);
    let wanted = |better: usize, worse: usize| match choice {
        Choice::BestWorst => better == 0 && worse == last,
        Choice::BestWithOthers => better == 0,
        Choice::Neighbours => worse == better + 1,
        Choice::All => true,
    };
    let apart = |(a, b): (usize, usize)| answers[a].score - answers[b].score;
    let mut pairs: Vec<(usize, usize)> = (0..order.len())
        .flat_map(|better| (better + 1..order.len()).map(move |worse| (better, worse)))
        .filter(|(better, worse)| wanted(*better, *worse))
        .map(|(better, worse)| (order[better], order[worse]))
        .filter(|(a, b)| answers[*a].text.trim() != answers[*b].text.trim())
        .filter(|pair| apart(*pair) > 0.0 && apart(*pair) >= margin)
        .collect();
    pairs.sort_by(|a, b| apart(*b).total_cmp(&apart(*a)));
    pairs.truncate(most);
    pairs
}
