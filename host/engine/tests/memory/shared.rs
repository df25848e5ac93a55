//! What a rank keeps of a model that it shares, counted on every rank.

#[expect(dead_code, reason = "the engine's other tests take more of it")]
#[path = "../parallel/launch.rs"]
mod launch;
#[path = "../../../../tests/support/mpirun.rs"]
mod mpirun;

use fthost_data::Batch;
use fthost_engine::adapters::{LoraConfig, attach_lora};
use fthost_engine::checkpoint::LoadConfig;
use fthost_engine::estimate::scaling::{RankMemory, Work, rank_memory};
use fthost_engine::estimate::{BatchTokens, ModelShape, Segment, StepShape};
use fthost_engine::models::{CausalLm, Heads};
use fthost_engine::objectives::sft::sft_loss;
use fthost_engine::optim::MomentStorage;
use fthost_engine::parallel::{Collective, Ranks, mpi};
use fthost_engine::quant::QuantConfig;
use fthost_engine::shard::{Mesh, ParallelConfig};
use fthost_engine::train::ActivationCheckpointing::Block;
use fthost_engine::train::executor::Trunk;

use super::{SLACK, Shape, alone, live, llama, restart_peak, rows_of};

/// So few that weights are what counts.
const TOKENS: usize = 8;
const LAYERS: usize = 8;
const HIDDEN: usize = 128;
const WIDE: usize = 512;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
const VOCAB: usize = 256;
const RANK: usize = 2;

/// What is trained of a model, or how it is stored.
fn model(kind: &str) -> CausalLm {
    let mut model = llama(&Shape {
        layers: LAYERS,
        hidden: HIDDEN,
        wide: WIDE,
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        vocab: VOCAB,
    });
    if kind == "nf4" {
        model.pack(&QuantConfig::Nf4(Default::default()));
    }
    if kind != "full" {
        attach_lora(&mut model, &LoraConfig { rank: RANK, ..LoraConfig::default() }, 1).unwrap();
    }
    model
}

/// Values of a block's base.
fn block() -> isize {
    let qkv = (HEADS + 2 * KV_HEADS) * HEAD_DIM * HIDDEN;
    (qkv + HEADS * HEAD_DIM * HIDDEN + 3 * WIDE * HIDDEN + 2 * HIDDEN) as isize
}

/// Numbers that all blocks keep for backward: their inputs, and the last one everything.
fn activations() -> isize {
    let qkv = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
    let of_last = qkv + HEADS * HEAD_DIM + HEADS + HIDDEN + 2 * WIDE + 2 + 7 * RANK;
    (TOKENS * (LAYERS * HIDDEN + of_last) * size_of::<f32>()) as isize
}

fn mesh(ranks: &Ranks, reshard_after_forward: bool) -> Mesh {
    let config = ParallelConfig {
        data_parallel_replicate: 1,
        data_parallel_shard: -1,
        reshard_after_forward,
        ..ParallelConfig::default()
    };
    config.mesh(ranks).unwrap().expect("it is shared")
}

/// Bytes that live after forward, beside the model, and at the peak of a pass.
fn pass(model: &CausalLm, batch: &Batch) -> [isize; 2] {
    let (before, mut model) = (live(), model.clone());
    restart_peak();
    let trunk = Trunk::forward(&mut model, batch, Block);
    let kept = live() - before;
    let targets = batch.targets();
    trunk.backward(
        |hidden, heads: Heads| (sft_loss(hidden, heads.tokens, &targets).loss_sum, ()),
        &mut |_, _, _| (),
    );
    [kept, super::counting::peak() - before]
}

