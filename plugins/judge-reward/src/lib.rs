//! A model's verdict on each answer, on a scale. What it says is read, never guessed: an answer without a readable
//! verdict is an error, not a score.
//!
//! Judging answers one by one is from <https://arxiv.org/abs/2306.05685>, whose `[[7]]` is understood.

use fthost_plugin_sdk::model::{self, Model};
use fthost_plugin_sdk::{ConfigProblem, Group, Message, Prompt, Reward, Role, Score, export};
use minijinja::{Environment, UndefinedBehavior};
use regex::Regex;

mod config;
mod verdict;

use config::Config;
use verdict::Verdict;

struct JudgeReward {
    config: Config,
    judge: Model,
    templates: Environment<'static>,
    verdict: Verdict,
}

impl TryFrom<Config> for JudgeReward {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        let judge = config.checked()?;
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        for (key, text) in [("system", &config.system), ("template", &config.template)] {
            templates
                .add_template_owned(key, text.clone())
                .map_err(|error| ConfigProblem::new(key, error.to_string()))?;
        }
        let pattern = match &config.pattern {
            None => None,
            Some(pattern) => Some(own_pattern(pattern)?),
        };
        let verdict = Verdict { low: config.scale[0], high: config.scale[1], pattern };
        Ok(Self { config, judge, templates, verdict })
    }
}

fn own_pattern(pattern: &str) -> Result<Regex, ConfigProblem> {
    let problem = |message: String| ConfigProblem::new("pattern", message);
    let regex = Regex::new(pattern).map_err(|error| problem(error.to_string()))?;
    if regex.captures_len() != 2 {
        return Err(problem(format!(
            "must have exactly one group, around the number; `{pattern}` has {}",
            regex.captures_len() - 1
        )));
    }
    Ok(regex)
}

