//! Training checkpoints.

use std::path::Path;

use fthost_engine::Device;
use fthost_engine::adapters::init::LoraInit;
use fthost_engine::adapters::{
    AdapterConfig, Ia3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, TargetModules,
};
use fthost_engine::checkpoint::load_model;
use fthost_engine::checkpoint::training::{
    Best, DataPosition, Progress, begin, latest, list, prune, resume, save,
};
use fthost_engine::optim::adamw::Moments;
use fthost_engine::train::{TrainState, step};

use crate::generate::letters;

use super::support::{
    batches, config, dropped_lora, fresh_lora, full, golden, in_blocks, paged, poison, trained,
};

pub fn progress(epoch: u64) -> Progress {
    Progress {
        seed: 1,
        data: DataPosition { epoch, rows: 3 },
        num_tokens: 120,
        best: Some(Best { metric: "eval_loss".into(), value: 1.5, step: 2 }),
        evaluations_without_improvement: 1,
        penalty: None,
        evaluated: Some(2),
        base_digest: "base".into(),
        config_digest: "config".into(),
    }
}

fn train(state: &mut TrainState, steps: std::ops::Range<usize>) -> Vec<u64> {
    steps.map(|it| step(state, &batches(it), &config(1e-2)).unwrap().loss.to_bits()).collect()
}

/// Bit for bit: losses, weights, moments and counters, for every place to stop at.
#[test]
fn resume_equals_uninterrupted() {
    for begin in [full as fn() -> TrainState, || fresh_lora(5), || dropped_lora(0.2, 1), in_blocks, paged] {
        let mut uninterrupted = begin();
        let losses = train(&mut uninterrupted, 0..8);
        for stop in [0, 1, 3, 7, 8] {
            let folder = tempfile::tempdir().unwrap();
            let mut first = begin();
            train(&mut first, 0..stop);
            let path = save(folder.path(), &mut first, &progress(4), "base").unwrap();
            drop(first);
            let mut second = begin();
            assert_eq!(resume(&path, &mut second, &progress(0)).unwrap(), progress(4));
            assert_eq!(second.step, stop as u64);
            assert_eq!(train(&mut second, stop..8), losses[stop..]);
            assert_eq!(trained(&second), trained(&uninterrupted));
            assert_eq!(second.optimizer.updates, uninterrupted.optimizer.updates);
            for (name, moments) in &second.optimizer.moments {
                let bits = |it: &burn::tensor::Tensor<1>| it.clone().try_into_vec_as::<f32>().unwrap();
                match (moments, &uninterrupted.optimizer.moments[name]) {
                    (Moments::F32(it), Moments::F32(other)) => {
                        assert_eq!(bits(&it.first), bits(&other.first), "{name}");
                        assert_eq!(bits(&it.second), bits(&other.second), "{name}");
                    }
                    (Moments::Blocks(it), Moments::Blocks(other)) => assert!(it == other, "{name}"),
                    (Moments::Paged(it), Moments::Paged(other)) => {
                        assert!(it.halves() == other.halves(), "{name}")
                    }
                    _ => panic!("{name} is stored in another way"),
                }
            }
        }
    }
}

