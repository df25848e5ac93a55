//! Learning from completions that the policy samples: what every such objective shares. Sampling, scoring, and the cut into
//! optimizer steps and micro-batches; what a completion's score means to each of its tokens is the objective's part.

mod actor;
mod gather;
mod group;

use std::sync::Arc;

use fthost_data::{Batch, Finish, IGNORED, Sequence, Tokenizer};
use fthost_engine::checkpoint::training::Penalty;
use fthost_engine::device::DeviceKind;
use fthost_engine::generate::{Completion, GenerateConfig};
use fthost_engine::models::CausalLm;
use fthost_engine::objectives::segments::parts;
use fthost_engine::parallel::Ranks;
use fthost_engine::train::policy::completion_logps;
use fthost_engine::train::{StepConfig, StepMetrics, TrainState};

use self::actor::{ActorCritic, ActorStep};
use self::gather::{Choice, Gathered, Questions, gather};
use self::group::{GroupRelative, GroupStep};
use crate::config::{Objective, RunConfig};
use crate::error::Result;
use crate::plugins::{Lent, Plugins};
use crate::questions::Question;
use crate::rollout::figures::{completion_figures, reward_figures};
use crate::rollout::{RolledGroup, Rollout, RolloutConfig, RolloutSettings, RolloutTimes, roll_out};
use crate::scores::Scores;

/// The objective, and how completions for it are sampled.
pub(crate) struct Policy<'a> {
    source: Source<'a>,
    learner: Learner<'a>,
}

/// What every objective samples from and is held against.
struct Source<'a> {
    config: &'a RunConfig,
    tokenizer: &'a Tokenizer,
    device: DeviceKind,
    reference: CausalLm,
    /// Optimizer steps planned.
    steps: u64,
}

