//! What the program does where no model is named: it uses its own.

use std::process::Command;

use crate::support::root;

#[test]
fn a_run_that_names_no_model_trains_the_embedded_one() {
    let place = tempfile::tempdir().unwrap();
    let row =
        r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}"#;
    std::fs::write(place.path().join("rows.jsonl"), format!("{row}\n{row}\n")).unwrap();
    let file = place.path().join("run.toml");
    let text =
        "data.files = [\"rows.jsonl\"]\noutput.dir = \"out\"\nadapter.lora.rank = 4\ntrain.steps = 2\n";
    std::fs::write(&file, text).unwrap();
    let fthost = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fthost"));
        command.args(args).current_dir(root()).env("XDG_CACHE_HOME", place.path().join("cache"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let file = file.to_str().unwrap();
    assert!(fthost(&["check", file]).contains("the embedded one"));
    assert!(fthost(&["run", file]).contains("cache/fthost/models/embedded-"));
    assert!(place.path().join("out/adapter/adapter_model.safetensors").exists());
    let adapter = place.path().join("out/adapter").display().to_string();
    let answer = fthost(&["generate", "Hi", "--adapter", &adapter, "--max-new-tokens", "4"]);
    assert!(!answer.trim().is_empty());
}
