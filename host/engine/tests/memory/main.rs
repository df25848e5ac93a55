//! What a training step keeps alive, counted by the allocator: a program of its own, because the count is global.

#[path = "../../../../tests/support/counting.rs"]
mod counting;
mod estimate;
mod packed;
mod shared;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fthost_data::{Batch, Origin, Sequence};
use fthost_engine::Device;
use fthost_engine::adapters::{LoraConfig, attach_lora};
use fthost_engine::checkpoint::init_model;
use fthost_engine::models::CausalLm;
use fthost_engine::models::Heads;
use fthost_engine::nn::DecodeWeights;
use fthost_engine::objectives::sft::sft_loss;
use fthost_engine::train::ActivationCheckpointing::{self, Block, EveryN, FirstN, Off};
use fthost_engine::train::executor::Trunk;

use counting::{Counting, live, restart_peak};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: the counts are those of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn golden(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const TOKENS: usize = 2048;
const RANK: usize = 4;
const LAYERS: usize = 6;
const HIDDEN: usize = 64;
const WIDE: usize = 192;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const VOCAB: usize = 512;
/// Bytes of bookkeeping (graph nodes, shapes, names) that a block may cost beside its numbers.
const SLACK: isize = 50 * 1024;

/// Bytes that the thread pool and Burn's registry may take for good in a pass: half of a block's input.
const POOL: isize = (TOKENS * HIDDEN * size_of::<f32>() / 2) as isize;

/// Sizes of a Llama.
struct Shape {
    layers: usize,
    hidden: usize,
    wide: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
}

const SHAPE: Shape = Shape {
    layers: LAYERS,
    hidden: HIDDEN,
    wide: WIDE,
    heads: HEADS,
    kv_heads: KV_HEADS,
    head_dim: HEAD_DIM,
    vocab: VOCAB,
};

/// A random one, whose embedding is its head.
fn llama(shape: &Shape) -> CausalLm {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": shape.hidden, "intermediate_size": shape.wide, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "vocab_size": shape.vocab, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "rope_theta": 1e4,
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    init_model(folder.path(), 1, &Device::flex()).unwrap()
}

fn model(lora: bool) -> CausalLm {
    let mut model = llama(&SHAPE);
    if lora {
        attach_lora(&mut model, &LoraConfig { rank: RANK, ..LoraConfig::default() }, 1).unwrap();
    }
    model
}

fn batch() -> Batch {
    rows_of(TOKENS, VOCAB)
}

/// Two rows of `tokens` in all.
fn rows_of(tokens: usize, vocab: usize) -> Batch {
    let origin = Arc::new(Origin { source: "rows".into(), line: 1 });
    let rows: Vec<Sequence> = (0..2u32)
        .map(|row| {
            let input_ids: Vec<u32> =
                (0..tokens as u32 / 2).map(|it| (it * 7 + row) % vocab as u32).collect();
            let labels = input_ids.iter().map(|it| i64::from(*it)).collect();
            Sequence { input_ids, labels, cut: 0, judgement: 0.0, origin: Arc::clone(&origin) }
        })
        .collect();
    Batch::new(&rows)
}

/// A model and a batch, after a pass in which Burn and the thread pool make what they keep for good.
fn warmed(lora: bool) -> (CausalLm, Batch) {
    let (model, batch) = (model(lora), batch());
    let targets = batch.targets();
    let loss = |hidden, heads: Heads| (sft_loss(hidden, heads.tokens, &targets).loss_sum, ());
    for checkpointing in [Off, Block, Off] {
        Trunk::forward(&mut model.clone(), &batch, checkpointing).backward(loss, &mut |_, _, _| ());
    }
    (model, batch)
}

/// Bytes that forward leaves alive.
fn kept(model: &CausalLm, batch: &Batch, checkpointing: ActivationCheckpointing) -> isize {
    let (before, mut model) = (live(), model.clone());
    let trunk = Trunk::forward(&mut model, batch, checkpointing);
    let kept = live() - before;
    let targets = batch.targets();
    trunk.backward(
        |hidden, heads: Heads| (sft_loss(hidden, heads.tokens, &targets).loss_sum, ()),
        &mut |_, _, _| (),
    );
    let left = live() - before;
    assert!(left < POOL, "{left} bytes outlive the pass");
    kept
}

fn floats(per_token: usize) -> isize {
    (TOKENS * per_token * size_of::<f32>()) as isize
}

/// Numbers a token that a block keeps for its backward: its input, queries, keys and values, attention's output and
/// log-sums, the stream between attention and MLP, gate and up, two norms' factors, and what adapters have in the middle.
fn block_numbers(lora: bool) -> usize {
    let qkv = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
    let ranks = if lora { 7 * RANK } else { 0 };
    HIDDEN + qkv + HEADS * HEAD_DIM + HEADS + HIDDEN + 2 * WIDE + 2 + ranks
}

#[track_caller]
fn assert_about(what: &str, got: isize, expected: isize) {
    let slack = SLACK * LAYERS as isize;
    assert!((expected..expected + slack).contains(&got), "{what}: {got} bytes live, {expected} expected");
}

/// The output of the last block, the rotary tables and the batch's own copies come on top of the blocks.
fn shared() -> isize {
    floats(HIDDEN + HEAD_DIM)
}

#[test]
fn nothing_but_inputs_outlives_forward_with_block_checkpointing() {
    let _alone = alone();
    for lora in [true, false] {
        let (model, batch) = warmed(lora);
        let found = kept(&model, &batch, Block);
        assert_about("inputs", found, LAYERS as isize * floats(HIDDEN) + shared());
    }
}

#[test]
fn without_checkpointing_a_block_keeps_what_its_backward_needs_and_nothing_else() {
    let _alone = alone();
    for lora in [true, false] {
        let (model, batch) = warmed(lora);
        let found = kept(&model, &batch, Off);
        assert_about("everything", found, LAYERS as isize * floats(block_numbers(lora)) + shared());
        let half = LAYERS as isize / 2;
        for checkpointing in [EveryN(2), FirstN(LAYERS / 2)] {
            let found = kept(&model, &batch, checkpointing);
            assert_about("half", found, half * (floats(HIDDEN) + floats(block_numbers(lora))) + shared());
        }
    }
}

/// In backward a block's graph is gone before the next is taken up: what is live never grows.
#[test]
fn backward_frees_a_block_before_it_goes_on() {
    let _alone = alone();
    let (model, batch) = warmed(true);
    for checkpointing in [Off, Block] {
        let targets = batch.targets();
        let (before, mut model) = (live(), model.clone());
        let trunk = Trunk::forward(&mut model, &batch, checkpointing);
        let (mut lives, mut sizes) = (Vec::new(), 0);
        trunk.backward(
            |hidden, heads: Heads| (sft_loss(hidden, heads.tokens, &targets).loss_sum, ()),
            &mut |_, _, gradients| {
                sizes += gradients.iter().map(|it| it.dims()[0] * size_of::<f32>()).sum::<usize>();
                lives.push(live() - before);
            },
        );
        let per_block = match checkpointing {
            Block => floats(HIDDEN),
            _ => floats(block_numbers(true)),
        };
        for pair in lives.windows(2).skip(1) {
            let freed = pair[0] - pair[1];
            assert!(
                freed > per_block - SLACK,
                "{checkpointing:?}: {freed} bytes freed, {per_block} expected"
            );
        }
        let left = live() - before;
        assert!(sizes > 0 && left < POOL, "{left} bytes outlive backward");
    }
}

/// Frozen weights are as they were: no graph holds a copy, and a step's peak stays below a second set of them.
#[test]
fn a_step_of_an_adapter_makes_no_copy_of_a_frozen_weight() {
    let _alone = alone();
    let (model, batch) = warmed(true);
    let before = live();
    restart_peak();
    let targets = batch.targets();
    let loss = |hidden, heads: Heads| (sft_loss(hidden, heads.tokens, &targets).loss_sum, ());
    Trunk::forward(&mut model.clone(), &batch, Block).backward(loss, &mut |_, _, _| ());
    let peak = counting::peak() - before;
    // One block's graph, its gradients' passes and the head's chunk of logits with what is made of it.
    let logits = floats(VOCAB);
    let bound = LAYERS as isize * floats(HIDDEN) + 3 * floats(block_numbers(true)) + 4 * logits;
    assert!(peak < bound, "{peak} bytes at the peak, {bound} allowed");
}

/// In f32 a model generates with its own weights. Copies take 2 bytes a value, or 1 and a scale of 4 for each 64.
#[test]
fn generation_shares_the_weights_or_copies_them_in_fewer_bits() {
    let _alone = alone();
    let mut model = model(true);
    let mut matrices = VOCAB * HIDDEN;
    model.visit_base(&mut |name, parameter| {
        matrices += if name.contains("_proj.weight") { parameter.length() } else { 0 };
    });
    for (weights, bytes_of_64) in
        [(DecodeWeights::F32, 0), (DecodeWeights::Bf16, 2 * 64), (DecodeWeights::Int8, 64 + 4)]
    {
        let before = live();
        let decoding = model.for_decoding(weights);
        let (taken, expected) = (live() - before, (matrices / 64 * bytes_of_64) as isize);
        assert!((taken - expected).abs() < 2 * SLACK, "{weights:?}: {taken} bytes, expected {expected}");
        drop(decoding);
    }
}