/// What [`rank_memory`] says of a pass like this.
fn estimated(kind: &str, mesh: &Mesh, ranks: usize) -> RankMemory {
    let mut shape = ModelShape::of(&model("full").config);
    if kind != "full" {
        shape = shape.with_lora(&LoraConfig { rank: RANK, ..LoraConfig::default() }).unwrap();
    }
    let quant = (kind == "nf4").then(|| QuantConfig::Nf4(Default::default()));
    let tokens = TOKENS as u64;
    let work = Work {
        shape: &shape,
        load: &LoadConfig { quant, ..LoadConfig::default() },
        moments: &MomentStorage::F32,
        how: StepShape { checkpointing: Block, ..StepShape::default() },
        batch: BatchTokens { tokens, supervised: tokens, sequences: 1 },
        segments: &[Segment { before: 0, tokens }],
        micro_batches: 1,
        parallel: &mesh.config,
    };
    rank_memory(&work, ranks).unwrap()
}

/// Started by [`a_rank_keeps_its_share_and_two_blocks`].
#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank_that_counts() {
    let _alone = alone();
    let ranks = Ranks::new(mpi::Mpi::open().unwrap());
    let size = ranks.size() as isize;
    for kind in ["full", "lora", "nf4"] {
        // Bytes of a block, of a block as it travels, and of what a rank would keep that shares nothing.
        let wide = block() * size_of::<f32>() as isize;
        let travels = if kind == "nf4" { wide / 7 } else { wide };
        let embedding = (VOCAB * HIDDEN * size_of::<f32>()) as isize;
        let batch = rows_of(TOKENS, VOCAB);
        let before = live();
        let whole = model(kind);
        let all = live() - before;
        drop(whole);
        for reshard in [true, false] {
            let mesh = mesh(&ranks, reshard);
            let begun = || {
                let mut model = model(kind);
                model.share(&mesh);
                model
            };
            // What Burn, the pool and the queue of ranks keep for good is there after a first pass.
            pass(&begun(), &batch);
            let before = live();
            let model = begun();
            let share = live() - before;
            // Names, shapes and places come on top.
            assert!(share < all / size + 5 * SLACK, "{kind}: {share} bytes of {all} on {size} ranks");
            assert!(share < all * 3 / 4, "{kind}: {share} bytes of {all} on {size} ranks");
            let [kept, peak] = pass(&model, &batch);
            let told = estimated(kind, &mesh, ranks.size());
            let near = |found: isize, told: u64, what: &str| {
                let (told, ratio) = (told as isize, found as f64 / told as f64);
                let is_near = (found - told).abs() < 5 * SLACK || (0.8..1.25).contains(&ratio);
                assert!(is_near, "{kind}, {reshard}: {found} bytes of {what}, {told} estimated");
            };
            near(share, told.weights, "weights");
            near(peak, told.gathered + told.activations, "what a pass needs");
            let allowed = 2 * travels + activations() + SLACK;
            match reshard {
                true => assert!(kept < allowed, "{kind}: {kept} bytes live, {allowed} allowed"),
                // What would be seen if weights stayed alive.
                false => assert!(kept > allowed, "{kind}: {kept} bytes live where all blocks stay"),
            }
            // Beside two blocks: gradients of one and what they are sent in, the head with its own, and logits.
            let gradients = if kind == "full" { 2 * wide + 4 * embedding } else { 2 * embedding };
            let logits = 4 * (TOKENS * VOCAB * size_of::<f32>()) as isize;
            let bound = allowed + gradients + logits + 4 * SLACK;
            assert!(bound < all, "{kind}: a bound that all weights break");
            assert!(!reshard || peak < bound, "{kind}: {peak} bytes at the peak, {bound} allowed");
            ranks.barrier().unwrap();
        }
    }
}

/// After forward at most a share, two blocks and what backward needs: nothing else is alive, frozen or trained.
#[test]
fn a_rank_keeps_its_share_and_two_blocks() {
    let _alone = alone();
    for launcher in launch::launchers("a_rank_keeps_its_share_and_two_blocks").into_iter().take(1) {
        for size in [2, 4] {
            launch::under(launcher.command(size), "shared::as_a_rank_that_counts");
        }
    }
}
