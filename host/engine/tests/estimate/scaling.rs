//! What the simulation of many ranks says, against arithmetic that can be done by hand, and the tables of `scaling.md`.

use std::fmt::Write;

use fthost_engine::adapters::{AdapterConfig, LoraConfig, PrefixTuningConfig};
use fthost_engine::checkpoint::LoadConfig;
use fthost_engine::estimate::scaling::{Cluster, Link, Scaled, Speeds, Work, scaled};
use fthost_engine::estimate::{BatchTokens, ModelShape, Segment, StepShape, step_flops};
use fthost_engine::models::DecoderConfig;
use fthost_engine::nn::FloatDtype;
use fthost_engine::optim::MomentStorage;
use fthost_engine::shard::{ParallelConfig, Zero};
use fthost_engine::train::ActivationCheckpointing;

/// Tokens of a rank's micro-batch.
const TOKENS: u64 = 4096;
const GIB: f64 = (1u64 << 30) as f64;

/// `config.json` of Llama 3.1 in two sizes, as far as shapes depend on it.
fn llama(hidden: usize, intermediate: usize, layers: usize, heads: usize) -> ModelShape {
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "vocab_size": 128_256,
        "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": 8, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": false,
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    ModelShape::of(&DecoderConfig::read(&path).unwrap())
}

fn small() -> ModelShape {
    llama(4096, 14_336, 32, 32)
}

fn large() -> ModelShape {
    llama(8192, 28_672, 80, 64)
}

fn with_lora(shape: ModelShape) -> ModelShape {
    shape.with_lora(&LoraConfig { rank: 16, ..LoraConfig::default() }).unwrap()
}

/// Eight GPUs a machine: NVLink 4 (450 GB/s each way) and eight ports of 400 Gb/s, of both four fifths.
fn gpus(flops_per_second: f64) -> Cluster {
    linked(flops_per_second, link(0.8 * 450e9, 3e-6), link(0.8 * 400e9, 10e-6))
}

/// The same with other links.
fn linked(flops_per_second: f64, within: Link, between: Link) -> Cluster {
    let memory_bytes_per_second = 0.8 * 3.35e12;
    Cluster {
        ranks_per_machine: 8,
        speeds: Speeds { flops_per_second, memory_bytes_per_second, within, between },
    }
}

fn link(rate: f64, latency_seconds: f64) -> Link {
    Link { gather_bytes_per_second: rate, reduce_bytes_per_second: rate, latency_seconds }
}

fn how() -> StepShape {
    StepShape { checkpointing: ActivationCheckpointing::Block, ..StepShape::default() }
}

/// A sequence of 4096 tokens a rank and a step.
fn on(shape: &ModelShape, parallel: &ParallelConfig, cluster: &Cluster, ranks: usize) -> Scaled {
    let frozen = if shape.has_adapter() { FloatDtype::Bf16 } else { FloatDtype::F32 };
    let load = LoadConfig { to_train: !shape.has_adapter(), dtype: frozen, quant: None };
    let segments = [Segment { before: 0, tokens: TOKENS }];
    let work = Work {
        shape,
        load: &load,
        moments: &MomentStorage::F32,
        how: how(),
        batch: BatchTokens { tokens: TOKENS, supervised: TOKENS, sequences: 1 },
        segments: &segments,
        micro_batches: 1,
        parallel,
    };
    scaled(&work, cluster, ranks).unwrap()
}

fn shared(shard: i64) -> ParallelConfig {
    ParallelConfig { data_parallel_shard: shard, ..ParallelConfig::default() }
}

fn all() -> ParallelConfig {
    ParallelConfig { data_parallel_replicate: 1, data_parallel_shard: -1, ..ParallelConfig::default() }
}