/// As above, of every kind of adapter: what a pair began with, pairs of experts that PEFT's file holds together, weights that
/// are trained whole, keys and values of all blocks in one tensor, and a network that makes them, which PEFT's file lacks.
#[test]
fn every_adapter_is_resumed() {
    let lora = |config: LoraConfig| AdapterConfig::Lora(LoraConfig { rank: 4, ..config });
    let saved = |modules: &[&str]| {
        let modules_to_save = modules.iter().map(ToString::to_string).collect();
        let target_modules = TargetModules::Names(vec!["v_proj".into(), "attn.c_proj".into()]);
        LoraConfig { modules_to_save, target_modules, ..LoraConfig::default() }
    };
    let tied = LoraConfig { ensure_weight_tying: true, ..saved(&["lm_head"]) };
    let before = LoraInit::Pissa;
    let projected = PrefixTuningConfig { prefix_projection: true, ..PrefixTuningConfig::default() };
    let cases = [
        ("llama/bias_untied", lora(LoraConfig { init_lora_weights: before, ..LoraConfig::default() })),
        ("llama/gqa_tied", lora(LoraConfig { use_dora: true, ..LoraConfig::default() })),
        ("families/mixtral", lora(LoraConfig::default())),
        ("families/qwen3_moe", lora(LoraConfig::default())),
        ("llama/gqa_tied", lora(saved(&["embed_tokens", "norm"]))),
        ("llama/gqa_tied", lora(tied)),
        ("families/gpt2", lora(saved(&["mlp.c_fc", "wpe", "ln_f"]))),
        ("llama/bias_untied", AdapterConfig::Ia3(Ia3Config::default())),
        ("llama/gqa_tied", AdapterConfig::PromptTuning(PromptTuningConfig::default())),
        ("families/gpt2", AdapterConfig::PrefixTuning(PrefixTuningConfig::default())),
        ("llama/gqa_tied", AdapterConfig::PrefixTuning(projected)),
    ];
    for (base, adapter) in cases {
        let begin = || {
            let mut model = load_model(&golden(base), &Device::flex()).unwrap();
            adapter.attach(&mut model, 3, &letters()).unwrap();
            TrainState::new(model, Some(adapter.clone()))
        };
        let mut uninterrupted = begin();
        let losses = train(&mut uninterrupted, 0..4);
        assert_ne!(trained(&uninterrupted), trained(&begin()), "{base}, {adapter:?} learns nothing");
        let folder = tempfile::tempdir().unwrap();
        let mut first = begin();
        train(&mut first, 0..2);
        let path = save(folder.path(), &mut first, &progress(4), "base").unwrap();
        let mut second = begin();
        resume(&path, &mut second, &progress(0)).unwrap();
        assert_eq!(train(&mut second, 2..4), losses[2..], "{base}, {adapter:?}");
        assert_eq!(trained(&second), trained(&uninterrupted), "{base}, {adapter:?}");
    }
}

/// Names and bytes of everything in `folder`.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |it: std::fs::DirEntry| {
        (it.file_name().to_string_lossy().into_owned(), std::fs::read(it.path()).unwrap())
    };
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|it| read(it.unwrap())).collect();
    files.sort();
    files
}

/// Byte for byte what is written while the run waits, though steps go on; and the steps are not another's for it.
#[test]
fn what_is_written_beside_steps_is_of_the_step_at_which_it_began() {
    for new in [full as fn() -> TrainState, || fresh_lora(5), in_blocks, paged] {
        let (waited, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut first, mut second) = (new(), new());
        train(&mut first, 0..3);
        let expected = save(waited.path(), &mut first, &progress(4), "base").unwrap();
        train(&mut second, 0..3);
        let saving = begin(beside.path(), &mut second, &progress(4), "base").unwrap().unwrap();
        assert_eq!(latest(beside.path()).unwrap(), None, "it is whole or not there");
        assert_eq!(train(&mut second, 3..6), train(&mut first, 3..6));
        assert_eq!(trained(&second), trained(&first));
        while !saving.is_written().unwrap() {
            std::thread::yield_now();
        }
        let path = saving.finish(&mut second).unwrap();
        assert_eq!(files(&path), files(&expected));
        assert_eq!(second.last_checkpoint, Some(path.clone()));
        assert_eq!(std::fs::read_dir(beside.path()).unwrap().count(), 1, "nothing else is left");
        // It is never taken away to be written again.
        let mut resumed = new();
        resume(&path, &mut resumed, &progress(0)).unwrap();
        assert_eq!(begin(beside.path(), &mut resumed, &progress(4), "base").unwrap().err(), Some(path));
    }
}

