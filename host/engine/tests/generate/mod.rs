//! Generation: goldens against transformers, and what must hold however sequences share a batch.

mod smollm2;

use fthost_data::{Finish, Tokenizer};
use fthost_engine::Device;
use fthost_engine::adapters::peft::load_adapter;
use fthost_engine::checkpoint::load_model;
use fthost_engine::generate::{Completion, GenerateConfig, generate, generate_groups, logprobs, sample};
use fthost_engine::models::CausalLm;
use fthost_engine::nn::DecodeWeights;
use serde_json::{Value, json};

use crate::support::{Golden, assert_close, golden, tiny_model, whole};

/// A tokenizer of 64 words: the letters, the digits, a space, and `</s>`, which ends a text.
pub fn letters() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let words = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain([' ']).map(|it| it.to_string());
    let words: Vec<String> = words.chain(["</s>".to_string()]).collect();
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| (word.clone(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": {"type": "Fuse"},
        "added_tokens": [{"id": 63, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": " "},
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let mut tokenizer = Tokenizer::load(folder.path()).unwrap();
    tokenizer.eos_ids = Vec::new();
    tokenizer
}

fn ids(value: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(value.clone()).unwrap()
}

fn cases(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(golden("generation").join(path)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn model(name: &str) -> CausalLm {
    model_on(name, &Device::flex())
}

pub fn model_on(name: &str, device: &Device) -> CausalLm {
    load_model(&golden("llama").join(name), device).unwrap()
}

pub fn prompts() -> Vec<Vec<u32>> {
    vec![vec![5, 17, 3], vec![60, 2, 9, 33, 8, 1, 1, 30], vec![41], vec![7, 7, 7, 50]]
}

fn sampling() -> GenerateConfig {
    GenerateConfig { max_new_tokens: 20, temperature: 1.0, seed: 3, ..GenerateConfig::default() }
}

/// Oracle: transformers 5.23 in f32, `tests/golden/generate/generation.py`, which refuses near ties.
#[test]
fn greedy_ids_match_transformers() {
    let tokenizer = letters();
    for case in cases("greedy.json") {
        let (prompts, expected) = (ids(&case["prompts"]), ids(&case["completions"]));
        let config = GenerateConfig {
            max_new_tokens: expected[0].len(),
            repetition_penalty: case["repetition_penalty"].as_f64().unwrap(),
            ..GenerateConfig::default()
        };
        let model = model(case["model"].as_str().unwrap());
        for max_batch in [1, 3, 4] {
            let got = generate(&model, &tokenizer, &prompts, &config, max_batch).unwrap();
            let got: Vec<Vec<u32>> = got.into_iter().map(|it| it[0].token_ids.clone()).collect();
            assert_eq!(got, expected, "{} at {max_batch}", case["model"]);
        }
    }
}

/// Oracle: the processors of transformers 5.23, as above. Probabilities in f32: 1e-6.
#[test]
fn filtered_distributions_match_transformers() {
    let golden = Golden::open(&golden("generation/warpers.safetensors"));
    let logits = golden.values("logits");
    for (index, case) in cases("warpers.json").into_iter().enumerate() {
        let config: GenerateConfig = serde_json::from_value(case.clone()).unwrap();
        let mut got = logits.clone();
        for row in got.chunks_mut(600) {
            sample::warp(row, &config);
            let sum: f64 = row.iter().map(|it| f64::from(*it).exp()).sum();
            row.iter_mut().for_each(|it| *it = (f64::from(*it).exp() / sum) as f32);
        }
        let expected = golden.values(&format!("probabilities.{index}"));
        assert_close(&case.to_string(), &got, &expected, 1e-6);
        let count = |values: &[f32]| values.iter().filter(|it| **it > 0.0).count();
        assert_eq!(count(&got), count(&expected), "{case}");
    }
}

/// What is compared bit for bit; log-probabilities round differently in products of another size.
fn assert_same(got: &[Vec<Completion>], expected: &[Vec<Completion>]) {
    for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
        assert_eq!(got.token_ids, expected.token_ids);
        assert_eq!((&got.text, got.finish), (&expected.text, expected.finish));
        assert_close("token_logps", &got.token_logps, &expected.token_logps, 1e-4);
    }
}

#[test]
fn sampling_does_not_depend_on_the_batch() {
    let (model, mut tokenizer) = (tiny_model(), letters());
    // Tokens that end a completion early here and there, so that rows change hands.
    tokenizer.eos_ids = vec![0, 11, 22, 33];
    let config = GenerateConfig { completions_per_prompt: 3, top_p: 0.95, ..sampling() };
    let alone = generate(&model, &tokenizer, &prompts(), &config, 1).unwrap();
    let lengths: Vec<usize> = alone.iter().flatten().map(|it| it.token_ids.len()).collect();
    assert!(lengths.iter().any(|it| *it < 20) && lengths.iter().any(|it| *it > 5), "{lengths:?}");
    for max_batch in [2, 3, 5, 12, 100] {
        assert_same(&generate(&model, &tokenizer, &prompts(), &config, max_batch).unwrap(), &alone);
    }
    // The first completion is drawn alike however many there are, and others than it differ from it.
    let one = GenerateConfig { completions_per_prompt: 1, ..config };
    let first: Vec<Vec<Completion>> = alone.iter().map(|it| it[..1].to_vec()).collect();
    assert_same(&generate(&model, &tokenizer, &prompts(), &one, 4).unwrap(), &first);
    assert!(alone.iter().any(|it| it[0].token_ids != it[1].token_ids));
}

#[test]
fn another_seed_gives_another_text() {
    let (model, tokenizer) = (tiny_model(), letters());
    let text = |seed| {
        let config = GenerateConfig { seed, ..sampling() };
        generate(&model, &tokenizer, &prompts(), &config, 4).unwrap()[0][0].text.clone()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

/// What sampling reports is what the training side's forward pass says of the same tokens, with adapters as without, virtual
/// tokens among them, whose keys and values all sequences share. Logits of order 10 in f32: 1e-4.
#[test]
fn token_logps_are_those_of_a_forward_pass() {
    let tokenizer = letters();
    let adapted = |base: &str, adapter: &str| {
        let mut model = load_model(&golden(base), &Device::flex()).unwrap();
        load_adapter(&mut model, &golden(adapter)).unwrap();
        model
    };
    let models = [
        tiny_model(),
        adapted("llama/gqa_tied", "lora"),
        adapted("llama/bias_untied", "adapters/ia3/all"),
        adapted("llama/gqa_tied", "adapters/prompt_tuning/llama"),
        adapted("families/gpt2", "adapters/prompt_tuning/gpt2"),
        adapted("families/mistral", "adapters/prompt_tuning/mistral"),
        adapted("llama/gqa_tied", "adapters/prefix_tuning/llama"),
        adapted("families/gpt2", "adapters/prefix_tuning/gpt2"),
        adapted("families/mistral", "adapters/prefix_tuning/mistral"),
    ];
    for model in models {
        let config = GenerateConfig { temperature: 0.7, top_k: 20, completions_per_prompt: 3, ..sampling() };
        let got = generate(&model, &tokenizer, &prompts(), &config, 4).unwrap();
        let prompts = prompts();
        let each = prompts.iter().zip(&got).flat_map(|(prompt, all)| all.iter().map(move |it| (prompt, it)));
        for (prompt, completion) in each {
            let all = [&prompt[..], &completion.token_ids].concat();
            let logits = model.logits(model.hidden(&whole(&all))).try_into_vec_as::<f32>().unwrap();
            let expected: Vec<f32> = (prompt.len()..all.len())
                .map(|at| {
                    let row: Vec<f64> =
                        logits[(at - 1) * 64..at * 64].iter().map(|it| f64::from(*it) / 0.7).collect();
                    let sum: f64 = row.iter().map(|it| it.exp()).sum();
                    (row[all[at] as usize] - sum.ln()) as f32
                })
                .collect();
            assert_close("token_logps", &completion.token_logps, &expected, 1e-4);
        }
    }
}

/// `logprobs` of what was sampled at temperature 1 is the sum of what sampling reported.
#[test]
fn logprobs_are_the_sums_of_token_logps() {
    let (model, tokenizer) = (tiny_model(), letters());
    let got = generate(&model, &tokenizer, &prompts(), &sampling(), 4).unwrap();
    let mut pairs: Vec<(Vec<u32>, Vec<u32>)> =
        prompts().into_iter().zip(&got).map(|(prompt, it)| (prompt, it[0].token_ids.clone())).collect();
    pairs.insert(1, (vec![4, 5], Vec::new()));
    for max_batch in [1, 2, 8] {
        let mut scored = logprobs(&model, &pairs, max_batch).unwrap();
        let empty = scored.remove(1);
        assert_eq!((empty.sum, empty.token_count), (0.0, 0));
        for (scored, completion) in scored.iter().zip(got.iter().map(|it| &it[0])) {
            let expected: f64 = completion.token_logps.iter().map(|it| f64::from(*it)).sum();
            assert_eq!(scored.token_count as usize, completion.token_ids.len());
            assert!((scored.sum - expected).abs() < 1e-3, "{} is not {expected}", scored.sum);
        }
    }
}

#[test]
fn a_stop_string_is_found_across_tokens_and_cut_off() {
    let (model, tokenizer) = (tiny_model(), letters());
    let free = GenerateConfig { max_new_tokens: 20, ..GenerateConfig::default() };
    let whole = &generate(&model, &tokenizer, &prompts(), &free, 4).unwrap()[1][0];
    assert_eq!((whole.text.len(), whole.finish, whole.end), (20, Finish::Length, None));
    // Three letters, a token each, that do not stand earlier in the text.
    let at = (0..18).find(|at| whole.text.find(&whole.text[*at..at + 3]) == Some(*at) && *at > 3).unwrap();
    let stop = vec!["never".to_string(), whole.text[at..at + 3].to_string()];
    let got = generate(&model, &tokenizer, &prompts(), &GenerateConfig { stop, ..free }, 4).unwrap();
    assert_eq!((got[1][0].text.as_str(), got[1][0].finish), (&whole.text[..at], Finish::Stop));
    assert_eq!(got[1][0].token_ids, whole.token_ids[..at + 3]);
}

#[test]
fn an_end_token_is_no_part_of_the_completion() {
    let (model, mut tokenizer) = (tiny_model(), letters());
    let free = GenerateConfig { max_new_tokens: 20, ..GenerateConfig::default() };
    let whole = generate(&model, &tokenizer, &prompts(), &free, 4).unwrap()[0][0].clone();
    let at = (2..20).find(|at| !whole.token_ids[..*at].contains(&whole.token_ids[*at])).unwrap();
    tokenizer.eos_ids = vec![whole.token_ids[at]];
    let got = &generate(&model, &tokenizer, &prompts()[..1], &free, 4).unwrap()[0][0];
    assert_eq!((&got.token_ids[..], got.finish), (&whole.token_ids[..at], Finish::Stop));
    let end = got.end.unwrap();
    assert_eq!(end.id, whole.token_ids[at]);
    assert_close("end", &[end.logp], &whole.token_logps[at..=at], 1e-4);
    assert_eq!(got.token_logps.len(), at);
}

#[test]
fn a_group_is_handed_over_while_others_still_grow() {
    let (model, tokenizer) = (tiny_model(), letters());
    let config = GenerateConfig {
        max_new_tokens: 5,
        temperature: 1.0,
        completions_per_prompt: 3,
        seed: 3,
        ..GenerateConfig::default()
    };
    let expected = generate(&model, &tokenizer, &prompts(), &config, 64).unwrap();
    // Fewer rows than a group has completions: its prompt waits in the cache for the last of them.
    for max_batch in [1, 2, 4] {
        let mut groups = Vec::new();
        let mut done = |prompt, group: Vec<Completion>| groups.push((prompt, group));
        generate_groups(&model, &tokenizer, &prompts(), &config, max_batch, &mut done).unwrap();
        let order: Vec<usize> = groups.iter().map(|it| it.0).collect();
        if max_batch <= 2 {
            assert!(order.is_sorted(), "at most two groups grow at once: {order:?}");
        }
        groups.sort_by_key(|it| it.0);
        let groups: Vec<Vec<Completion>> = groups.into_iter().map(|it| it.1).collect();
        assert_eq!(groups.len(), expected.len());
        assert_same(&groups, &expected);
    }
}

/// The golden models have a context of 64.
#[test]
fn generation_ends_where_the_context_does() {
    let (model, tokenizer) = (tiny_model(), letters());
    let config = GenerateConfig { max_new_tokens: 100, ..GenerateConfig::default() };
    let lengths = |prompt: usize| {
        let got = generate(&model, &tokenizer, &[vec![9; prompt]], &config, 1).unwrap();
        (got[0][0].token_ids.len(), got[0][0].finish)
    };
    assert_eq!(lengths(60), (5, Finish::Length));
    assert_eq!(lengths(64), (1, Finish::Length));
}

#[test]
fn a_prompt_that_cant_be_continued_is_named() {
    let (model, tokenizer) = (tiny_model(), letters());
    let said = |prompt: Vec<u32>| {
        let prompts = [vec![1], prompt];
        generate(&model, &tokenizer, &prompts, &GenerateConfig::default(), 2).unwrap_err().to_string()
    };
    let errors = [said(Vec::new()), said(vec![1; 65]), said(vec![1, 64])];
    insta::assert_snapshot!(errors.join("\n"), @r"
    prompt 2: it is empty: there is no token to go on from
    prompt 2: 65 tokens do not fit the model's context of 64 (`max_position_embeddings`)
    prompt 2: token id 64 is outside the model's vocabulary of 64
    ");
}

#[test]
fn an_impossible_configuration_is_refused() {
    let (model, tokenizer) = (tiny_model(), letters());
    let config = GenerateConfig { top_p: 0.0, ..GenerateConfig::default() };
    let error = generate(&model, &tokenizer, &prompts(), &config, 1).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"invalid generate: `top_p` must be in (0, 1], got `0`");
    assert!(generate(&model, &tokenizer, &[], &GenerateConfig::default(), 1).unwrap().is_empty());
}

/// Both round a weight by less than a hundredth.
#[test]
fn fewer_bits_move_logits_little() {
    let model = tiny_model();
    let tokenizer = letters();
    let first = |model: &CausalLm| {
        let config = GenerateConfig { max_new_tokens: 1, ..GenerateConfig::default() };
        let logps = prompts().into_iter().map(|prompt| {
            generate(model, &tokenizer, &[prompt], &config, 1).unwrap()[0][0].token_logps.clone()
        });
        logps.flatten().collect::<Vec<f32>>()
    };
    let expected = first(&model);
    for weights in [DecodeWeights::Bf16, DecodeWeights::Int8] {
        let got = first(&model.for_decoding(weights));
        let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 0.0 && worst < 0.05, "{weights:?}: log-probabilities differ by {worst}");
    }
    assert_eq!(first(&model.for_decoding(DecodeWeights::F32)), expected);
}
