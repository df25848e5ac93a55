//! Estimates against the models they are of: names, shapes and counts of every family, bytes of packed weights and moments.

mod scaling;

use fthost_engine::Device;
use fthost_engine::adapters::init::LoraInit;
use fthost_engine::adapters::{
    AdapterConfig, Ia3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, TargetModules, attach_lora,
};
use fthost_engine::checkpoint::gguf::{GgufFile, decoder_config, write_in_place};
use fthost_engine::checkpoint::{LoadConfig, init_model, load_model_as};
use fthost_engine::estimate::{
    BatchTokens, Held, ModelShape, Role, Sampling, Segment, StepShape, forward_flops, generation, moments,
    step_flops, weights,
};
use fthost_engine::models::{CausalLm, DecoderConfig, Parameter};
use fthost_engine::nn::{DecodeWeights, FloatDtype};
use fthost_engine::optim::{AdamW, MomentStorage};
use fthost_engine::quant::{FourBitOptions, Int8Options, QuantConfig};
use fthost_engine::train::ActivationCheckpointing;

use crate::generate::letters;
use crate::support::golden;

/// A folder of each family, and of each way in which its weights differ.
const FAMILIES: [&str; 17] = [
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "llama_yarn",
    "mistral",
    "mixtral",
    "olmo2",
    "phi3",
    "phi3_long",
    "qwen2",
    "qwen2_window",
    "qwen3",
    "qwen3_moe",
    "qwen3_untied",
    "smollm3",
    "mistral_full",
];

fn shape(family: &str) -> ModelShape {
    ModelShape::of(&DecoderConfig::read(&golden("families").join(family).join("config.json")).unwrap())
}

fn model(family: &str) -> CausalLm {
    init_model(&golden("families").join(family), 1, &Device::flex()).unwrap()
}

#[test]
fn every_familys_weights_are_those_of_its_visitor() {
    for family in FAMILIES {
        let (mut expected, shape) = (Vec::new(), shape(family));
        model(family).visit_base(&mut |name, parameter| expected.push((name.to_string(), parameter.dims())));
        let found: Vec<_> = shape.weights().map(|it| (it.name, it.dims)).collect();
        assert_eq!(found, expected, "{family}");
        let parameters: usize = expected.iter().map(|it| it.1.iter().product::<usize>()).sum();
        assert_eq!(shape.parameters(), parameters, "{family}");
    }
}

/// DoRA is not known on a mixture's experts.
#[test]
fn an_adapters_parameters_are_those_of_its_visitor() {
    for family in FAMILIES {
        let patterned = LoraConfig {
            rank: 3,
            rank_pattern: [("layers.1.*".to_string(), 2)].into(),
            ..LoraConfig::default()
        };
        let mixes = shape(family).config.mixture.is_some();
        for lora in [patterned, LoraConfig { rank: 5, use_dora: !mixes, ..LoraConfig::default() }] {
            let (mut model, mut expected) = (model(family), Vec::new());
            attach_lora(&mut model, &lora, 1).unwrap();
            model.visit_trained(&mut |_, parameter| expected.push(parameter.length()));
            assert_eq!(shape(family).with_lora(&lora).unwrap().trained(), expected, "{family}");
        }
    }
}