enum Learner<'a> {
    Group(GroupRelative<'a>),
    Actor(ActorCritic<'a>),
}

/// What one optimizer step learns from.
pub(crate) enum MiniBatch {
    Group(GroupStep),
    Actor(ActorStep),
}

/// A rollout, cut into optimizer steps.
pub(crate) struct Rolled {
    pub(crate) mini_batches: Vec<MiniBatch>,
    /// TRL's names.
    pub(crate) figures: Vec<(String, f64)>,
    /// What was sampled, and what rewards said.
    pub(crate) scores: Scores,
    pub(crate) times: RolloutTimes,
}

/// An optimizer step that was done.
pub(crate) struct Learned {
    pub(crate) metrics: StepMetrics,
    /// Whether what is left of the rollout is better left alone.
    pub(crate) is_enough: bool,
}

/// A completion with what was said of it.
struct Sampled {
    sequence: Sequence,
    /// Log-probabilities of its tokens as they were sampled, its end among them.
    old: Vec<f32>,
    /// Why it ended.
    finish: Finish,
    /// The sum of all rewards; `None` where nothing is learned from it.
    reward: Option<f32>,
}

impl<'a> Policy<'a> {
    /// That of `config`, where its objective samples. `reference` is the model before training, `steps` how many
    /// optimizer steps are planned, `penalty` what a checkpoint says of [`Policy::penalty`].
    pub(crate) fn of(
        config: &'a RunConfig,
        tokenizer: &'a Tokenizer,
        device: DeviceKind,
        reference: &CausalLm,
        steps: u64,
        penalty: Option<Penalty>,
    ) -> Option<Self> {
        let learner = match &config.objective {
            Objective::Grpo(objective) => Learner::Group(GroupRelative { objective }),
            Objective::Ppo(objective) => Learner::Actor(ActorCritic::new(objective, penalty)),
            _ => return None,
        };
        let source = Source { config, tokenizer, device, reference: reference.clone(), steps };
        Some(Self { source, learner })
    }

    /// Prompts of one rollout.
    pub(crate) fn prompts(&self) -> usize {
        self.source.rollout().prompts(&self.source.config.train)
    }

    /// What a run that goes on from here has to know of the penalty.
    pub(crate) fn penalty(&self) -> Option<Penalty> {
        match &self.learner {
            Learner::Group(_) => None,
            Learner::Actor(actor) => actor.penalty(),
        }
    }

    /// Samples for prompts that `draw` gives, so many of the next ones at most, lets rewards score, and cuts what is learned from
    /// into optimizer steps.
    ///
    /// # Errors
    /// A prompt that can't be continued, a reward that fails where that stops the run, and a rollout of which nothing was
    /// scored.
    pub(crate) fn roll_out<'q>(
        &mut self,
        state: &TrainState,
        plugins: &mut Plugins,
        draw: &mut dyn FnMut(usize) -> Questions<'q>,
    ) -> Result<Rolled> {
        let wanted = self.prompts();
        let Self { source, learner } = self;
        let choice = match learner {
            Learner::Group(group) => Choice::of(group.objective, wanted),
            Learner::Actor(_) => None,
        };
        let gathered = gather(source, state, plugins, choice, draw)?;
        let Gathered { rollout: Rollout { groups, scores, times }, sampled, sizes, figures: of_choice } =
            gathered;
        let mut figures = completion_figures(&groups);
        figures.extend(reward_figures(&scores));
        figures.extend(of_choice);
        let mini_batches = match learner {
            Learner::Group(group) => {
                let steps = group.steps(source, &state.ranks, sampled, &sizes, &mut figures)?;
                steps.into_iter().map(MiniBatch::Group).collect()
            }
            Learner::Actor(actor) => {
                let steps = actor.steps(source, state, sampled, &mut figures)?;
                steps.into_iter().map(MiniBatch::Actor).collect()
            }
        };
        Ok(Rolled { mini_batches, figures, scores, times })
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// A loss or gradient that is not finite.
    pub(crate) fn step(
        &self,
        state: &mut TrainState,
        batch: &MiniBatch,
        config: &StepConfig,
    ) -> Result<Learned> {
        let temperature = self.source.rollout().temperature;
        match (&self.learner, batch) {
            (Learner::Group(group), MiniBatch::Group(step)) => {
                let metrics = group.step(state, step, temperature, config)?;
                Ok(Learned { metrics, is_enough: false })
            }
            (Learner::Actor(actor), MiniBatch::Actor(step)) => actor.step(state, step, temperature, config),
            _ => unreachable!("a policy learns from what it has cut"),
        }
    }
}

impl Source<'_> {
    fn rollout(&self) -> &RolloutConfig {
        &self.config.rollout
    }

    /// A rollout of `questions`, after `batch` others for the same step; of several ranks each samples and scores its part.
    ///
    /// # Errors
    /// As [`roll_out`].
    fn sample(
        &self,
        state: &TrainState,
        plugins: &mut Plugins,
        questions: &[(u64, &Question)],
        batch: u64,
    ) -> Result<Rollout> {
        let (config, own) = (self.rollout(), state.ranks.stretch(questions.len()));
        let generation = config.generation(self.config.train.seed, state.step, batch);
        let settings = RolloutSettings {
            generation: GenerateConfig { first_prompt: own.start, ..generation },
            batch_size: config.batch_size,
            tokenizer: self.tokenizer,
            step: state.step,
            steps: self.steps,
        };
        // Tokens are made by the whole model, and by each rank of its own prompts.
        let model = state.model.whole();
        let reference = plugins.ask_the_reference().then(|| self.reference.whole());
        let _lease = plugins.lend(&Lent {
            run: &model,
            reference,
            tokenizer: self.tokenizer,
            batch_size: config.batch_size,
            judges: &self.config.judges,
            device: self.device,
        })?;
        let rollout = roll_out(&model, plugins, &questions[own], &settings)?;
        Ok(state.ranks.merged(rollout)?)
    }

    /// Every completion, in order.
    fn sampled(&self, questions: &[(u64, &Question)], groups: &[RolledGroup]) -> Vec<Sampled> {
        let mut all = Vec::new();
        for ((_, question), group) in questions.iter().zip(groups) {
            for (completion, reward) in group.completions.iter().zip(&group.rewards) {
                let masked = self.rollout().mask_truncated_completions && completion.finish == Finish::Length;
                let reward = reward.filter(|_| !masked).map(|it| it as f32);
                all.push(sampled_of(question, group, completion, reward));
            }
        }
        all
    }

    /// The completions of each optimizer step, and whether it is the first of the rollout.
    fn cut<'s, T>(&self, sampled: &'s [T]) -> impl Iterator<Item = (&'s [T], bool)> + use<'s, T> {
        let (size, iterations) = (self.config.train.global_batch_size(), self.rollout().num_iterations);
        (0..iterations).flat_map(move |iteration| {
            let steps = sampled.chunks(size).enumerate();
            steps.map(move |(index, step)| (step, iteration == 0 && index == 0))
        })
    }

    /// The completions of each micro-batch, by position.
    fn layout<'s>(&self, sampled: impl IntoIterator<Item = &'s Sampled>) -> Vec<Vec<usize>> {
        let rows: Vec<&Sequence> = sampled.into_iter().map(|it| &it.sequence).collect();
        self.config.layout().groups(&rows)
    }

    fn reference_logps(&self, batch: &Batch) -> Vec<f32> {
        completion_logps(&self.reference, batch, self.rollout().temperature)
    }

    /// What `of_batch` says of each completion's tokens.
    ///
    /// # Errors
    /// A rank that can't be reached.
    fn of_each(
        &self,
        ranks: &Ranks,
        sampled: &[Sampled],
        mut of_batch: impl FnMut(&Batch) -> Vec<f32>,
    ) -> Result<Vec<Vec<f32>>> {
        let mut all = vec![Vec::new(); sampled.len()];
        let groups = self.layout(sampled);
        let batches = groups.iter().map(|group| Batch::shared(group.iter().map(|&it| &sampled[it].sequence)));
        let batches: Vec<Batch> = batches.collect();
        let said = ranks.each(&batches, |_, it| of_batch(it))?;
        for (group, values) in groups.into_iter().zip(said) {
            let lengths: Vec<usize> = group.iter().map(|&it| sampled[it].old.len()).collect();
            for (&index, values) in group.iter().zip(parts(&values, &lengths)) {
                all[index] = values.to_vec();
            }
        }
        Ok(all)
    }
}

/// Prompt and completion, its end with it, as one row.
fn sampled_of(
    question: &Question,
    group: &RolledGroup,
    completion: &Completion,
    reward: Option<f32>,
) -> Sampled {
    let mut ids = completion.token_ids.clone();
    let mut old = completion.token_logps.clone();
    if let Some(end) = completion.end {
        ids.push(end.id);
        old.push(end.logp);
    }
    let mut labels = vec![IGNORED; group.prompt_ids.len()];
    labels.extend(ids.iter().map(|it| i64::from(*it)));
    let input_ids = [&group.prompt_ids[..], &ids].concat();
    let origin = Arc::new(question.origin.clone());
    let sequence = Sequence { input_ids, labels, cut: 0, judgement: 0.0, origin };
    Sampled { sequence, old, finish: completion.finish, reward }
}
