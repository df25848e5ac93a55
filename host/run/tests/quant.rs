//! Runs whose linears are packed.

use std::path::Path;

use fthost_run::train::RunOptions;
use fthost_run::{Event, Interrupt, RunError};

use crate::support::{Workplace, figures, tensors};

const NF4: &[&str] = &["quant.nf4.double_quant=true", "train.frozen_dtype=bf16", "train.steps=12"];

fn losses(out: &Path) -> Vec<f64> {
    figures(out, "loss").into_iter().map(|it| it.1).collect()
}

/// It learns about what it learns on dense weights, and not bit for bit: something was rounded.
#[test]
fn an_adapter_learns_on_packed_weights() {
    let place = Workplace::new(24);
    place.run(NF4);
    let packed_losses = losses(&place.path("out"));
    place.run(&["train.steps=12", "output.dir=dense"]);
    let dense_losses = losses(&place.path("dense"));
    assert!(packed_losses.last() < packed_losses.first(), "{packed_losses:?}");
    assert_ne!(packed_losses, dense_losses);
    for (packed, dense) in packed_losses.iter().zip(&dense_losses) {
        assert!((packed - dense).abs() < 0.1 * dense, "{packed} beside {dense}");
    }
}

#[test]
fn resume_equals_uninterrupted() {
    let place = Workplace::new(24);
    place.run(NF4);
    let adapter = |out: &str| tensors(&place.path(out).join("adapter/adapter_model.safetensors"));
    let parts = [NF4, &["output.dir=parts"]].concat();
    let interrupt = Interrupt::none();
    let options = RunOptions { interrupt: interrupt.clone(), ..RunOptions::default() };
    let stopped = place.watch(&parts, &options, &mut |event| match event {
        Event::Stepped(it) if it.step == 5 => interrupt.raise(15),
        _ => {}
    });
    assert!(matches!(stopped, Err(RunError::Interrupted { step: 5, .. })));
    let options = RunOptions { resume: true, ..RunOptions::default() };
    place.watch(&parts, &options, &mut |_| ()).unwrap();
    assert!(adapter("parts") == adapter("out"));
    // Another packing is another run.
    let other = [&parts[..], &["quant.nf4.block_size=128"]].concat();
    let refused = place.watch(&other, &options, &mut |_| ()).unwrap_err().to_string();
    assert!(refused.contains("quant.nf4.block_size"), "{refused}");
}