/// The same of every other adapter, and of what is trained with one.
#[test]
fn every_adapters_parameters_are_counted() {
    let lora = |modules: &[&str], ensure_weight_tying| -> AdapterConfig {
        let modules_to_save = modules.iter().map(ToString::to_string).collect();
        let target_modules = TargetModules::Names(vec!["q_proj".into(), "qkv_proj".into(), "c_attn".into()]);
        AdapterConfig::Lora(LoraConfig {
            modules_to_save,
            ensure_weight_tying,
            target_modules,
            ..LoraConfig::default()
        })
    };
    let projected = PrefixTuningConfig {
        prefix_projection: true,
        encoder_hidden_size: Some(7),
        ..PrefixTuningConfig::default()
    };
    let adapters = |config: &DecoderConfig| {
        [
            lora(&[config.names.final_norm, config.names.up[0]], false),
            lora(&["lm_head"], false),
            lora(&["lm_head"], true),
            AdapterConfig::Ia3(Ia3Config::default()),
            AdapterConfig::PromptTuning(PromptTuningConfig::default()),
            AdapterConfig::PrefixTuning(PrefixTuningConfig::default()),
            AdapterConfig::PrefixTuning(projected.clone()),
        ]
    };
    for family in FAMILIES.into_iter().filter(|it| shape(it).config.mixture.is_none()) {
        for adapter in &adapters(&shape(family).config) {
            let (mut model, mut expected) = (model(family), 0);
            if let Err(error) = adapter.attach(&mut model, 1, &letters()) {
                let is_prompt = matches!(adapter, AdapterConfig::PromptTuning(_));
                assert!(is_prompt && model.config.rope_changes_after().is_some(), "{family}: {error}");
                continue;
            }
            model.visit_trained(&mut |_, parameter| expected += parameter.length() as u64);
            let shape = shape(family).with_adapter(adapter).unwrap();
            assert_eq!(shape.trained_values(), expected, "{family}, {adapter:?}");
        }
    }
}

/// Packed weights hold the bytes that are told; so do bf16 and f32.
#[test]
fn weights_have_the_bytes_of_the_model_that_is_loaded() {
    let folder = golden("quant/model");
    let shape = ModelShape::of(&DecoderConfig::read(&folder.join("config.json")).unwrap());
    let four_bit =
        |block_size, double_quant| FourBitOptions { block_size, double_quant, skip_modules: Vec::new() };
    let skipping = FourBitOptions { skip_modules: vec!["down_proj".into()], ..four_bit(64, true) };
    for quant in [
        None,
        Some(QuantConfig::Nf4(four_bit(64, true))),
        Some(QuantConfig::Fp4(four_bit(128, false))),
        Some(QuantConfig::Nf4(skipping)),
        Some(QuantConfig::Int8(Int8Options::default())),
    ] {
        for dtype in [FloatDtype::F32, FloatDtype::Bf16] {
            let load = LoadConfig { to_train: false, dtype, quant: quant.clone() };
            let mut model = load_model_as(&folder, &Device::flex(), &load).unwrap();
            let narrow = |it: &burn::tensor::Tensor<2>| it.dtype() == burn::tensor::DType::BF16;
            let mut expected = 0;
            model.visit_base(&mut |_, parameter| {
                expected += match &parameter {
                    Parameter::Packed(it) => it.bytes(),
                    Parameter::Matrix(it) if narrow(it) => 2 * parameter.length(),
                    _ => 4 * parameter.length(),
                };
            });
            assert_eq!(weights(&shape, &load, |_| Held::F32).total(), expected as u64, "{load:?}");
        }
    }
}

#[test]
fn frozen_weights_are_a_files_pages_where_it_holds_their_type() {
    let shape = shape("qwen3");
    let parameters = 4 * shape.parameters() as u64;
    let of = |load: LoadConfig, held: Held| {
        let found = weights(&shape, &load, |_| held);
        (found.mapped, found.owned)
    };
    assert_eq!(of(LoadConfig::default(), Held::F32), (parameters, 0));
    assert_eq!(of(LoadConfig::default(), Held::Bf16), (0, parameters));
    let to_train = LoadConfig { to_train: true, ..LoadConfig::default() };
    assert_eq!(of(to_train, Held::F32), (0, parameters));
    let vectors: usize = shape.weights().filter(|it| it.role == Role::Vector).map(|it| it.length()).sum();
    let bf16 = LoadConfig { dtype: FloatDtype::Bf16, ..LoadConfig::default() };
    // Norms stay f32, and are read from a file of bf16.
    assert_eq!(of(bf16, Held::Bf16), ((parameters - 4 * vectors as u64) / 2, 4 * vectors as u64));
}

