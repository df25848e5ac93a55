//! Estimates of runs against the runs themselves.

use fthost_data::{Augmented, Augmenter, Example, PluginIdentity, RoleError};
use fthost_run::estimate::{Estimate, estimate};
use fthost_run::train::RunOptions;
use fthost_run::{Event, Plugins};

use crate::support::Workplace;

fn estimated(place: &Workplace, overrides: &[&str]) -> Estimate {
    estimate(&place.config(overrides), &mut Plugins::none()).unwrap()
}

/// Rows have several lengths, and nothing is shared where a micro-batch is one row.
#[test]
fn the_largest_micro_batch_is_that_of_the_runs_steps() {
    let place = Workplace::new(24);
    let ways = ["train.micro_batch_size=1", "train.gradient_accumulation_steps=1", "data.packing=false"];
    let (mut most, mut supervised, mut trained) = (0, 0, 0);
    place
        .watch(&ways, &RunOptions::default(), &mut |event| match event {
            Event::Stepped(it) => {
                most = most.max(it.metrics.num_tokens as u64);
                supervised = supervised.max(it.metrics.supervised_tokens as u64);
            }
            Event::Planned(it) => trained = it.trainable_parameters as u64,
            _ => {}
        })
        .unwrap();
    let found = estimated(&place, &ways);
    assert_eq!((found.tokens, found.supervised_tokens), (most, supervised));
    assert_eq!((found.trainable_parameters, found.steps), (trained, Some(9)));
}

/// Beside the adapter a scalar head, which has a weight and, of values, a bias; a value model has an adapter of its own.
#[test]
fn objectives_train_what_the_run_says() {
    let place = Workplace::new(24);
    let (adapter, width) = (estimated(&place, &[]).trainable_parameters, width(&place));
    let of = |objective: &str| {
        let keys = [objective, "train.micro_batch_size=4", "rollout.num_generations=4"];
        estimated(&place, &keys).trainable_parameters
    };
    assert_eq!(of("objective.ppo.value_model=copy"), 2 * adapter + width + 1);
    assert_eq!(of("objective.ppo.value_model=shared"), adapter + width + 1);
    let pair = r#"{"prompt": "What is 1 + 1?", "chosen": " 2", "rejected": " 3"}"#;
    std::fs::write(place.path("rows.jsonl"), format!("{pair}\n").repeat(8)).unwrap();
    assert_eq!(of("objective.reward={}"), adapter + width);
    assert_eq!(of("objective.dpo.beta=0.1"), adapter);
}

fn width(place: &Workplace) -> u64 {
    let text = std::fs::read_to_string(place.path("model/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["hidden_size"].as_u64().unwrap()
}

/// Parts are all there is, and the peak is that of the phase with the most.
#[test]
fn parts_sum_to_the_peak_of_the_largest_phase() {
    let place = Workplace::new(24);
    for overrides in [&[][..], &["train.activation_checkpointing=block"], &["data.held_out.rows=4"]] {
        let found = estimated(&place, overrides);
        assert_eq!(found.parts.iter().map(|it| it.bytes).sum::<u64>(), found.peak_rss_bytes);
        assert_eq!(found.phases.iter().map(|it| it.bytes).max(), Some(found.peak_rss_bytes));
    }
}

/// Two passes over a block where it is computed again: a third more products, the head's and attention's aside.
#[test]
fn recomputing_costs_a_forward_pass_of_every_block() {
    let place = Workplace::new(24);
    let of = |it: &[&str]| estimated(&place, it).flops;
    let (off, block) = (of(&[]), of(&["train.activation_checkpointing=block"]));
    assert!(block.step > off.step && (block.step as f64) < 1.5 * off.step as f64);
    assert_eq!(off.training, Some(9 * off.step));
}

struct Nobody(PluginIdentity);

impl Augmenter for Nobody {
    fn identity(&self) -> &PluginIdentity {
        &self.0
    }

    fn augment(&mut self, _: &[Example]) -> Result<Vec<Augmented>, RoleError> {
        unreachable!("it would be asked about too much")
    }
}

#[test]
fn plugins_that_would_make_rows_of_large_files_are_not_asked() {
    let place = Workplace::new(24);
    std::fs::write(place.path("rows.jsonl"), " ".repeat(9 << 20)).unwrap();
    let identity = PluginIdentity { name: "nobody".into(), version: "1.0.0".into(), digest: String::new() };
    let mut plugins = Plugins { augmenters: vec![Box::new(Nobody(identity))], ..Plugins::default() };
    let found = estimate(&place.config(&["data.packing=false"]), &mut plugins).unwrap();
    assert_eq!(found.lengths, "`data.max_length` = 48: plugins make the rows, of 9 MiB of files");
    // Two rows of 48 tokens, all of them supervised.
    assert_eq!((found.tokens, found.supervised_tokens, found.steps), (96, 96, Some(9)));
    let epochs = place.config(&["train.epochs=1.0"]);
    assert_eq!(estimate(&epochs, &mut plugins).unwrap().steps, None, "nobody knows how many rows there are");
}

/// Of a job with several ranks one rank's memory is told, and with speeds how long a step takes.
#[test]
fn a_step_on_ranks_is_told_where_a_job_has_several() {
    let place = Workplace::new(24);
    assert_eq!(estimated(&place, &[]).on_ranks, None);
    let job =
        ["launch.nodes=2", "launch.ranks_per_node=2", "parallel.data_parallel_shard=2", "data.packing=false"];
    let found = estimated(&place, &job);
    let told = found.on_ranks.unwrap();
    assert_eq!((told.ranks, told.replicate, told.shard, told.step), (4, 2, 2, None));
    assert_eq!(told.memory.moments, 8 * found.trainable_parameters / 2);
    let link = |rate: &str| {
        format!(
            "{{ gather_bytes_per_second = {rate}, reduce_bytes_per_second = {rate}, latency_seconds = 0.0 }}"
        )
    };
    let speeds = |rate: &str| {
        let (within, between) = (link(rate), link(rate));
        format!(
            "launch.speeds={{ flops_per_second = 1e9, memory_bytes_per_second = 1e9, within = {within}, between = {between} }}"
        )
    };
    let step = |rate: &str| {
        let speeds = speeds(rate);
        estimated(&place, &[&job[..], &[&speeds]].concat()).on_ranks.unwrap().step.unwrap()
    };
    // Two micro-batches a rank; links that carry everything at once, and links that decide.
    let [fast, slow] = [step("1e30"), step("1e3")];
    assert!((fast.step_seconds - fast.compute_seconds - fast.update_seconds).abs() < 1e-9, "{fast:?}");
    assert_eq!(fast.tokens_per_second, (2 * 4 * found.tokens) as f64 / fast.step_seconds);
    assert!(slow.efficiency < 0.01 && fast.efficiency > 0.99, "{slow:?}, {fast:?}");
    let three = place.config(&["launch.nodes=3", "parallel.data_parallel_shard=2"]);
    let error = estimate(&three, &mut Plugins::none()).unwrap_err().to_string();
    assert!(error.contains("are not the degrees of 3 ranks"), "{error}");
}