/// One rank computes and waits for nobody.
#[test]
fn one_rank_takes_what_it_computes() {
    let (shape, cluster) = (small(), gpus(400e12));
    let found = on(&shape, &ParallelConfig::default(), &cluster, 1);
    let batch = BatchTokens { tokens: TOKENS, supervised: TOKENS, sequences: 1 };
    let flops = step_flops(&shape, &how(), batch, &[Segment { before: 0, tokens: TOKENS }]) as f64;
    assert!((found.compute_seconds / (flops / 400e12) - 1.0).abs() < 1e-9, "{found:?}");
    let update = 28.0 * shape.parameters() as f64 / (0.8 * 3.35e12);
    assert!((found.step_seconds - found.compute_seconds - update).abs() < 1e-9, "{found:?}");
    assert_eq!((found.received_bytes, found.efficiency), (0.0, 1.0));
    // Weights, gradients and both moments in f32, and nothing that is gathered.
    assert_eq!(
        found.memory.weights + found.memory.gradients + found.memory.moments,
        16 * shape.parameters() as u64
    );
    assert_eq!(found.memory.gathered, 0);
}

/// The published arithmetic of <https://arxiv.org/abs/1910.02054>, section 7, and of its figure 1: what a rank receives and keeps.
#[test]
fn a_rank_receives_and_keeps_what_zero_says() {
    let (shape, cluster) = (small(), gpus(400e12));
    let values = shape.parameters() as f64;
    for (zero, copies, kept) in [
        (Zero::One, 2.0, [1.0, 1.0, 0.125]),
        (Zero::Two, 2.0, [1.0, 0.125, 0.125]),
        (Zero::Three, 3.0, [0.125; 3]),
    ] {
        let found = on(&shape, &ParallelConfig { zero, ..shared(8) }, &cluster, 8);
        // Summed up and gathered once each; with weights shared, gathered in forward and, but for the last block and both ends, in
        // backward.
        let (block, ends) = (4.0 * 218_112_000.0, 4.0 * 2.0 * 128_256.0 * 4096.0);
        let again = if zero == Zero::Three { block + ends } else { 0.0 };
        let expected = (copies * 4.0 * values - again) * 7.0 / 8.0;
        assert!(
            (found.received_bytes / expected - 1.0).abs() < 1e-3,
            "{zero:?}: {} {expected}",
            found.received_bytes
        );
        let [weights, gradients, moments] = kept;
        let close = |found: u64, of: f64| (found as f64 / (4.0 * values * of) - 1.0).abs() < 0.01;
        // With whole weights a rank has its stretches of them beside.
        let beside = if zero == Zero::Three { 0.0 } else { 0.125 };
        assert!(close(found.memory.weights, weights + beside), "{zero:?}: {found:?}");
        assert!(close(found.memory.gradients, gradients), "{zero:?}: {found:?}");
        assert!(close(found.memory.moments, 2.0 * moments), "{zero:?}: {found:?}");
    }
}

/// What can't be hidden is waited for, and no more; links that carry anything at once are no links.
#[test]
fn a_step_takes_the_longer_of_computing_and_gathering() {
    let shape = small();
    let fast = link(1e30, 0.0);
    let cluster = linked(400e12, fast, fast);
    let found = on(&shape, &all(), &cluster, 64);
    assert!((found.step_seconds - found.compute_seconds - found.update_seconds).abs() < 1e-9, "{found:?}");
    let slow = link(1e9, 0.0);
    let found = on(&shape, &all(), &linked(1e30, slow, slow), 64);
    // As much comes through each link of a ring, a machine's or a rank's.
    assert!((found.step_seconds / (found.received_bytes / 1e9) - 1.0).abs() < 1e-3, "{found:?}");
    // Gradients of groups on 8 machines, summed up by one link a machine: as many bytes as the model has, there and back.
    let found = on(&shape, &ParallelConfig { zero: Zero::One, ..shared(8) }, &linked(1e30, fast, slow), 64);
    let expected = 2.0 * 4.0 * shape.parameters() as f64 * 7.0 / 8.0 / 1e9;
    assert!((found.step_seconds / expected - 1.0).abs() < 1e-3, "{found:?} {expected}");
}