/// What stays beside a pair that began as a part of the weight.
#[test]
fn origins_have_the_values_of_those_that_are_attached() {
    let lora = LoraConfig { rank: 3, init_lora_weights: LoraInit::Olora, ..LoraConfig::default() };
    let (mut model, shape) = (model("phi3"), shape("phi3").with_lora(&lora).unwrap());
    attach_lora(&mut model, &lora, 1).unwrap();
    let linears = model.blocks.iter().flat_map(|it| it.linears());
    let origins = linears.filter_map(|it| it.1.lora.as_ref()?.origin.as_ref());
    let values = origins.map(|it| it.a.shape().num_elements() + it.negative_b.shape().num_elements());
    assert_eq!(values.sum::<usize>(), shape.origins());
    assert!(shape.origins() > 0 && shape.origins() == shape.trained().iter().sum::<usize>());
}

/// Parameters of fewer values than 4096 keep f32.
#[test]
fn moments_have_the_bytes_of_the_optimizer() {
    for storage in [MomentStorage::F32, MomentStorage::BLOCKS] {
        for lora in [None, Some(LoraConfig::default())] {
            let (mut model, mut shape) = (model("gpt2"), shape("gpt2"));
            if let Some(lora) = lora {
                attach_lora(&mut model, &lora, 1).unwrap();
                shape = shape.with_lora(&lora).unwrap();
            }
            let mut optimizer = AdamW::new(storage.clone());
            model.visit_trained(&mut |name, parameter| {
                let reserved = match parameter {
                    Parameter::Vector(it) => optimizer.reserve(name, it, it.shape().num_elements()),
                    Parameter::Matrix(it) => optimizer.reserve(name, it, it.shape().num_elements()),
                    Parameter::Packed(_) => unreachable!("nothing is packed"),
                };
                reserved.unwrap();
            });
            assert_eq!(moments(&shape.trained(), &storage), optimizer.bytes() as u64, "{storage:?}");
        }
    }
}

/// One block with two heads of queries and one of keys, small enough to count by hand.
fn by_hand() -> ModelShape {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
        "vocab_size": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    ModelShape::of(&DecoderConfig::read(&path).unwrap())
}

/// A step over one micro-batch.
const PLAIN: StepShape = StepShape {
    checkpointing: ActivationCheckpointing::Off,
    gradient_release: false,
    accumulates: false,
    by_logps: false,
    is_scored: false,
};

/// Matrices: q 8 x 8, k and v 4 x 8, o 8 x 8, gate, up and down 12 x 8: 480 values. Three tokens see 6 pairs, of 8 values each.
/// The head has 16 x 8.
#[test]
fn operations_are_those_counted_by_hand() {
    let (shape, whole) = (by_hand(), [Segment { before: 0, tokens: 3 }]);
    let (linears, attention, head) = (2 * 3 * 480, 2 * 6 * 8, 2 * 3 * 16 * 8);
    assert_eq!(forward_flops(&shape, 3, &whole, 3), linears + 2 * attention + head);
    // A token that goes on from three others sees four.
    let next = [Segment { before: 3, tokens: 1 }];
    assert_eq!(forward_flops(&shape, 1, &next, 1), 2 * 480 + 2 * (2 * 4 * 8) + 2 * 16 * 8);

    let batch = BatchTokens { tokens: 3, supervised: 3, sequences: 1 };
    // Gradients of inputs and of weights are a product each; attention's backward is five; the head's are two.
    let forward = linears + 2 * attention;
    let full = forward + 2 * linears + 5 * attention + 3 * head;
    assert_eq!(step_flops(&shape, &PLAIN, batch, &whole), full);
    let block = StepShape { checkpointing: ActivationCheckpointing::Block, ..PLAIN };
    assert_eq!(step_flops(&shape, &block, batch, &whole), full + forward);

    // Rank 1: pairs of 16, 12, 12, 16, 20, 20 and 20 values. Nothing is learned below queries, keys and values.
    let lora = shape.with_lora(&LoraConfig { rank: 1, ..LoraConfig::default() }).unwrap();
    let (pairs, below) = (2 * 3 * 116, 2 * 3 * (480 - 128));
    let adapted = forward + pairs + below + (2 * pairs - 2 * 3 * 24) + 5 * attention + 2 * head;
    assert_eq!(step_flops(&lora, &PLAIN, batch, &whole), adapted);
    let by_logps = StepShape { by_logps: true, ..PLAIN };
    assert_eq!(step_flops(&lora, &by_logps, batch, &whole), adapted + head);
}

