//! The optimizer's state, and what storing it in 8 bits costs.

use burn::tensor::{Device, Tensor};
use fthost_engine::adapters::{LoraConfig, attach_lora};
use fthost_engine::optim::adamw::Moments;
use fthost_engine::optim::{AdamW, AdamWConfig, MomentStorage};
use fthost_engine::train::{StepConfig, TrainState, step};

use super::support::{batches, config, full, in_blocks, model, paged, trained};

fn losses(mut state: TrainState, steps: usize) -> Vec<f64> {
    (0..steps).map(|it| step(&mut state, &batches(it % 8), &config(1e-2)).unwrap().loss).collect()
}

/// Forty steps over the same rows: both learn them. Moments of 8 bits are good to a few percent of a block's largest, and
/// the course is followed as closely.
#[test]
fn adamw8bit_learns_what_adamw_learns() {
    let (exact, in_blocks) = (losses(full(), 40), losses(in_blocks(), 40));
    let mean = |it: &[f64]| it.iter().sum::<f64>() / it.len() as f64;
    let (begin, end, end_in_blocks) = (mean(&exact[..8]), mean(&exact[32..]), mean(&in_blocks[32..]));
    assert!(end < 0.7 * begin, "{begin} to {end}: there was something to learn");
    assert!(
        (end_in_blocks - end).abs() < 0.05 * (begin - end),
        "f32 ends at {end}, 8 bits at {end_in_blocks}"
    );
}

#[test]
fn small_parameters_keep_f32_and_large_ones_take_two_bytes_and_a_factor_a_block() {
    let mut optimizer = AdamW::new(MomentStorage::BLOCKS);
    let mut update = |name: &str, shape: [usize; 2]| {
        let ones = || Tensor::<2>::ones(shape, &Device::flex());
        let config = AdamWConfig::default();
        let before = optimizer.bytes();
        optimizer.update(&config, 1e-3, 1.0, name, ones(), ones());
        (matches!(optimizer.moments[name], Moments::Blocks(_)), optimizer.bytes() - before)
    };
    assert_eq!(update("small", [1, 4095]), (false, 8 * 4095));
    assert_eq!(update("large", [64, 64]), (true, 2 * 4096 + 8 * 16));
    assert_eq!(update("larger", [1024, 1000]), (true, 2 * 1_024_000 + 8 * 4000));
    assert_eq!(update("large", [64, 64]), (true, 0));
}

/// Bit for bit, and a copy of the state goes on by itself.
#[test]
fn moments_in_files_are_moments() {
    let (mut in_memory, mut in_files) = (full(), paged());
    for index in 0..6 {
        let of = |state: &mut TrainState| step(state, &batches(index), &config(1e-2)).unwrap().loss;
        assert_eq!(of(&mut in_files), of(&mut in_memory), "step {index}");
        if index == 3 {
            let mut copy = in_files.clone();
            of(&mut copy);
        }
    }
    assert!(in_files.optimizer.moments.values().all(|it| matches!(it, Moments::Paged(_))));
    assert_eq!(trained(&in_files), trained(&in_memory));
    assert_eq!(in_files.optimizer.bytes(), in_memory.optimizer.bytes());
}

#[test]
fn a_folder_that_holds_no_pages_is_named() {
    let mut state = full();
    state.optimizer = AdamW::new(MomentStorage::Paged("/no/such/folder".into()));
    let refused = step(&mut state, &batches(0), &config(1e-2)).unwrap_err().to_string();
    assert!(refused.starts_with("can't write the optimizer's pages in `/no/such/folder`"), "{refused}");
}

/// LoRA+ (<https://arxiv.org/abs/2402.12354>): B moves as many times as far in the first step, whose length under Adam is the
/// rate's alone, and A as far as it would.
#[test]
fn loraplus_multiplies_the_rate_of_b() {
    let moved = |loraplus_lr_ratio: f64| {
        let lora = LoraConfig { rank: 4, loraplus_lr_ratio, ..LoraConfig::default() };
        let mut model = model();
        attach_lora(&mut model, &lora, 5).unwrap();
        let mut state = TrainState::new(model, Some(lora.into()));
        let before = trained(&state);
        let adamw = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
        step(&mut state, &batches(0), &StepConfig { adamw, ..config(1e-3) }).unwrap();
        let moves = before.into_iter().zip(trained(&state));
        let moves = moves.map(|((name, before), (_, after))| {
            let most = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            (name, most)
        });
        moves.collect::<Vec<_>>()
    };
    for ((name, plain), (_, more)) in moved(1.0).into_iter().zip(moved(16.0)) {
        if name.ends_with("lora_B.weight") {
            assert!(plain > 0.0 && (more / plain - 16.0).abs() < 1e-2, "{name}: {plain} and {more}");
        } else {
            // Nothing reaches A while B is zero.
            assert_eq!(plain, more, "{name}");
        }
    }
}
