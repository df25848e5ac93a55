//! A smoke test of the fuzz targets (`fuzz/`): what they start from, without a fuzzer.

use crate::mirror::Mirror;
use crate::support::{component, sandbox};

#[test]
fn what_crosses_the_boundary_comes_back_as_it_was() {
    let mut mirror = Mirror::load();
    let texts = [
        "",
        "plain",
        "\0\u{7f}\u{85}\u{2028}\u{feff}",
        "\"quoted\\\" \u{1b}[31m\r\n\t",
        "中文、日本語 한국어 العربية हिन्दी ไทย 🏴󠁧󠁢󠁳󠁣󠁴󠁿 e\u{301}",
        r#"{"a": 1, "b": [null, true, 1e308, -0.0, 18446744073709551615], "": {"": ""}}"#,
        r#"{"deep": [[[[[[[[[[[[[[[[{"x": "y"}]]]]]]]]]]]]]]]]}"#,
        r#"{"twice": 1, "twice": 2}"#,
        "{\"broken\": ",
    ];
    texts.iter().for_each(|it| mirror.check(it));
    mirror.check(&"long 长 ".repeat(100_000));
}

#[test]
fn no_damaged_component_ends_the_host() {
    let (sandbox, _, _) = sandbox();
    let bytes = std::fs::read(component("tests/guests", "contract-0-1")).unwrap();
    assert!(sandbox.inspect_bytes("whole", &bytes).is_ok());
    // Headers and section boundaries lie close together at the front; the rest is sampled.
    let places = (0..64).chain((64..bytes.len()).step_by(bytes.len() / 40));
    for at in places {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        for damaged in [&flipped[..], &bytes[..at]] {
            if let Err(error) = sandbox.inspect_bytes("damaged", damaged) {
                assert!(error.to_string().contains("`damaged`"), "{error}");
            }
        }
    }
}
