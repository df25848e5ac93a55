//! Models that ranks share train as one process does.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use fthost_data::Batch;
use fthost_engine::Device;
use fthost_engine::adapters::{
    Ia3Config, LoraConfig, PrefixTuningConfig, TargetModules, attach_ia3, attach_lora, attach_prefix,
};
use fthost_engine::checkpoint::training::{latest, resume, save};
use fthost_engine::checkpoint::{LoadConfig, SaveConfig, load_model, load_model_as, load_shared, save_model};
use fthost_engine::models::{CausalLm, Parameter, ScoreHead, ScoreRole};
use fthost_engine::nn::FloatDtype;
use fthost_engine::objectives::PpoConfig;
use fthost_engine::objectives::ppo::ValueModel;
use fthost_engine::optim::{AdamW, MomentStorage};
use fthost_engine::parallel::{Collective, Ranks, mpi};
use fthost_engine::quant::QuantConfig;
use fthost_engine::shard::{Mesh, Offload, ParallelConfig, Zero};
use fthost_engine::train::step as take_step;
use fthost_engine::train::{
    ActivationCheckpointing, PpoBatch, StepConfig, StepMetrics, TrainState, attach_value_model, batch_logps,
    ppo_step,
};

use super::launch::{launchers, under};
use crate::train::resume::progress;
use crate::train::support::{config, golden, steps};

/// Numbers are of order 1 and sums are taken in another order: 1e-6 of what is compared, or of 1. An update of the learning rate,
/// 1e-3, divides by the gradient's own size: of one that is nearly 0 the order of sums moves it by some thousandths.
const TOLERANCE: f64 = 5e-6;
/// A moment that differs in its last bit may be rounded to another code, which moves an update of the learning rate, 1e-3, by some
/// hundredths of it: a tenth of it in all.
const TOLERANCE_OF_BLOCKS: f64 = 1e-4;
/// The kind whose moments are in blocks of 8 bits.
const BLOCKS: &str = "blocks";

fn folder() -> std::path::PathBuf {
    golden("train/model")
}

/// Kinds of training, each from the model of a folder.
const KINDS: [&str; 9] = ["full", BLOCKS, "lora", "dropout", "nf4", "saved", "ia3", "prefix", "bf16"];

fn begun(kind: &str) -> TrainState {
    let lora = |model: &mut CausalLm, change: &dyn Fn(&mut LoraConfig)| {
        let mut config = LoraConfig { rank: 4, ..LoraConfig::default() };
        change(&mut config);
        attach_lora(model, &config, 3).unwrap();
        Some(config.into())
    };
    let load = |load: LoadConfig| load_model_as(&folder(), &Device::flex(), &load).unwrap();
    let mut model = load(LoadConfig::default());
    let adapter = match kind {
        "full" | BLOCKS => None,
        "lora" => lora(&mut model, &|_| ()),
        "dropout" => lora(&mut model, &|it| it.dropout = 0.3),
        "nf4" => {
            model.pack(&QuantConfig::Nf4(Default::default()));
            lora(&mut model, &|_| ())
        }
        "saved" => lora(&mut model, &|it| {
            it.modules_to_save = vec!["embed_tokens".into(), "mlp.up_proj".into()];
            it.target_modules = TargetModules::Names(vec!["q_proj".into()]);
        }),
        "ia3" => {
            let config = Ia3Config::default();
            attach_ia3(&mut model, &config).unwrap();
            Some(fthost_engine::adapters::AdapterConfig::Ia3(config))
        }
        "prefix" => {
            let config = PrefixTuningConfig {
                num_virtual_tokens: 3,
                prefix_projection: true,
                ..PrefixTuningConfig::default()
            };
            attach_prefix(&mut model, &config, 5).unwrap();
            Some(fthost_engine::adapters::AdapterConfig::PrefixTuning(config))
        }
        "bf16" => {
            model = load(LoadConfig { dtype: FloatDtype::Bf16, ..LoadConfig::default() });
            lora(&mut model, &|_| ())
        }
        _ => unreachable!("named above"),
    };
    let mut state = TrainState::new(model, adapter);
    state.seed = 7;
    if kind == BLOCKS {
        state.optimizer = AdamW::new(MomentStorage::Blocks { min_8bit_size: 256 });
    }
    state
}

/// Micro-batches of every golden step, the longer ones cut in two: more than ranks, and no multiple of them.
fn micro_batches() -> Vec<Vec<Batch>> {
    let cut = |step: Vec<Vec<_>>| {
        step.into_iter().flat_map(|micro| micro.into_iter().map(|row| Batch::new([&row]))).collect()
    };
    steps().into_iter().map(cut).collect()
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.try_into_vec_as().unwrap()
}

