//! What improved: the first and the last evaluation side by side, with two answers.

use std::path::Path;

use fthost_data::Direction;
use serde::Serialize;

use crate::evaluate::Evaluation;
use crate::judge::{JudgedAnswer, Judgement};

/// Two evaluations of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Steps before and after.
    pub steps: (u64, u64),
    /// Metrics that both have, in order.
    pub metrics: Vec<ComparedMetric>,
    /// At most two questions: the answer that improved most, and the one that is worst after.
    pub samples: Vec<ComparedAnswer>,
}

/// A metric before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedMetric {
    /// Its name, without `eval_`.
    pub name: String,
    /// In the first evaluation.
    pub before: f64,
    /// In the last one.
    pub after: f64,
    /// Which way it improves, where that is known.
    pub direction: Option<Direction>,
    /// 95% confidence interval of the value after, where the plugin gives one.
    pub confidence: Option<(f64, f64)>,
}

/// An answer before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedAnswer {
    /// What was asked.
    pub prompt: String,
    /// What was expected.
    pub reference: Option<String>,
    /// The first evaluation's answer.
    pub before: String,
    /// The last one's.
    pub after: String,
}

impl Comparison {
    /// The first and the last of `evaluations`, with what was judged in `folder`; `None` where there are not two.
    pub fn new(folder: &Path, evaluations: &[Evaluation]) -> Option<Self> {
        let (first, last) = (evaluations.first()?, evaluations.last()?);
        if first.step == last.step {
            return None;
        }
        let judged = (Judgement::read(folder, first.step), Judgement::read(folder, last.step));
        let metrics = last.metrics.iter().filter_map(|(name, after)| {
            let judged = judged.1.as_ref().and_then(|it| it.metrics.iter().find(|it| it.name == *name));
            Some(ComparedMetric {
                name: name.strip_prefix("eval_").unwrap_or(name).to_string(),
                before: first.value(name)?,
                after: *after,
                direction: direction(name).or(judged.and_then(|it| it.direction)),
                confidence: judged.and_then(|it| it.confidence),
            })
        });
        let samples = match &judged {
            (Some(before), Some(after)) => samples(&before.answers, &after.answers),
            _ => Vec::new(),
        };
        Some(Self { steps: (first.step, last.step), metrics: metrics.collect(), samples })
    }
}

/// Of the host's own metrics; plugins say theirs.
fn direction(name: &str) -> Option<Direction> {
    match name {
        "eval_loss" => Some(Direction::LowerIsBetter),
        "eval_mean_token_accuracy" => Some(Direction::HigherIsBetter),
        _ => None,
    }
}

impl ComparedMetric {
    /// `better`, `worse`, or nothing where it is the same or nobody knows.
    pub fn verdict(&self) -> &'static str {
        let risen = self.after > self.before;
        match self.direction {
            Some(_) if self.after == self.before => "",
            Some(Direction::HigherIsBetter) if risen => "better",
            Some(Direction::LowerIsBetter) if !risen => "better",
            Some(_) => "worse",
            None => "",
        }
    }
}

/// Everything that rewards and evaluators say of an answer, as one number that only compares answers.
fn merit(answer: &JudgedAnswer) -> f64 {
    answer.scores.iter().chain(&answer.values).map(|it| it.1).sum()
}

fn samples(before: &[JudgedAnswer], after: &[JudgedAnswer]) -> Vec<ComparedAnswer> {
    let pairs: Vec<(&JudgedAnswer, &JudgedAnswer)> = before.iter().zip(after).collect();
    // The first of equals, so that the same run shows the same answers.
    let best_by = |value: &dyn Fn(&(&JudgedAnswer, &JudgedAnswer)) -> f64| {
        let mut best: Option<(usize, f64)> = None;
        for (index, pair) in pairs.iter().enumerate() {
            let value = value(pair);
            if best.is_none_or(|it| value > it.1) {
                best = Some((index, value));
            }
        }
        best.map(|it| it.0)
    };
    let improved = best_by(&|pair| merit(pair.1) - merit(pair.0));
    let worst = best_by(&|pair| -merit(pair.1)).filter(|it| Some(*it) != improved);
    let shown = improved.into_iter().chain(worst);
    let compared = |index: usize| {
        let (before, after) = pairs[index];
        ComparedAnswer {
            prompt: after.prompt.clone(),
            reference: after.reference.clone(),
            before: before.answer.text.clone(),
            after: after.answer.text.clone(),
        }
    };
    shown.map(compared).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::JudgedMetric;
    use fthost_data::{Candidate, Finish};

    fn answer(text: &str, score: f64) -> JudgedAnswer {
        JudgedAnswer {
            question: 0,
            prompt: format!("question of {text}"),
            reference: None,
            answer: Candidate { text: text.into(), token_count: 1, finish: Finish::Stop },
            scores: vec![("r".into(), score)],
            values: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_most_improved_and_the_worst_answer_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let evaluation = |step, loss, exact| Evaluation {
            step,
            metrics: vec![("eval_loss".into(), loss), ("eval_e/exact".into(), exact)],
        };
        let judgement = |step, answers: Vec<JudgedAnswer>| Judgement {
            step,
            metrics: vec![JudgedMetric {
                name: "eval_e/exact".into(),
                value: 0.5,
                direction: Some(Direction::HigherIsBetter),
                confidence: Some((0.25, 0.75)),
            }],
            answers,
            scores: None,
            usage: Vec::new(),
        };
        let before = vec![answer("a", 0.0), answer("b", 0.5), answer("c", 0.0)];
        let after = vec![answer("A", 0.2), answer("B", 0.1), answer("C", 1.0)];
        judgement(0, before).write(folder.path()).unwrap();
        judgement(9, after).write(folder.path()).unwrap();
        let evaluations = [evaluation(0, 2.0, 0.0), evaluation(5, 1.0, 0.4), evaluation(9, 2.5, 0.5)];
        let comparison = Comparison::new(folder.path(), &evaluations).unwrap();
        let shown: Vec<_> = comparison.samples.iter().map(|it| (&*it.before, &*it.after)).collect();
        assert_eq!(shown, [("c", "C"), ("b", "B")]);
        let verdicts: Vec<_> = comparison.metrics.iter().map(|it| (&*it.name, it.verdict())).collect();
        assert_eq!(verdicts, [("loss", "worse"), ("e/exact", "better")]);
        assert_eq!(comparison.metrics[1].confidence, Some((0.25, 0.75)));
        assert!(Comparison::new(folder.path(), &evaluations[..1]).is_none());
    }
}