/// By hand: two machines of eight, whose own links are slow, and hops that each take a second.
#[test]
fn a_ring_over_machines_carries_all_through_each_link_and_hops_from_rank_to_rank() {
    let shape = small();
    let cluster = linked(1e30, link(1e30, 0.0), link(1e9, 0.0));
    let found = on(&shape, &all(), &cluster, 16);
    assert!((found.step_seconds / (found.received_bytes / 1e9) - 1.0).abs() < 1e-3, "{found:?}");
    // Gathered are 34 parts and 31 blocks again, and gradients of 34 summed up; a piece passes 15 ranks, one of the hops between machines.
    for (within, between, hops) in [(1.0, 0.0, 14.0), (0.0, 1.0, 1.0)] {
        let cluster = linked(1e30, link(1e30, within), link(1e30, between));
        let found = on(&shape, &all(), &cluster, 16);
        assert!((found.step_seconds / ((34.0 + 31.0 + 34.0) * hops) - 1.0).abs() < 1e-3, "{found:?}");
    }
    // Twelve that share are on two machines, the second of which they have in part.
    let cluster = linked(1e30, link(1e9, 0.0), link(1e30, 0.0));
    let found = on(&shape, &all(), &cluster, 12);
    let expected = on(&shape, &all(), &Cluster { ranks_per_machine: 12, ..cluster }, 12);
    assert_eq!(found.received_bytes, expected.received_bytes);
}

/// A reward model has no logits, and a prefix goes through no linear.
#[test]
fn what_is_computed_is_what_flops_count() {
    let (cluster, tokens) = (gpus(400e12), TOKENS);
    let prefix = AdapterConfig::PrefixTuning(PrefixTuningConfig {
        prefix_projection: true,
        ..PrefixTuningConfig::default()
    });
    for (shape, is_scored) in [(small(), true), (small().with_adapter(&prefix).unwrap(), false)] {
        let (how, load) = (StepShape { is_scored, ..how() }, LoadConfig::default());
        let (batch, segments) =
            (BatchTokens { tokens, supervised: tokens, sequences: 1 }, [Segment { before: 0, tokens }]);
        let work = Work {
            shape: &shape,
            load: &load,
            moments: &MomentStorage::F32,
            how,
            batch,
            segments: &segments,
            micro_batches: 1,
            parallel: &ParallelConfig::default(),
        };
        let found = scaled(&work, &cluster, 1).unwrap().compute_seconds;
        let expected = step_flops(&shape, &how, batch, &segments) as f64 / 400e12;
        assert!((found / expected - 1.0).abs() < 1e-9, "{is_scored}: {found} {expected}");
    }
}

/// The tables of the guide are what the simulation says.
#[test]
fn the_guide_has_these_tables() {
    let mut tables = String::new();
    for (title, shape) in [
        ("8B, every weight", small()),
        ("8B, LoRA of rank 16 on bf16", with_lora(small())),
        ("70B, every weight", large()),
        ("70B, LoRA of rank 16 on bf16", with_lora(large())),
    ] {
        writeln!(tables, "| {title} | replicate x shard | step, s | waiting | at 40 TFLOP/s | tokens/s | GiB a GPU | of these kept | gathered |").unwrap();
        writeln!(tables, "|---|---|---|---|---|---|---|---|---|").unwrap();
        for (ranks, parallel) in [
            (8, all()),
            (32, all()),
            (64, shared(8)),
            (64, all()),
            (512, shared(8)),
            (512, shared(64)),
            (512, all()),
        ] {
            let found = on(&shape, &parallel, &gpus(400e12), ranks);
            let slower = on(&shape, &parallel, &gpus(40e12), ranks);
            let memory = found.memory;
            let kept = memory.weights + memory.gradients + memory.moments;
            let gib = |bytes: u64| bytes as f64 / GIB;
            writeln!(
                tables,
                "| {ranks} GPUs | {} x {} | {:.2} | {:.0}% | {:.0}% | {:.0} | {:.1} | {:.1} | {:.1} |",
                found.replicate,
                found.shard,
                found.step_seconds,
                100.0 * (1.0 - found.efficiency),
                100.0 * (1.0 - slower.efficiency),
                found.tokens_per_second,
                gib(memory.total()),
                gib(kept),
                gib(memory.gathered),
            )
            .unwrap();
        }
        tables.push('\n');
    }
    let guide = include_str!("../../../docs/guide/scaling.md");
    for table in tables.trim_end().split("\n\n") {
        assert!(guide.contains(table), "`host/docs/guide/scaling.md` lacks this table:\n{tables}");
    }
}