impl JudgeReward {
    /// What the judge is asked about one completion.
    fn question(&self, group: &Group, completion: &str) -> Result<Prompt, String> {
        let conversation = match &group.prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Messages(turns) => {
                let turns: Vec<String> =
                    turns.iter().map(|it| format!("[{}]\n{}", role(it.role), it.content)).collect();
                turns.join("\n\n")
            }
        };
        let values = minijinja::context! {
            prompt => group.prompt.text(),
            conversation => conversation,
            completion => completion,
            columns => minijinja::value::Serde(&group.columns),
            low => shown(self.verdict.low),
            high => shown(self.verdict.high),
        };
        let render = |name: &str| {
            let template = self.templates.get_template(name).map_err(|error| error.to_string())?;
            template.render(&values).map_err(|error| format!("template `{name}`: {error}"))
        };
        let (system, question) = (render("system")?, render("template")?);
        let system = (!system.is_empty()).then_some(Message { role: Role::System, content: system });
        let question = Message { role: Role::User, content: question };
        Ok(Prompt::Messages(system.into_iter().chain([question]).collect()))
    }

    fn score_of(&self, answers: &[String]) -> Score {
        let verdicts: Vec<Result<f64, String>> = answers.iter().map(|it| self.verdict.read(it)).collect();
        let read: Vec<f64> = verdicts.iter().filter_map(|it| it.as_ref().ok().copied()).collect();
        // A minority of unreadable votes is left out; a half or more of them is no verdict.
        if 2 * read.len() <= answers.len() {
            let reason = verdicts.into_iter().find_map(Result::err).unwrap_or_else(|| "no answer".into());
            return Score::error(format!(
                "the judge's verdict is unreadable in {} of {} answers: {reason}",
                answers.len() - read.len(),
                answers.len()
            ));
        }
        let mean = read.iter().sum::<f64>() / read.len() as f64;
        let [low, high] = self.config.scale;
        let value = if self.config.normalise { (mean - low) / (high - low) } else { mean };
        let unreadable = (answers.len() - read.len()) as f64;
        Score::new(value).with("verdict", mean).with("unreadable_votes", unreadable)
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

/// Whole numbers without a point, as a person would write the ends of a scale.
fn shown(value: f64) -> String {
    format!("{value}")
}

impl Reward for JudgeReward {
    fn score(&self, group: &Group) -> Vec<Score> {
        self.score_all(std::slice::from_ref(group)).pop().unwrap_or_default()
    }

    /// One request for every completion of every group.
    fn score_all(&self, groups: &[Group]) -> Vec<Vec<Score>> {
        let questions: Vec<Result<Prompt, String>> = groups
            .iter()
            .flat_map(|group| group.completions.iter().map(|it| self.question(group, &it.text)))
            .collect();
        let asked: Vec<Prompt> = questions.iter().filter_map(|it| it.as_ref().ok().cloned()).collect();
        let sampling = self.config.asking().sampling(self.config.votes);
        let count = asked.len();
        let answers =
            if asked.is_empty() { Ok(Vec::new()) } else { model::generate(&self.judge, asked, &sampling) };
        let answers = answers.and_then(|it| match it.len() == count {
            true => Ok(it),
            false => Err(format!("{} answers to {count} questions", it.len())),
        });
        let mut answers = answers.map(Vec::into_iter);
        let mut scores = questions.into_iter().map(|question| match (question, &mut answers) {
            (Err(error), _) => Score::error(error),
            (Ok(_), Err(error)) => Score::error(format!("the judge failed: {error}")),
            (Ok(_), Ok(answers)) => {
                let texts: Vec<String> =
                    answers.next().unwrap_or_default().into_iter().map(|it| it.text).collect();
                self.score_of(&texts)
            }
        });
        groups.iter().map(|it| scores.by_ref().take(it.completions.len()).collect()).collect()
    }
}

export!(reward: JudgeReward from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::model::Sampling;
    use fthost_plugin_sdk::{Completion, testing};
    use serde_json::{Value, json};
    use std::cell::RefCell;
    use std::rc::Rc;

    type Request = (Model, Vec<Prompt>);

    /// Answers with these texts in turn, and keeps what it was asked.
    struct Judge {
        answers: Vec<&'static str>,
        asked: Rc<RefCell<Vec<Request>>>,
    }

    impl testing::Host for Judge {
        fn generate(
            &mut self,
            model: &Model,
            prompts: &[Prompt],
            sampling: &Sampling,
        ) -> Result<Vec<Vec<Completion>>, String> {
            self.asked.borrow_mut().push((model.clone(), prompts.to_vec()));
            let each = sampling.completions_per_prompt as usize;
            let mut next = || (0..each).map(|_| testing::completion(self.answers.remove(0))).collect();
            Ok(prompts.iter().map(|_| next()).collect())
        }
    }

    fn made(config: Value) -> Result<JudgeReward, ConfigProblem> {
        JudgeReward::try_from(serde_json::from_value::<Config>(config).unwrap())
    }

    #[test]
    fn every_completion_of_every_group_is_judged_in_one_request() {
        let asked = Rc::new(RefCell::new(Vec::new()));
        let host =
            Judge { answers: vec!["Score: 10", "Good. [[1]]", "no idea", "5.5"], asked: asked.clone() };
        let reward = made(json!({"model": "judges.strict"})).unwrap();
        let groups = [
            testing::group(json!({}), &["a", "b"]),
            testing::group(json!({}), &[]),
            testing::group(json!({}), &["c", "d"]),
        ];
        let scores = testing::with_host(host, || reward.score_all(&groups));
        let values: Vec<Vec<Option<f64>>> =
            scores.iter().map(|it| it.iter().map(Score::value).collect()).collect();
        assert_eq!(values, [vec![Some(1.0), Some(0.0)], vec![], vec![None, Some(0.5)]]);
        assert_eq!(scores[0][0].component("verdict"), Some(10.0));
        let asked = asked.borrow();
        assert_eq!(asked.len(), 1);
        assert!(matches!(&asked[0].0, Model::Judge(name) if name == "strict"));
        let question = asked[0].1[0].text();
        assert!(question.contains("?") && question.contains('a') && question.contains("10"), "{question}");
    }

    #[test]
    fn votes_are_averaged_and_a_half_unreadable_is_an_error() {
        let judge = |answers: Vec<&'static str>| Judge { answers, asked: Rc::default() };
        let reward = made(json!({"votes": 3, "temperature": 1.0, "normalise": false})).unwrap();
        let of = |answers| {
            testing::with_host(judge(answers), || reward.score(&testing::group(json!({}), &["a"])))[0].clone()
        };
        let score = of(vec!["Score: 4", "hm", "Score: 8"]);
        assert_eq!((score.value(), score.component("unreadable_votes")), (Some(6.0), Some(1.0)));
        assert_eq!(of(vec!["Score: 4", "hm", "well"]).value(), None);
    }

    #[test]
    fn a_judge_that_fails_is_an_error_and_no_zero() {
        let scores = testing::with_host(testing::Plain, || {
            made(json!({})).unwrap().score(&testing::group(json!({}), &["a", "b"]))
        });
        assert_eq!(scores.iter().map(Score::value).collect::<Vec<_>>(), [None, None]);
        assert!(format!("{:?}", scores[0]).contains("the judge failed"));
    }

    #[test]
    fn a_column_that_the_template_needs_and_a_row_lacks_is_an_error() {
        let reward = made(json!({"template": "{{ columns.rubric }}: {{ completion }}"})).unwrap();
        let host = Judge { answers: vec!["Score: 1"], asked: Rc::default() };
        let groups = [testing::group(json!({}), &["a"]), testing::group(json!({"rubric": "r"}), &["b"])];
        let scores = testing::with_host(host, || reward.score_all(&groups));
        assert_eq!((scores[0][0].value(), scores[1][0].value()), (None, Some(0.0)));
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| made(config).err().unwrap().key;
        assert_eq!(key(json!({"scale": [5, 1]})), "scale");
        assert_eq!(key(json!({"model": "judge.x"})), "model");
        assert_eq!(key(json!({"template": "{{ completion"})), "template");
        assert_eq!(key(json!({"template": "no answer"})), "template");
        assert_eq!(key(json!({"pattern": "score"})), "pattern");
        assert_eq!(key(json!({"votes": 0})), "votes");
        assert_eq!(key(json!({"votes": 2})), "temperature");
    }
}