/// As above. Two virtual tokens see 3 pairs, and the text's 6 more; a prefix goes through no linear, and of a width of 5 between its
/// layers its network has 4 x 5 and 8 x 5 weights.
#[test]
fn operations_of_what_else_is_trained_are_counted() {
    let (whole, head) = ([Segment { before: 0, tokens: 3 }], 2 * 3 * 16 * 8);
    let batch = BatchTokens { tokens: 3, supervised: 3, sequences: 1 };
    let step = |adapter: AdapterConfig| {
        step_flops(&by_hand().with_adapter(&adapter).unwrap(), &PLAIN, batch, &whole)
    };
    let attention = 7 * 2 * (3 + 6 + 6) * 8;
    let prompt = PromptTuningConfig { num_virtual_tokens: 2, ..PromptTuningConfig::default() };
    assert_eq!(step(AdapterConfig::PromptTuning(prompt)), 2 * (2 * 5 * 480) + attention + 2 * head);
    let plain = PrefixTuningConfig { num_virtual_tokens: 2, ..PrefixTuningConfig::default() };
    let of_plain = 2 * (2 * 3 * 480) - 2 * 3 * 128 + attention + 2 * head;
    assert_eq!(step(AdapterConfig::PrefixTuning(plain.clone())), of_plain);
    let projected = PrefixTuningConfig { prefix_projection: true, encoder_hidden_size: Some(5), ..plain };
    let network = 3 * 2 * 2 * (4 * 5 + 8 * 5);
    assert_eq!(step(AdapterConfig::PrefixTuning(projected)), of_plain + network);

    let saved = |module: &str| {
        AdapterConfig::Ia3(Ia3Config { modules_to_save: vec![module.into()], ..Ia3Config::default() })
    };
    let frozen = step(AdapterConfig::Ia3(Ia3Config::default()));
    assert_eq!(step(saved("up_proj")), frozen + 2 * 3 * 96);
    // The head told apart is trained; the embedding, a table, is no product, but queries, keys and values pass gradients on.
    assert_eq!(step(saved("lm_head")), frozen + head);
    assert_eq!(step(saved("embed_tokens")), frozen + 2 * 3 * 128);
}

#[test]
fn a_window_bounds_what_a_token_sees() {
    let whole = Segment { before: 0, tokens: 5 };
    assert_eq!([whole.pairs(None), whole.pairs(Some(2)), whole.pairs(Some(9))], [15, 1 + 2 * 4, 15]);
    let next = Segment { before: 4, tokens: 2 };
    assert_eq!([next.pairs(None), next.pairs(Some(3))], [5 + 6, 6]);
}

/// A file in GGUF and its import have the same shapes of weights.
#[test]
fn a_gguf_files_shape_is_that_of_its_import() {
    let file = GgufFile::open(&golden("gguf/tiny.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_in_place(&file, folder.path()).unwrap();
    let imported = DecoderConfig::read(&folder.path().join("config.json")).unwrap();
    let found = ModelShape::of(&decoder_config(&file).unwrap());
    let weights = |it: ModelShape| it.weights().collect::<Vec<_>>();
    assert_eq!(weights(found), weights(ModelShape::of(&imported)));
}

/// Pages of 32 tokens. Both prompts of 40 have a whole one, which their two completions share; each goes on for 30 tokens in two
/// of its own.
#[test]
fn keys_and_values_are_counted_in_pages() {
    let sampling = Sampling { rows: 4, of_prompt: 2, prompt: 40, completion: 30 };
    let found = generation(&by_hand(), &sampling, DecodeWeights::F32, false);
    // Keys and values of one layer, four bytes each, one head of 4.
    assert_eq!(found.cache, (2 + 4 * 2) * 32 * (2 * 4 * 4));
    assert_eq!(found.copies, 0);
    let narrow = generation(&by_hand(), &sampling, DecodeWeights::Bf16, false);
    assert_eq!(narrow.copies, 2 * (480 + 16 * 8));
    let packed = generation(&by_hand(), &sampling, DecodeWeights::Int8, true);
    assert_eq!(packed.copies, 128 + 4 * 128 / 64);
}
