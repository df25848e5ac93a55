//! What the bench programs share: the words of a command line, inputs, times by two clocks, memory, and lines of JSON.

// Each program takes what it needs.
#![allow(dead_code)]

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use fthost_kernels::pull_back;

/// Ours first, then what it is compared with.
pub const VARIANTS: [&str; 2] = ["ours", "reference"];

/// A round repeats a call until it has lasted this long: the system counts computing in ticks of up to 4 ms.
const ROUND_MS: f64 = 100.0;

/// The command line's words; cargo passes `--bench` to every benchmark.
pub struct Words(Vec<String>);

impl Words {
    pub fn read() -> Self {
        Self(std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect())
    }

    /// Whether `it`, one of `choices`, is asked for: by name, or because none of them is.
    pub fn ask(&self, choices: &[&str], it: &str) -> bool {
        !self.0.iter().any(|word| choices.contains(&word.as_str())) || self.0.iter().any(|word| word == it)
    }
}

/// `ROUNDS` of the environment, or `usual`.
pub fn rounds(usual: usize) -> usize {
    std::env::var("ROUNDS").ok().and_then(|it| it.parse().ok()).unwrap_or(usual)
}

pub fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

/// A leaf of a graph where one is wanted.
pub fn leaf<const D: usize>(tensor: &Tensor<D>, tracked: bool) -> Tensor<D> {
    if tracked { tensor.clone().autodiff().require_grad() } else { tensor.clone() }
}

/// Milliseconds of one call, by the clock and of all threads' computing.
#[derive(Clone, Copy)]
pub struct Times {
    pub clock: f64,
    pub cpu: f64,
}

impl Times {
    /// Of one of `calls` that took this long together.
    pub fn over(self, calls: usize) -> Self {
        Self { clock: self.clock / calls as f64, cpu: self.cpu / calls as f64 }
    }
}

/// Nanoseconds that the process's threads have computed; 0 where the system does not say. A pool's threads do not end.
fn computed() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let times = threads.filter_map(|it| std::fs::read_to_string(it.path().join("schedstat")).ok());
    times.filter_map(|it| it.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// The least of all calls by the clock, and of all rounds' means of computing; after a call that is not counted.
pub fn least(rounds: usize, mut f: impl FnMut()) -> Times {
    let mut call = || {
        let begin = Instant::now();
        f();
        begin.elapsed().as_secs_f64() * 1e3
    };
    let calls = (ROUND_MS / call()).ceil().clamp(1.0, 10_000.0) as usize;
    let mut least = Times { clock: f64::INFINITY, cpu: f64::INFINITY };
    for _ in 0..rounds {
        let before = computed();
        least.clock = (0..calls).map(|_| call()).fold(least.clock, f64::min);
        let each = computed().saturating_sub(before) as f64 / 1e6 / calls as f64;
        least.cpu = least.cpu.min(each);
    }
    least
}

/// Forward, and forward with the backward of a given gradient, as a block's backward has it; `f` makes a graph where it
/// is asked for one.
pub fn forward_and_backward(rounds: usize, f: impl Fn(bool) -> Tensor<2>) -> [Times; 2] {
    let downstream = random(f(false).dims());
    let both = || drop(std::hint::black_box(pull_back(f(true), downstream.clone()).backward()));
    [least(rounds, || drop(std::hint::black_box(f(false)))), least(rounds, both)]
}

/// As [`forward_and_backward`], of a loss or of the sum of log-probabilities.
pub fn forward_and_backward_of_sum(rounds: usize, f: impl Fn(bool) -> Tensor<1>) -> [Times; 2] {
    let both = || drop(std::hint::black_box(f(true).sum().backward()));
    [least(rounds, || drop(std::hint::black_box(f(false)))), least(rounds, both)]
}

/// What the process held when its inputs were not there yet.
pub struct Memory {
    before: f64,
}

impl Memory {
    pub fn now() -> Self {
        Self { before: status("VmRSS") }
    }

    /// Forgets what making the inputs took for a while.
    pub fn forget_peak() {
        // Where the system refuses, the peak is of everything since the program began.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }

    /// MiB that the process held at most since then, beyond what it held before the inputs.
    pub fn peak_mib(&self) -> f64 {
        status("VmHWM") - self.before
    }
}

/// A line of `/proc/self/status` in MiB; 0 where there is no such file.
fn status(key: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|it| it.strip_prefix(key)).unwrap_or_default();
    let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    number.parse::<f64>().unwrap_or_default() / 1024.0
}

/// A line of JSON that says what was measured.
pub struct Line(String);

impl Line {
    pub fn new(bench: &str, operation: &str, shape: &str, variant: &str) -> Self {
        Self(format!(
            "{{\"bench\": \"{bench}\", \"operation\": \"{operation}\", \"shape\": \"{shape}\", \"variant\": \"{variant}\""
        ))
    }

    pub fn number(self, key: &str, value: f64) -> Self {
        Self(format!("{}, \"{key}\": {value:.4}", self.0))
    }

    /// The keys `<kind>_ms` and `<kind>_cpu_ms`.
    pub fn times(self, kind: &str, times: Times) -> Self {
        self.number(&format!("{kind}_ms"), times.clock).number(&format!("{kind}_cpu_ms"), times.cpu)
    }

    pub fn print(self) {
        println!("{}}}", self.0);
    }
}