/// Every weight of the base and every other one that is trained.
fn weights(model: &CausalLm) -> BTreeMap<String, Vec<f32>> {
    let (mut model, mut all) = (model.clone(), BTreeMap::new());
    let mut visit = |name: &str, it: Parameter<'_>| all.extend([(name.to_string(), it.to_f32().1)]);
    model.visit_trained(&mut visit);
    model.visit_base(&mut visit);
    all
}

#[track_caller]
fn assert_equal(what: &str, got: f64, expected: f64) {
    let tolerance = if what.contains(BLOCKS) { TOLERANCE_OF_BLOCKS } else { TOLERANCE };
    let bound = tolerance * expected.abs().max(1.0);
    assert!((got - expected).abs() <= bound, "{what}: {got} for {expected}");
}

fn assert_equal_weights(what: &str, got: &CausalLm, expected: &CausalLm) {
    let (got, expected) = (weights(got), weights(expected));
    assert_eq!(got.len(), expected.len(), "{what}");
    for (name, expected) in &expected {
        let got = &got[name];
        assert_eq!(got.len(), expected.len(), "{what}: {name}");
        for (got, expected) in got.iter().zip(expected) {
            assert_equal(&format!("{what}: {name}"), f64::from(*got), f64::from(*expected));
        }
    }
}

/// Trains one state alone and the other on all ranks, and compares.
fn compare(what: &str, mut alone: TrainState, mut shared: TrainState, ranks: &Ranks, config: &StepConfig) {
    let held_out = &micro_batches()[0][0];
    for (index, batches) in micro_batches().iter().enumerate() {
        let what = format!("{what}, step {index}");
        let expected = take_step(&mut alone, batches, config).unwrap();
        let got = take_step(&mut shared, batches, config).unwrap();
        assert_equal(&format!("{what}: loss"), got.loss, expected.loss);
        assert_equal(&format!("{what}: norm"), got.grad_norm, expected.grad_norm);
        assert!(expected.grad_norm > 1e-3, "{what}: something is learned");
        let [got, expected] = [&shared, &alone].map(|it| values(batch_logps(&it.model, held_out, 1.0).logps));
        for (got, expected) in got.into_iter().zip(expected) {
            assert_equal(&format!("{what}: log-probability"), got.into(), expected.into());
        }
    }
    assert_equal_weights(what, &shared.model.whole(), &alone.model);
    ranks.barrier().unwrap();
}

fn meshes(size: usize) -> Vec<(String, ParallelConfig)> {
    let shared = ParallelConfig { data_parallel_shard: -1, data_parallel_replicate: 1, ..Default::default() };
    let mut meshes = vec![
        ("zero 3".to_string(), shared.clone()),
        ("zero 2".into(), ParallelConfig { zero: Zero::Two, ..shared.clone() }),
        ("zero 1".into(), ParallelConfig { zero: Zero::One, ..shared.clone() }),
        ("kept".into(), ParallelConfig { reshard_after_forward: false, ..shared.clone() }),
        ("offloaded".into(), ParallelConfig { offload: Offload::All, ..shared.clone() }),
    ];
    if size == 4 {
        let hybrid = ParallelConfig { data_parallel_replicate: 2, ..shared };
        meshes.push(("hybrid".into(), hybrid.clone()));
        meshes.push(("hybrid zero 2".into(), ParallelConfig { zero: Zero::Two, ..hybrid }));
    }
    meshes
}

fn sharing(state: &mut TrainState, mesh: &Mesh, ranks: &Ranks) {
    state.share(mesh);
    state.ranks = mesh.ranks(ranks);
}

/// What every rank does, started by [`ranks_that_share_train_what_one_process_does`].
#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank_that_shares() {
    let ranks = Ranks::new(mpi::Mpi::open().unwrap());
    for (named, parallel) in meshes(ranks.size()) {
        let mesh = parallel.mesh(&ranks).unwrap().expect("it is shared");
        for kind in KINDS {
            let what = format!("{named}, {kind} on {}", ranks.size());
            let (alone, mut shared) = (begun(kind), begun(kind));
            sharing(&mut shared, &mesh, &ranks);
            assert_equal_weights(&what, &shared.model.whole(), &alone.model);
            let mut config = config(1e-3);
            compare(&what, alone, shared.clone(), &ranks, &config);
            if kind == "lora" {
                config.activation_checkpointing = ActivationCheckpointing::Block;
                compare(&format!("{what}, checkpointed"), begun(kind), shared, &ranks, &config);
            }
        }
    }
    if ranks.global_rank() == 0 {
        println!("under {}", ranks.name());
    }
}

