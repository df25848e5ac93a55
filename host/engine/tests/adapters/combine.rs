//! Combined adapters against PEFT's `add_weighted_adapter`, and what must hold of any.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_engine::adapters::combine::{Combination, MajoritySign, Weighted, combine};
use fthost_engine::adapters::peft::load_adapter;
use fthost_engine::checkpoint::StoredDtype;
use fthost_engine::checkpoint::safetensors::TensorFiles;
use fthost_engine::checkpoint::write::write_f32;
use fthost_engine::{EngineError, Result};
use tempfile::TempDir;

use super::{logits, peft_agrees};
use crate::models::input_ids;
use crate::support::{Golden, assert_close, golden, tiny_model};

const PREFIX: &str = "base_model.model.";

/// Adapters under `tests/golden/combine`, by name.
fn adapters(weighted: &[(&str, f64)]) -> Vec<Weighted> {
    let one = |(name, weight): &(&str, f64)| Weighted { folder: of_golden(name), weight: *weight };
    weighted.iter().map(one).collect()
}

fn of_golden(name: &str) -> PathBuf {
    golden("combine").join(name)
}

fn combined(weighted: &[(&str, f64)], combination: Combination) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = combine(&adapters(weighted), &combination, None).unwrap();
    made.save(folder.path(), StoredDtype::F32).unwrap();
    folder
}

/// Every tensor of an adapter's folder by its name below the prefix, with its shape.
fn tensors(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let files = TensorFiles::open(folder, vec![folder.join("adapter_model.safetensors")]).unwrap();
    let read = |(name, shape, _): (String, Vec<usize>, String)| {
        let values = files.read(&name, [shape[0], shape[1]]).unwrap().try_into_vec::<f32>().unwrap();
        (name.strip_prefix(PREFIX).unwrap().to_string(), (shape, values))
    };
    files.list().into_iter().map(read).collect()
}

/// What an adapter adds to each weight, `scaling * b a`, `[out, in]`, as the engine loads it.
fn additions(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut model = tiny_model();
    load_adapter(&mut model, folder).unwrap();
    let mut additions = BTreeMap::new();
    for (layer, block) in model.blocks.iter().enumerate() {
        for (name, linear) in block.linears() {
            let Some(lora) = &linear.lora else { continue };
            let product = lora.b.clone().inner().matmul(lora.a.clone().inner()).mul_scalar(lora.scaling);
            additions
                .insert(format!("model.layers.{layer}.{name}"), product.try_into_vec_as::<f32>().unwrap());
        }
    }
    additions
}

#[track_caller]
fn assert_same_additions(got: &Path, expected: &Path, tolerance: f32) {
    let (got, expected) = (additions(got), additions(expected));
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    got.iter().for_each(|(path, values)| assert_close(path, values, &expected[path], tolerance));
}

