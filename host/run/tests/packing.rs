//! Packing decides how the rows of a step are laid out, and nothing else.

use fthost_data::{Batch, Layout, Sequence, Tokenizer};
use fthost_engine::Device;
use fthost_engine::checkpoint::load_model;
use fthost_engine::models::CausalLm;
use fthost_engine::train::{ActivationCheckpointing, Gradients};
use fthost_run::prepare::plan;
use fthost_run::rows::Rows;
use fthost_run::{Plugins, dataset};

use crate::support::{Workplace, figures, tensors};

fn rows(workplace: &Workplace) -> Vec<Sequence> {
    let config = workplace.config(&[]);
    let tokenizer = Tokenizer::load(config.model.folder()).unwrap();
    let dataset = dataset::load(&config.data, &mut Plugins::none()).unwrap();
    let rows = Rows::encode(dataset, &tokenizer, &config).unwrap().train;
    (0..rows.len()).map(|it| rows.sequence(it)).collect()
}

fn model(workplace: &Workplace) -> CausalLm {
    load_model(&workplace.path("model"), &Device::flex()).unwrap()
}

/// f32 sums in another order: gradients agree to 1e-5 of the largest.
#[test]
fn packed_gradients_equal_unpacked() {
    let workplace = Workplace::new(12);
    let (model, rows) = (model(&workplace), rows(&workplace));
    let rows: Vec<&Sequence> = rows.iter().collect();
    let gradients = |layout: Layout| {
        let mut sum = Gradients::default();
        let batches = layout.micro_batches(&rows);
        batches.iter().for_each(|it| sum.add(&model, it, ActivationCheckpointing::Off));
        let values: Vec<Vec<f32>> =
            sum.sums.values().into_iter().map(|it| it.try_into_vec_as::<f32>().unwrap()).collect();
        (batches.len(), sum.loss_sum, sum.supervised_tokens, values)
    };
    let alone = gradients(Layout::Rows(1));
    let packed = gradients(Layout::Packed(100));
    assert!(packed.0 < alone.0 / 2, "{} micro-batches against {}", packed.0, alone.0);
    assert!((packed.1 - alone.1).abs() < 1e-5 * alone.1, "loss {} and {}", packed.1, alone.1);
    assert_eq!(packed.2, alone.2);
    for (packed, alone) in packed.3.iter().zip(&alone.3) {
        let largest = alone.iter().fold(0.0_f32, |largest, it| largest.max(it.abs()));
        for (packed, alone) in packed.iter().zip(alone) {
            assert!((packed - alone).abs() <= 1e-5 * largest, "{packed} and {alone}, largest {largest}");
        }
    }
}

/// Nine steps over three epochs, adapter and whole model. Adam divides by the root of the second moment, which
/// magnifies rounding where a gradient is near 0: weights agree on average to 1e-4 of a step's learning rate.
#[test]
fn packed_equals_unpacked() {
    let lora = Workplace::new(14);
    let full = Workplace::new(14);
    let text = std::fs::read_to_string(full.path("run.toml")).unwrap();
    std::fs::write(full.path("run.toml"), text.replace("[adapter.lora]\nrank = 4\n", "")).unwrap();
    for (workplace, weights) in
        [(&lora, "adapter/adapter_model.safetensors"), (&full, "model/model.safetensors")]
    {
        let (mut losses, mut trained) = (Vec::new(), Vec::new());
        let mut micro_batches = Vec::new();
        for packing in [true, false] {
            let (packing, out) = (format!("data.packing={packing}"), format!("output.dir=out-{packing}"));
            let overrides = [packing.as_str(), out.as_str()];
            let config = workplace.config(&overrides);
            micro_batches.push(
                plan(&config, &mut Plugins::none(), Default::default()).unwrap().micro_batches_per_epoch,
            );
            workplace.run(&overrides);
            losses.push(figures(&config.output.dir, "loss"));
            trained.push(tensors(&config.output.dir.join(weights)));
        }
        assert!(micro_batches[0] < micro_batches[1], "{micro_batches:?}");
        assert_eq!(losses[0].len(), 9);
        for (packed, unpacked) in losses[0].iter().zip(&losses[1]) {
            assert!(
                (packed.1 - unpacked.1).abs() < 2e-5,
                "step {}: {} and {}",
                packed.0,
                packed.1,
                unpacked.1
            );
        }
        let (mut total, mut count) = (0.0, 0);
        for (packed, unpacked) in trained[0].iter().zip(&trained[1]) {
            assert_eq!(packed.0, unpacked.0);
            let pairs = packed.1.iter().zip(&unpacked.1);
            total += pairs.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
            count += packed.1.len();
        }
        let mean = total / count as f64;
        assert!(mean < 1e-4 * 1e-2, "weights differ by {mean} on average");
    }
}

/// Hidden states of a row are the same alone, behind others, and before others.
#[test]
fn a_packed_row_does_not_see_its_neighbours() {
    let workplace = Workplace::new(8);
    let (model, rows) = (model(&workplace), rows(&workplace));
    let hidden = |batch: &Batch| model.hidden(batch).try_into_vec_as::<f32>().unwrap();
    let width = model.config.hidden_size;
    let alone = hidden(&Batch::new([&rows[3]]));
    for neighbours in
        [[&rows[0], &rows[3], &rows[7]], [&rows[3], &rows[4], &rows[5]], [&rows[6], &rows[2], &rows[3]]]
    {
        let batch = Batch::new(neighbours);
        let place = neighbours.iter().position(|it| *it == &rows[3]).unwrap();
        let bounds = batch.cu_seqlens[place] * width..batch.cu_seqlens[place + 1] * width;
        for (packed, alone) in hidden(&batch)[bounds].iter().zip(&alone) {
            assert!((packed - alone).abs() < 1e-6 * alone.abs().max(1.0), "{packed} and {alone}");
        }
    }
}