/// Full fine-tuning, adapters of every kind, packed and bf16 weights, ZeRO 1 to 3, kept and let go of, hybrid.
#[test]
fn ranks_that_share_train_what_one_process_does() {
    for launcher in launchers("ranks_that_share_train_what_one_process_does").into_iter().take(1) {
        for size in [2, 3, 4] {
            under(launcher.command(size), "parallel::shard::as_a_rank_that_shares");
        }
    }
}

fn families() -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = ["llama", "families"]
        .iter()
        .flat_map(|it| std::fs::read_dir(golden(it)).unwrap().map(|it| it.unwrap().path()))
        .filter(|it| it.join("config.json").exists())
        .collect();
    found.sort();
    found
}

/// What every rank does, started by [`every_family_is_shared_as_it_is_read`].
#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank_that_reads() {
    let ranks = Ranks::new(mpi::Mpi::open().unwrap());
    let config = ParallelConfig { data_parallel_shard: -1, ..Default::default() };
    let mesh = ParallelConfig { data_parallel_replicate: 1, ..config }.mesh(&ranks).unwrap().unwrap();
    for folder in families() {
        let what = folder.display().to_string();
        let expected = load_model(&folder, &Device::flex()).unwrap();
        for to_train in [false, true] {
            let load = LoadConfig { to_train, ..LoadConfig::default() };
            let mut model = load_shared(&folder, &Device::flex(), &load, &mesh).unwrap();
            assert!(model.is_hollow());
            let weight: Vec<f32> = model.norm.weight.clone().try_into_vec_as().unwrap();
            assert!(weight.iter().all(|it| it.is_nan()), "nothing is left behind");
            assert_equal_weights(&what, &model.whole(), &expected);
            // Trained with a head that was not there when it was read.
            let (width, device) = (model.config.hidden_size, model.device());
            model.score = Some(ScoreHead::zeros(ScoreRole::Value, width, &device));
            model.share(&mesh);
            assert_equal_weights(&what, &CausalLm { score: None, ..model.whole() }, &expected);
        }
    }
    ranks.barrier().unwrap();
}

#[test]
fn every_family_is_shared_as_it_is_read() {
    assert!(families().len() > 10 && families().iter().any(|it| it.ends_with(Path::new("gqa_tied"))));
    for launcher in launchers("every_family_is_shared_as_it_is_read").into_iter().take(1) {
        under(launcher.command(3), "parallel::shard::as_a_rank_that_reads");
    }
}

/// Numbers of ranks, and the steps that so many do before as many as stand next go on: alone, 4, 2, alone, 3.
const RELAY: [(usize, std::ops::Range<usize>); 5] = [(1, 0..1), (4, 1..3), (2, 3..5), (1, 5..6), (3, 6..8)];

/// What every rank of one leg does, started by [`any_number_of_ranks_goes_on_from_any_other`].
#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank_that_goes_on() {
    let ranks = Ranks::new(mpi::Mpi::open().unwrap());
    let variable = |name: &str| std::env::var(name).unwrap();
    let (place, leg) =
        (variable("FTHOST_TEST_FOLDER"), variable("FTHOST_TEST_LEG").parse::<usize>().unwrap());
    let steps = RELAY[leg].1.clone();
    let (config, batches) = (config(1e-3), micro_batches());
    for kind in ["full", BLOCKS, "lora", "prefix", "saved", "values"] {
        let (what, folder) = (format!("{kind}, leg {leg}"), Path::new(&place).join(kind));
        let begun = || match kind {
            "values" => {
                let mut state = begun("lora");
                attach_value_model(&mut state, ValueModel::Copy);
                state
            }
            kind => begun(kind),
        };
        let (mut alone, mut own) = (begun(), begun());
        let shared =
            ParallelConfig { data_parallel_shard: -1, data_parallel_replicate: 1, ..Default::default() };
        match shared.mesh(&ranks).unwrap() {
            Some(mesh) => sharing(&mut own, &mesh, &ranks),
            None => own.ranks = ranks.clone(),
        }
        if leg > 0 {
            let checkpoint = latest(&folder).unwrap().unwrap();
            resume(&checkpoint, &mut own, &progress(0)).unwrap();
            assert_eq!(own.step, steps.start as u64);
        }
        let trained = |state: &mut TrainState, step: usize| match kind {
            "values" => values_step(state, &batches[step], &config),
            _ => take_step(state, &batches[step], &config).unwrap(),
        };
        for step in 0..steps.end {
            let expected = trained(&mut alone, step);
            if steps.contains(&step) {
                let got = trained(&mut own, step);
                assert_equal(&format!("{what}: loss"), got.loss, expected.loss);
                assert_equal(&format!("{what}: norm"), got.grad_norm, expected.grad_norm);
            }
        }
        assert_equal_weights(&what, &own.model.whole(), &alone.model);
        save(&folder, &mut own, &progress(0), "base").unwrap();
        ranks.barrier().unwrap();
    }
}