type Three = [(&'static str, f64); 3];

const THREE: Three = [("first", 0.7), ("second", -0.4), ("third", 0.5)];
const OF_THREE_RANKS: Three = [("first", 0.7), ("second", -0.4), ("wide", 0.5)];

fn ties(majority_sign: MajoritySign) -> Combination {
    Combination::Ties { density: 0.5, majority_sign }
}

fn cases() -> [(&'static str, Three, Combination); 4] {
    [
        ("linear", THREE, Combination::Linear),
        ("ties_total", THREE, ties(MajoritySign::Total)),
        ("ties_frequency", THREE, ties(MajoritySign::Frequency)),
        ("cat", OF_THREE_RANKS, Combination::Cat),
    ]
}

/// The logits of the tiny model with an adapter against those of a golden; f32 on both sides, so 1e-4 as for the base.
fn assert_logits(case: &str, folder: &Path) {
    let path = of_golden(&format!("{case}.safetensors"));
    let mut model = tiny_model();
    load_adapter(&mut model, folder).unwrap();
    let got = logits(&model, &input_ids(&path));
    assert_close(case, &got, &Golden::open(&path).values("logits"), 1e-4);
}

/// Oracle: PEFT 0.21, `tests/golden/generate/combine.py`. Sums of three f32 of order 0.5, so 1e-6. What is combined has other
/// factors, other linears and, of `cat`, other ranks by pattern.
#[test]
fn combined_weights_and_logits_match_peft() {
    for (case, weighted, combination) in cases() {
        let folder = combined(&weighted, combination);
        let expected = Golden::open(&of_golden(&format!("{case}.safetensors")));
        let got = tensors(folder.path());
        let linears = if case == "cat" { 10 } else { 8 };
        assert_eq!(got.len(), 2 * linears, "{case}: q, v, down and up, of `cat` gate, in two layers");
        for (name, (_, values)) in &got {
            assert_close(&format!("{case}: {name}"), values, &expected.values(name), 1e-6);
        }
        assert_logits(case, folder.path());
    }
}

/// Oracle: torch float64 on dense matrices, `tests/golden/generate/combine.py`; products of ranks up to 10 in f32 here, so
/// 1e-6. The ends have other ranks and factors, and linears that only one of them adapts.
#[test]
fn slerp_matches_that_of_dense_matrices() {
    let folder = combined(&[("first", 1.0), ("wide", 1.0)], Combination::Slerp { t: 0.3 });
    let expected = Golden::open(&of_golden("slerp.safetensors"));
    let got = additions(folder.path());
    assert_eq!(got.len(), 8);
    got.iter().for_each(|(path, values)| assert_close(path, values, &expected.values(path), 1e-6));
    assert_logits("slerp", folder.path());
}

/// By every method, of many ranks by patterns. `FTHOST_TEST_PYTHON` names a Python with torch, transformers and peft.
#[test]
fn a_combined_adapter_loads_in_peft_with_equal_logits() {
    let Ok(python) = std::env::var("FTHOST_TEST_PYTHON") else {
        eprintln!(
            "SKIPPED a_combined_adapter_loads_in_peft_with_equal_logits: FTHOST_TEST_PYTHON is not set"
        );
        return;
    };
    let of_peft = cases().map(|(_, weighted, combination)| combined(&weighted, combination));
    let slerp = combined(&[("first", 1.0), ("wide", 1.0)], Combination::Slerp { t: 0.3 });
    let folders: Vec<TempDir> = of_peft.into_iter().chain([slerp]).collect();
    let models: Vec<_> = (folders.iter())
        .map(|folder| {
            let mut model = tiny_model();
            load_adapter(&mut model, folder.path()).unwrap();
            model
        })
        .collect();
    let base = golden("llama/gqa_tied");
    let all: Vec<_> =
        models.iter().zip(&folders).map(|(model, it)| (model, base.as_path(), it.path())).collect();
    peft_agrees(&python, &all, &(3..20).collect::<Vec<_>>());
}

/// `cat` of one adapter, of its halves, and linear of one or of quarters: the root of a quarter is a half, on both sides.
#[test]
fn an_adapter_combined_with_itself_is_itself() {
    for name in ["first", "third", "wide"] {
        let whole = of_golden(name);
        let (one, half, quarter) = ([(name, 1.0)], [(name, 0.5); 2], [(name, 0.25); 2]);
        assert_same_additions(combined(&one, Combination::Cat).path(), &whole, 1e-6);
        assert_same_additions(combined(&half, Combination::Cat).path(), &whole, 1e-6);
        assert_same_additions(combined(&one, Combination::Linear).path(), &whole, 1e-6);
        assert_same_additions(combined(&quarter, Combination::Linear).path(), &whole, 1e-6);
        let itself = combined(&[(name, 1.0); 2], Combination::Slerp { t: 0.3 });
        assert_same_additions(itself.path(), &whole, 1e-6);
    }
}

/// As PEFT's is: the products of one's `B` with the other's `A` count as well.
#[test]
fn linear_halves_of_one_adapter_are_twice_that_adapter() {
    let halves = combined(&[("first", 0.5); 2], Combination::Linear);
    let twice = combined(&[("first", 2.0)], Combination::Cat);
    assert_same_additions(halves.path(), twice.path(), 1e-6);
}

#[test]
fn cat_adds_the_weighted_sum_of_what_the_adapters_add() {
    let folder = combined(&OF_THREE_RANKS, Combination::Cat);
    let mut expected: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (name, weight) in OF_THREE_RANKS {
        for (path, values) in additions(&of_golden(name)) {
            let sum = expected.entry(path).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, it)| *sum += weight as f32 * it);
        }
    }
    let got = additions(folder.path());
    assert_eq!(got.len(), expected.len());
    got.iter().for_each(|(path, values)| assert_close(path, values, &expected[path], 1e-6));
    let ranks = |path: &str| tensors(folder.path())[&format!("model.layers.{path}.lora_A.weight")].0[0];
    assert_eq!(
        ["0.self_attn.q_proj", "0.self_attn.v_proj", "0.mlp.gate_proj", "1.mlp.gate_proj"].map(ranks),
        [4 + 4 + 6, 4 + 4 + 3, 6, 5]
    );
}

#[test]
fn a_density_of_one_drops_nothing() {
    let of = |combination| tensors(combined(&THREE, combination).path());
    let dare = of(Combination::DareLinear { density: 1.0, seed: 1 });
    assert_eq!(dare, of(Combination::Linear));
    let majority_sign = MajoritySign::Frequency;
    let dare = of(Combination::DareTies { density: 1.0, majority_sign, seed: 1 });
    assert_eq!(dare, of(Combination::Ties { density: 1.0, majority_sign }));
    assert_ne!(dare, of(Combination::Linear));
}

/// One adapter, so that what is kept is seen: as the linear combination has it, over the density.
#[test]
fn dare_keeps_about_its_density_and_is_decided_by_its_seed() {
    let dare = |weighted: &[(&str, f64)], seed| {
        tensors(combined(weighted, Combination::DareLinear { density: 0.4, seed }).path())
    };
    let whole = tensors(combined(&[("first", 1.0)], Combination::Linear).path());
    let one = dare(&[("first", 1.0)], 7);
    assert_eq!(one, dare(&[("first", 1.0)], 7));
    assert_ne!(one, dare(&[("first", 1.0)], 8));
    let (mut kept, mut count) = (0, 0);
    for (name, (_, values)) in &one {
        for (value, before) in values.iter().zip(&whole[name].1) {
            count += 1;
            if *value != 0.0 {
                kept += 1;
                assert!((value - before / 0.4).abs() < 1e-6);
            }
        }
    }
    // 1,632 draws: six deviations.
    assert!((f64::from(kept) / f64::from(count) - 0.4).abs() < 0.073, "{kept} of {count}");
    // Each adapter and each tensor has draws of its own: twice the same adapter is not one mask twice.
    let twice = dare(&[("first", 1.0); 2], 7);
    let both = twice
        .iter()
        .flat_map(|(name, it)| it.1.iter().zip(&whole[name].1))
        .filter(|(value, before)| **value != 0.0 && (**value - **before / 0.4).abs() < 1e-6);
    assert!(both.count() > 0, "some values are kept of one of the two alone");
    let of = |name: &str| one[name].1.iter().map(|it| *it != 0.0).collect::<Vec<_>>();
    assert_ne!(
        of("model.layers.0.self_attn.q_proj.lora_A.weight"),
        of("model.layers.1.self_attn.q_proj.lora_A.weight")
    );
}

#[test]
fn slerp_begins_with_the_first_and_ends_with_the_second() {
    let at = |t| combined(&[("first", 1.0), ("third", 1.0)], Combination::Slerp { t });
    assert_same_additions(at(0.0).path(), &of_golden("first"), 1e-6);
    assert_same_additions(at(1.0).path(), &of_golden("third"), 1e-6);
}

/// A folder with the files of `adapter`, its configuration changed by `change`.
fn changed(adapter: &str, change: impl FnOnce(&mut serde_json::Value)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let weights = "adapter_model.safetensors";
    std::fs::copy(golden(adapter).join(weights), folder.path().join(weights)).unwrap();
    let text = std::fs::read(golden(adapter).join("adapter_config.json")).unwrap();
    let mut config = serde_json::from_slice(&text).unwrap();
    change(&mut config);
    std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    folder
}

fn with_first(other: &Path, combination: Combination) -> Result<()> {
    let mut all = adapters(&[("first", 1.0)]);
    all.push(Weighted { folder: other.to_path_buf(), weight: 1.0 });
    combine(&all, &combination, None).map(|_| ())
}

/// The error's text, with folders by their names.
#[track_caller]
fn refused(other: &Path, combination: Combination) -> String {
    let text = with_first(other, combination).unwrap_err().to_string();
    let text = text.replace(&other.display().to_string(), "[other]");
    text.replace(&golden("combine").display().to_string(), "[combine]")
}

#[test]
fn what_has_no_sum_is_refused_by_adapter_and_name() {
    let dora = golden("dora/gqa_tied");
    insta::assert_snapshot!(refused(&dora, Combination::Cat), @r"
    can't combine `[other]`: `use_dora` is on, and the lengths of DoRA are no part of a sum of pairs
    hint: leave this adapter out, or merge it into its base and train the others on that
    ");
    insta::assert_snapshot!(refused(&golden("families/mixtral_lora"), Combination::Cat), @r"
    can't combine `[other]`: `target_parameters` names parameters, and adapters on experts can't be combined, nor can they in PEFT
    hint: leave this adapter out, or merge it into its base
    ");
    let of_ranks = refused(&of_golden("wide"), Combination::Linear);
    insta::assert_snapshot!(of_ranks, @r"
    can't combine `[other]`: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` has rank 6, that of `[combine]/first` has 4
    hint: adapters of different ranks are combined by `cat`, or by `slerp`
    ");
    let of_another = changed("lora", |config| config["base_model_name_or_path"] = "other".into());
    insta::assert_snapshot!(refused(of_another.path(), Combination::Cat), @r"
    can't combine `[other]`: `base_model_name_or_path` is `other`, that of `[combine]/first` is `gqa_tied`
    hint: adapters of one base can be combined; if both names are of one model, give the one to write as `base`
    ");
    let head = changed("combine/second", |config| config["modules_to_save"] = vec!["score"].into());
    insta::assert_snapshot!(refused(head.path(), Combination::Cat), @r"
    can't combine `[other]`: `modules_to_save` names modules that are saved whole, and those have no sum
    hint: combine adapters without a head of their own
    ");
    let begun = changed("combine/second", |config| config["init_lora_weights"] = "pissa_niter_4".into());
    insta::assert_snapshot!(refused(begun.path(), Combination::Cat), @r"
    can't combine `[other]`: `init_lora_weights` changes the base's weights, so the pairs are not the difference to the base that is named
    hint: save the adapter with PEFT's `path_initial_model_for_weight_conversion`, which makes it plain LoRA
    ");
    let ranks = changed("combine/second", |config| config["r"] = 8.into());
    insta::assert_snapshot!(refused(ranks.path(), Combination::Cat), @r"
    can't combine `[other]`: `base_model.model.model.layers.0.mlp.up_proj.lora_A.weight` has shape [4, 32], and `adapter_config.json` says rank 8
    hint: `r` and `rank_pattern` are the ranks of the weights
    ");
    let bias = changed("combine/second", |config| config["bias"] = "all".into());
    assert!(refused(bias.path(), Combination::Cat).contains("`bias` = \"all\" is not supported here"));
}

#[test]
fn a_base_that_is_named_twice_is_one_where_the_caller_says_so() {
    let named =
        changed("combine/second", |config| config["base_model_name_or_path"] = "owner/gqa_tied".into());
    let mut all = adapters(&[("first", 1.0)]);
    all.push(Weighted { folder: named.path().to_path_buf(), weight: 1.0 });
    assert!(matches!(combine(&all, &Combination::Cat, None), Err(EngineError::NotCombined { .. })));
    let out = tempfile::tempdir().unwrap();
    let made = combine(&all, &Combination::Cat, Some("owner/gqa_tied")).unwrap();
    made.save(out.path(), StoredDtype::F32).unwrap();
    let text = std::fs::read_to_string(out.path().join("adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["base_model_name_or_path"], "owner/gqa_tied");
}

/// As files are written: name, shape, values.
type Tensor = (String, Vec<usize>, Vec<f32>);

#[test]
fn tensors_that_are_no_pairs_of_linears_or_not_finite_are_refused() {
    let folder = changed("combine/second", |_| ());
    let path = folder.path().join("adapter_model.safetensors");
    let second = tensors(&of_golden("second"));
    let written = |change: &dyn Fn(&mut Vec<Tensor>)| {
        let named = second
            .iter()
            .map(|(name, (shape, values))| (format!("{PREFIX}{name}"), shape.clone(), values.clone()));
        let mut all = named.collect();
        change(&mut all);
        write_f32(&path, &all).unwrap();
        refused(folder.path(), Combination::Cat)
    };
    insta::assert_snapshot!(written(&|all| all[2].2[3] = f32::NAN), @r"
    can't combine `[other]`: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` holds a value that is not finite at index 3
    hint: leave this adapter out, or save it anew
    ");
    insta::assert_snapshot!(written(&|all| all[0].0 = format!("{PREFIX}model.embed_tokens.lora_embedding_A")), @r"
    can't combine `[other]`: `base_model.model.model.embed_tokens.lora_embedding_A` is no weight of a pair on a linear
    hint: adapters of linears alone can be combined
    ");
    let wider = written(&|all| {
        let (_, shape, values) =
            all.iter_mut().find(|it| it.0.contains("0.self_attn.v_proj.lora_A")).unwrap();
        shape[1] += 1;
        values.resize(shape[0] * shape[1], 0.0);
    });
    insta::assert_snapshot!(wider, @r"
    can't combine `[other]`: `base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight` is of a linear with width 33, in `[combine]/first` of one with 32
    hint: adapters of one base can be combined
    ");
    let error = written(&|all| drop(all.remove(1)));
    assert!(error.contains("lora_B.weight` is missing from `[other]`"), "{error}");
    let shaped = written(&|all| all[0].1.push(1));
    assert!(shaped.contains("and is no matrix"), "{shaped}");
}

#[test]
fn impossible_options_are_told_all_at_once() {
    let told = |weighted: &[(&str, f64)], combination: Combination| {
        let error = combine(&adapters(weighted), &combination, None).unwrap_err().to_string();
        error.replace(&golden("combine").display().to_string(), "[combine]")
    };
    let dare = Combination::DareLinear { density: 0.0, seed: 0 };
    insta::assert_snapshot!(told(&[("first", f64::NAN)], dare), @"invalid combination `dare_linear`: weight of `[combine]/first` is `NaN`; `density` must be in (0, 1], got `0`");
    let slerp = Combination::Slerp { t: 1.5 };
    insta::assert_snapshot!(told(&[("first", 0.5)], slerp), @"invalid combination `slerp`: `t` must be in [0, 1], got `1.5`; `slerp` is of two adapters, got 1; `slerp` has `t` and no weights");
    insta::assert_snapshot!(told(&[], Combination::Cat), @"invalid combination `cat`: there is no adapter");
    insta::assert_snapshot!(told(&[("first", 1e60)], Combination::Cat), @r"
    can't combine `[combine]/first`: `base_model.model.model.layers.0.mlp.down_proj.lora_A.weight` leaves the range of f32
    hint: give smaller weights
    ");
}

/// The smaller types are rounded when they are written, not before.
#[test]
fn a_combined_adapter_is_written_in_the_type_that_is_asked_for() {
    let made = combine(&adapters(&THREE), &Combination::Linear, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    made.save(folder.path(), StoredDtype::Bf16).unwrap();
    let whole = tensors(combined(&THREE, Combination::Linear).path());
    for (name, (_, values)) in tensors(folder.path()) {
        let rounded: Vec<f32> = whole[&name].1.iter().map(|it| half::bf16::from_f32(*it).to_f32()).collect();
        assert_eq!(values, rounded, "{name}");
    }
    assert!(load_adapter(&mut tiny_model(), folder.path()).is_ok());
}
