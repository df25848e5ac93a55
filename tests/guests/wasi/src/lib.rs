//! A reward that tries what WASI could give: the first completion says what, the score is what it found.

wit_bindgen::generate!({
    inline: "
        package fthost:guest;
        world guest {
            include fthost:plugin/reward@1.0.0;
            import wasi:clocks/wall-clock@0.2.0;
            import wasi:clocks/monotonic-clock@0.2.0;
            import wasi:random/random@0.2.0;
            import wasi:cli/environment@0.2.0;
            import wasi:filesystem/preopens@0.2.0;
        }
    ",
    path: ["../../../wit", "wit"],
    generate_all,
});

use exports::fthost::plugin::{about, score};
use fthost::plugin::types::{Group, Outcome, Score};
use wasi::cli::environment;
use wasi::clocks::{monotonic_clock, wall_clock};
use wasi::filesystem::preopens;
use wasi::random::random;

struct Guest;

impl about::Guest for Guest {
    fn describe() -> about::Description {
        about::Description {
            name: "wasi".into(),
            version: "0.1.0".into(),
            summary: "Looks for what WASI gives".into(),
            config_schema: r#"{"type": "object"}"#.into(),
        }
    }

    fn configure(_: String) -> Result<(), Vec<about::ConfigProblem>> {
        Ok(())
    }
}

fn found(what: &str) -> f64 {
    match what {
        "wall clock" => wall_clock::now().seconds as f64,
        "monotonic clock" => {
            let first = monotonic_clock::now();
            (0..1000).map(|_| monotonic_clock::now()).max().unwrap_or(first).wrapping_sub(first) as f64
        }
        // A century, and then for ever.
        "sleep" => {
            monotonic_clock::subscribe_duration(100 * 365 * 24 * 3600 * 1_000_000_000).block();
            monotonic_clock::subscribe_instant(u64::MAX).block();
            1.0
        }
        "random" => (random::get_random_u64() >> 12) as f64,
        "environment" => (environment::get_environment().len() + environment::get_arguments().len()) as f64,
        "directories" => preopens::get_directories().len() as f64,
        "pollables" => {
            let mut held = Vec::new();
            loop {
                held.push(monotonic_clock::subscribe_instant(0));
            }
        }
        _ => -1.0,
    }
}

impl score::Guest for Guest {
    fn score(groups: Vec<Group>) -> Result<Vec<Vec<Outcome>>, String> {
        let outcome = |text: &str| Outcome::Ok(Score { value: found(text), components: Vec::new() });
        Ok(groups.iter().map(|it| it.completions.iter().map(|it| outcome(&it.text)).collect()).collect())
    }
}

export!(Guest);