/// A step in which the model and a value model beside it learn.
fn values_step(state: &mut TrainState, batches: &[Batch], config: &StepConfig) -> StepMetrics {
    let of = |batch: &Batch| {
        let tokens = batch.targets().positions.len();
        let each = |of: fn(usize) -> f32| (0..tokens).map(of).collect::<Vec<f32>>();
        PpoBatch {
            batch: batch.clone(),
            old: each(|it| -1.0 - it as f32 / 8.0),
            advantages: each(|it| it as f32 / 4.0 - 1.0),
            values: each(|_| 0.0),
            returns: each(|it| 0.5 - it as f32 / 8.0),
        }
    };
    let batches: Vec<PpoBatch> = batches.iter().map(of).collect();
    ppo_step(state, &batches, &PpoConfig::default(), 1.0, false, config).unwrap()
}

/// What was saved by so many is gone on from by any other number, weights and moments, as if nothing had happened.
#[test]
fn any_number_of_ranks_goes_on_from_any_other() {
    for launcher in launchers("any_number_of_ranks_goes_on_from_any_other").into_iter().take(1) {
        let folder = tempfile::tempdir().unwrap();
        for (leg, (size, _)) in RELAY.iter().enumerate() {
            let mut command = launcher.command(*size);
            command.env("FTHOST_TEST_FOLDER", folder.path()).env("FTHOST_TEST_LEG", leg.to_string());
            under(command, "parallel::shard::as_a_rank_that_goes_on");
        }
        // Four ranks write four files of about one size, and an adapter that others read.
        let files = |kind: &str| {
            let checkpoint = folder.path().join(kind).join("checkpoint-3");
            std::fs::read_dir(checkpoint).unwrap().map(|it| it.unwrap()).collect::<Vec<_>>()
        };
        let sizes: Vec<u64> = files("full")
            .iter()
            .filter(|it| it.file_name().to_string_lossy().starts_with("shard-"))
            .map(|it| it.metadata().unwrap().len())
            .collect();
        assert!(
            sizes.len() == 4 && sizes.iter().max() < sizes.iter().min().map(|it| it * 3 / 2).as_ref(),
            "{sizes:?}"
        );
        let has = |name: &str| files("lora").iter().any(|it| it.file_name() == name);
        assert!(has("adapter_model.safetensors") && has("adapter_config.json") && has("shards.index.json"));
    }
}

/// What every rank does, started by [`a_shared_model_is_written_as_a_whole_one`].
#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank_that_writes() {
    let ranks = Ranks::new(mpi::Mpi::open().unwrap());
    let place = std::env::var("FTHOST_TEST_FOLDER").unwrap();
    let shared = ParallelConfig { data_parallel_shard: -1, data_parallel_replicate: 1, ..Default::default() };
    let mesh = shared.mesh(&ranks).unwrap().unwrap();
    for (index, base) in families().into_iter().enumerate() {
        let load = LoadConfig { to_train: true, ..LoadConfig::default() };
        let mut model = load_shared(&base, &Device::flex(), &load, &mesh).unwrap();
        let folder = Path::new(&place).join(index.to_string());
        save_model(&mut model, &base, &folder, &SaveConfig::default()).unwrap();
        assert!(model.is_hollow());
        ranks.barrier().unwrap();
        let (got, expected) = [&folder, &base].map(|it| load_model(it, &Device::flex()).unwrap()).into();
        assert_equal_weights(&base.display().to_string(), &got, &expected);
    }
}

#[test]
fn a_shared_model_is_written_as_a_whole_one() {
    for launcher in launchers("a_shared_model_is_written_as_a_whole_one").into_iter().take(1) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = launcher.command(2);
        command.env("FTHOST_TEST_FOLDER", folder.path());
        under(command, "parallel::shard::as_a_rank_that_writes");
    }
}
