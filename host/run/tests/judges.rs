//! Judges in a folder.

use fthost_data::Prompt;
use fthost_engine::device::DeviceKind;
use fthost_run::judges::{JudgeConfig, OpenJudges};

use crate::support::Workplace;

#[test]
fn a_judge_in_a_folder_is_loaded_once() {
    let place = Workplace::new(1);
    let config = JudgeConfig::Folder { path: place.path("model") };
    let judges = OpenJudges::default();
    let asked = || {
        let mut judge = judges.open("big", &config, DeviceKind::default(), 1).unwrap();
        judge.logprobs(&[(Prompt::Text("a".into()), "b".into())]).unwrap()
    };
    let first = asked();
    std::fs::remove_dir_all(place.path("model")).unwrap();
    assert_eq!(asked(), first);
    assert!(judges.open("other", &config, DeviceKind::default(), 1).is_err(), "there is no such folder");
}