/// Of a run that fails while a checkpoint is written the checkpoint is there; one that can't be finished leaves nothing.
#[test]
fn a_checkpoint_that_nobody_waits_for_is_whole_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = fresh_lora(5);
    train(&mut state, 0..2);
    drop(begin(folder.path(), &mut state, &progress(4), "base").unwrap().unwrap());
    let mut resumed = fresh_lora(5);
    resume(&folder.path().join("checkpoint-2"), &mut resumed, &progress(0)).unwrap();
    assert_eq!(trained(&resumed), trained(&state));
    train(&mut state, 2..3);
    let saving = begin(folder.path(), &mut state, &progress(4), "base").unwrap().unwrap();
    while !saving.is_written().unwrap() {
        std::thread::yield_now();
    }
    let hidden = |it: &std::fs::DirEntry| it.file_name().to_string_lossy().starts_with(".checkpoint-");
    let entries = || std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    std::fs::remove_dir_all(entries().find(hidden).unwrap().path()).unwrap();
    let error = saving.finish(&mut state).unwrap_err().to_string();
    assert!(error.contains("can't write"), "{error}");
    assert_eq!(entries().count(), 1, "the earlier one");
}

#[test]
fn a_damaged_or_foreign_checkpoint_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = fresh_lora(5);
    train(&mut state, 0..2);
    let path = save(folder.path(), &mut state, &progress(0), "base").unwrap();
    let mut fresh = fresh_lora(5);
    let before = trained(&fresh);
    let mut refused = |expected: &Progress| resume(&path, &mut fresh, expected).unwrap_err().to_string();
    let other_base = refused(&Progress { base_digest: "other".into(), ..progress(0) });
    assert!(other_base.contains("checkpoint-2") && other_base.contains("another base model"), "{other_base}");
    let other_config = refused(&Progress { config_digest: "other".into(), ..progress(0) });
    assert!(other_config.contains("another configuration"), "{other_config}");
    let other_seed = refused(&Progress { seed: 9, ..progress(0) });
    assert!(other_seed.contains("another seed"), "{other_seed}");

    let file = path.join("optimizer.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let damaged = refused(&progress(0));
    assert!(damaged.contains("`optimizer.safetensors` is damaged"), "{damaged}");
    std::fs::write(path.join("trainer_state.json"), "{").unwrap();
    assert!(refused(&progress(0)).contains("trainer_state.json"));
    assert_eq!((trained(&fresh), fresh.step), (before, 0), "the state is untouched");
    assert!(resume(&path, &mut full(), &progress(0)).is_err());
}

#[test]
fn the_newest_and_the_best_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(latest(&folder.path().join("absent")).unwrap(), None);
    let mut state = fresh_lora(5);
    for step in [1, 2, 9, 10, 100] {
        state.step = step;
        save(folder.path(), &mut state, &progress(0), "base").unwrap();
    }
    // What a run killed while saving leaves behind, and a folder of someone else.
    std::fs::create_dir(folder.path().join(".checkpoint-abc")).unwrap();
    std::fs::create_dir(folder.path().join("checkpoint-200")).unwrap();
    prune(folder.path(), 2, Some(2)).unwrap();
    let kept: Vec<u64> = list(folder.path()).unwrap().into_iter().map(|it| it.0).collect();
    assert_eq!(kept, [2, 10, 100]);
    assert!(latest(folder.path()).unwrap().unwrap().ends_with("checkpoint-100"));
    save(folder.path(), &mut state, &progress(1), "base").unwrap();
    assert_eq!(list(folder.path()).unwrap().len(), 3, "one of the same step is replaced");
}

#[test]
fn a_step_that_is_not_finite_names_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = fresh_lora(5);
    train(&mut state, 0..2);
    save(folder.path(), &mut state, &progress(0), "base").unwrap();
    poison(&mut state, "lora_B.weight", f32::INFINITY);
    let error = step(&mut state, &batches(2), &config(1e-2)).unwrap_err().to_string();
    assert!(error.contains("step 3") && error.contains("checkpoint-2`"), "{error}");
}
