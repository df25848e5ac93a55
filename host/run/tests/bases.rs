//! An adapter and the weights it was trained on.

use fthost_run::RunError;
use fthost_run::models::StoredDtype;
use fthost_run::models::combine::{Combination, Weighted, combine};
use fthost_run::train::RunOptions;

use crate::support::Workplace;

/// `from`'s run file goes on with an adapter; the model's weights are others by one bit.
#[test]
fn an_adapter_is_not_put_on_other_weights() {
    let place = Workplace::new(8);
    place.run(&["train.steps=1"]);
    let (model, other) = (place.path("model"), place.path("other"));
    std::fs::create_dir(&other).unwrap();
    for entry in std::fs::read_dir(&model).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
    }
    let go_on = |model: &str| {
        let model = format!("model.path={model}");
        let adapter = format!("adapter={{peft = {{path = {:?}}}}}", place.path("out/adapter"));
        let run = [&model[..], &adapter, "output.dir=next", "train.steps=1"];
        place.watch(&run, &RunOptions { overwrite: true, ..RunOptions::default() }, &mut |_| ())
    };
    go_on("other").expect("equal weights in another folder");
    let weights = other.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let refused = go_on("other").unwrap_err();
    assert!(
        matches!(&refused, RunError::OtherBase { found, expected, .. } if found != expected),
        "{refused}"
    );
    // Whoever says that the model is the same may go on.
    std::fs::remove_file(place.path("out/adapter/fthost.base.json")).unwrap();
    go_on("other").unwrap();
}

#[test]
fn adapters_of_different_weights_are_not_combined() {
    let place = Workplace::new(8);
    for out in ["one", "two"] {
        place.run(&["train.steps=1", &format!("output.dir={out}")]);
    }
    let combined = || {
        let of = |name: &str| Weighted { folder: place.path(name).join("adapter"), weight: 0.5 };
        let adapters = [of("one"), of("two")];
        combine(&adapters, &Combination::Linear, None, &place.path("both"), StoredDtype::F32, true)
    };
    combined().unwrap();
    let note = |of: &str| std::fs::read_to_string(place.path(of).join("fthost.base.json"));
    assert_eq!(note("both").unwrap(), note("one/adapter").unwrap());
    let changed = note("two/adapter").unwrap().replace("sha256:", "sha256:0");
    std::fs::write(place.path("two/adapter/fthost.base.json"), changed).unwrap();
    assert!(matches!(combined().unwrap_err(), RunError::TwoBases { .. }));
    std::fs::remove_file(place.path("two/adapter/fthost.base.json")).unwrap();
    combined().unwrap();
    assert!(note("both").is_err(), "what one does not say is not said of both");
}
