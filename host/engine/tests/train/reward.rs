//! Reward models: steps over pairs, and folders that others read.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use fthost_data::{Batch, Sequence};
use fthost_engine::Device;
use fthost_engine::adapters::merge::save_merged;
use fthost_engine::adapters::peft::{load_adapter, save_adapter};
use fthost_engine::checkpoint::load_model;
use fthost_engine::checkpoint::write::write_f32;
use fthost_engine::models::{CausalLm, ScoreHead, ScoreRole};
use fthost_engine::objectives::RewardConfig;
use fthost_engine::parallel::Ranks;
use fthost_engine::train::{
    TrainState, attach_reward_head, attach_value_model, evaluate_rewards, reward_step, sequence_rewards,
};

use super::support::{config, full, golden, lora, model, steps};

/// Two rows of the golden as a pair; of two sequences the first is the better one by `margin`.
fn pairs(margin: f32) -> Vec<Batch> {
    let pair = |rows: &Vec<Sequence>| {
        let [chosen, rejected] = &rows[..2] else { unreachable!("two rows a micro-batch") };
        Sequence {
            input_ids: [&chosen.input_ids[..], &rejected.input_ids].concat(),
            labels: [&chosen.labels[..], &rejected.labels].concat(),
            cut: chosen.input_ids.len(),
            judgement: margin,
            origin: chosen.origin.clone(),
        }
    };
    steps()[0].iter().map(|rows| Batch::new([&pair(rows)])).collect()
}

/// Two pairs in one micro-batch or in two; everything is worth 0, so the loss is `-log sigmoid(-margin)`.
#[test]
fn a_step_over_pairs_begins_at_the_loss_of_equals_and_orders_them() {
    for mut state in [lora(), full()] {
        let (pairs, objective) = (pairs(0.5), RewardConfig::default());
        attach_reward_head(&mut state.model);
        let first = reward_step(&mut state, &pairs, &objective, &config(1e-2)).unwrap();
        assert!((first.loss - (1.0 + 0.5_f64.exp()).ln()).abs() < 1e-6, "{}", first.loss);
        assert_eq!(first.figure("accuracy"), Some(0.0), "equal rewards are not ordered");
        for _ in 0..20 {
            reward_step(&mut state, &pairs, &objective, &config(1e-2)).unwrap();
        }
        let found = evaluate_rewards(&state.model, &pairs, &objective, &Ranks::default()).unwrap().unwrap();
        let figure = |name: &str| found.iter().find(|it| it.0 == name).unwrap().1;
        assert_eq!(figure("accuracy"), 1.0);
        assert!(figure("margin") > 0.5 && figure("loss") < first.loss, "{found:?}");
    }
}

#[test]
fn accumulation_equals_one_large_batch_of_pairs() {
    let objective = RewardConfig { center_rewards_coefficient: Some(0.1) };
    let parts = pairs(0.25);
    let whole = {
        let rows: Vec<Sequence> = (0..2)
            .map(|it| {
                let batch = &parts[it];
                Sequence {
                    input_ids: batch.input_ids.clone(),
                    labels: batch.labels.clone(),
                    cut: batch.cu_seqlens[1],
                    judgement: batch.judgements[0],
                    origin: batch.origins[0].clone(),
                }
            })
            .collect();
        vec![Batch::new(&rows)]
    };
    let learn = |batches: &[Batch]| {
        let mut state = lora();
        attach_reward_head(&mut state.model);
        (0..3).map(|_| reward_step(&mut state, batches, &objective, &config(1e-2)).unwrap().loss).collect()
    };
    let (apart, together): (Vec<f64>, Vec<f64>) = (learn(&parts), learn(&whole));
    for (apart, together) in apart.iter().zip(&together) {
        assert!((apart - together).abs() < 1e-5, "{apart} and {together}");
    }
}

/// A reward model whose head is not zero.
fn trained(mut state: TrainState) -> TrainState {
    let weight = (0..32).map(|it| (it as f32 - 15.0) / 20.0).collect::<Vec<f32>>();
    let weight = Tensor::from_data(TensorData::new(weight, [1, 32]), &Device::flex());
    state.model.score = Some(ScoreHead { weight, bias: None, role: ScoreRole::Reward });
    state
}

fn scored(model: &CausalLm) -> Vec<f32> {
    sequence_rewards(model, &pairs(0.0)[0]).unwrap()
}

#[test]
fn a_saved_reward_model_says_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = trained(lora());
    let said = scored(&state.model);
    save_adapter(&mut state.model, state.adapter.as_ref().unwrap(), "base", folder.path()).unwrap();
    let mut loaded = model();
    load_adapter(&mut loaded, folder.path()).unwrap();
    assert_eq!(scored(&loaded), said);

    let mut state = trained(full());
    let said = scored(&state.model);
    save_merged(&mut state.model, &golden("train/model"), folder.path()).unwrap();
    let loaded = load_model(folder.path(), &Device::flex()).unwrap();
    assert_eq!(scored(&loaded), said);
}

/// A value model's head serves training: what a run leaves is a model like any other.
#[test]
fn a_value_models_head_is_not_saved_with_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = lora();
    attach_value_model(&mut state, fthost_engine::objectives::ppo::ValueModel::Shared);
    save_adapter(&mut state.model, state.adapter.as_ref().unwrap(), "base", folder.path()).unwrap();
    let mut loaded = model();
    load_adapter(&mut loaded, folder.path()).unwrap();
    assert!(loaded.score.is_none());
    save_merged(&mut state.model, &golden("train/model"), folder.path()).unwrap();
    assert!(load_model(folder.path(), &Device::flex()).unwrap().score.is_none());
}

fn transformers_agree(python: &str, model: &CausalLm, folder: &Path) {
    let batch = &pairs(0.0)[0];
    let ids = &batch.input_ids[..batch.cu_seqlens[1]];
    let scores = tempfile::tempdir().unwrap();
    let path = scores.path().join("scores.safetensors");
    let tensors = [
        ("input_ids".to_string(), vec![ids.len()], ids.iter().map(|it| *it as f32).collect()),
        ("score".to_string(), vec![1], scored(model)[..1].to_vec()),
    ];
    write_f32(&path, &tensors).unwrap();
    let (script, base) = (golden("generate/check_reward.py"), golden("train/model"));
    let arguments = [script.as_path(), base.as_path(), folder, &path];
    let output = std::process::Command::new(python).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(output.status.success(), "{}", said.concat());
    eprint!("{}", said[0]);
}

/// `FTHOST_TEST_PYTHON` names a Python with torch, transformers and peft.
#[test]
fn a_saved_reward_model_loads_in_transformers_with_equal_scores() {
    let Ok(python) = std::env::var("FTHOST_TEST_PYTHON") else {
        eprintln!(
            "SKIPPED a_saved_reward_model_loads_in_transformers_with_equal_scores: FTHOST_TEST_PYTHON is not set"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut state = trained(lora());
    save_adapter(&mut state.model, state.adapter.as_ref().unwrap(), "base", folder.path()).unwrap();
    transformers_agree(&python, &state.model, folder.path());
    let folder = tempfile::tempdir().unwrap();
    let mut state = trained(full());
    save_merged(&mut state.model, &golden("train/model"), folder.path()).unwrap();
    transformers_agree(&python, &state.model, folder.path());
}
