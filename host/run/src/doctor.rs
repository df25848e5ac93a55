//! What this machine has for fthost: processor, memory, CUDA driver, guest toolchain, versions.

use std::path::Path;
use std::process::Command;

use fthost_engine::device::{cuda_driver, cuda_libdevice};
use serde::Serialize;

use crate::standard;

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// Whether it is there, or good enough.
    pub fine: bool,
    /// What was found.
    pub found: String,
    /// What to do about it, where there is something.
    pub hint: Option<String>,
}

/// Memory below which fine-tuning a model of 135 million weights is likely to fail.
const MEMORY_WANTED: u64 = 4 << 30;

/// Everything, in a fixed order. `root` is where the guests' toolchain is looked for: the repository.
pub fn examine(root: &Path) -> Vec<Finding> {
    vec![versions(), processor(), memory(), cuda(), standard_plugins(), guest_toolchain(root)]
}

fn versions() -> Finding {
    let lock = include_str!("../../../Cargo.lock");
    let locked = |package: &str| {
        let entry = lock.split("[[package]]").find(|it| it.contains(&format!("name = \"{package}\"\n")));
        let version = entry.and_then(|it| it.split("version = \"").nth(1)?.split('"').next());
        version.unwrap_or("?").to_string()
    };
    let own = env!("CARGO_PKG_VERSION");
    let found = format!("fthost {own}, burn {}, wasmtime {}", locked("burn"), locked("wasmtime"));
    Finding { name: "versions", fine: true, found, hint: None }
}

fn processor() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let name = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|it| it.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    let threads = match std::env::var("RAYON_NUM_THREADS") {
        Ok(threads) => format!(", RAYON_NUM_THREADS = {threads}"),
        Err(_) => String::new(),
    };
    let found = format!("{cores} cores{threads}, {}{}", name.as_deref().unwrap_or("unknown"), simd());
    Finding { name: "cpu", fine: true, found, hint: None }
}

#[cfg(target_arch = "x86_64")]
fn simd() -> String {
    let known = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    known.iter().filter(|it| it.1).map(|it| format!(", {}", it.0)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn simd() -> String {
    format!(", {}", std::env::consts::ARCH)
}

/// Bytes of memory that programs can still take, where the system tells.
pub fn available_memory() -> Option<u64> {
    meminfo("MemAvailable")
}

fn meminfo(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|it| it * 1024)
}

fn memory() -> Finding {
    let (Some(total), Some(available)) = (meminfo("MemTotal"), available_memory()) else {
        let found = "`/proc/meminfo` does not tell".to_string();
        return Finding { name: "memory", fine: true, found, hint: None };
    };
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let fine = available >= MEMORY_WANTED;
    let hint = "use a smaller `train.micro_batch_size`, or `train.activation_checkpointing = \"block\"`";
    Finding {
        name: "memory",
        fine,
        found: format!("{:.1} GiB free of {:.1} GiB", gib(available), gib(total)),
        hint: (!fine).then(|| hint.to_string()),
    }
}

fn cuda() -> Finding {
    let built = cfg!(feature = "cuda");
    let driver = cuda_driver().map(|it| format!("driver for CUDA {}.{}", it / 1000, it % 1000 / 10));
    let libdevice = cuda_libdevice().is_some();
    let found = match (built, &driver) {
        (true, Some(driver)) if !libdevice => format!("{driver}, no `nvvm/libdevice/libdevice.10.bc`"),
        (true, Some(driver)) => driver.clone(),
        (true, None) => "no driver (`libcuda.so.1`)".to_string(),
        (false, Some(driver)) => format!("{driver}, but built without the feature `cuda`"),
        (false, None) => "built without the feature `cuda`; no driver (`libcuda.so.1`) either".to_string(),
    };
    let hint = match (built, driver.is_some()) {
        (false, true) => Some("build with `--features cuda`".to_string()),
        (true, true) if !libdevice => Some("set CUDA_PATH to a CUDA toolkit".to_string()),
        _ => None,
    };
    Finding { name: "cuda", fine: built && driver.is_some() && libdevice, found, hint }
}

fn standard_plugins() -> Finding {
    let names = standard::names();
    let found = match names.len() {
        0 => "none: this program was built before `plugins/build`".to_string(),
        count => format!("{count} in this program: {}", names.join(", ")),
    };
    let hint = "run `plugins/build`, then build the program again";
    let fine = !names.is_empty();
    Finding { name: "standard plugins", fine, found, hint: (!fine).then(|| hint.to_string()) }
}

/// `plugins/toolchain --check` where that script is; otherwise what it would look for.
fn guest_toolchain(root: &Path) -> Finding {
    const NAME: &str = "guest toolchain";
    let script = root.join("plugins/toolchain");
    if script.exists() {
        let output = Command::new(&script).arg("--check").current_dir(root).output();
        let (fine, said) = match output {
            Ok(output) => {
                let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
                (output.status.success(), String::from_utf8_lossy(&said).trim().to_string())
            }
            Err(error) => (false, error.to_string()),
        };
        let found = said.lines().next().unwrap_or(if fine { "ready" } else { "not there" }).to_string();
        let hint = (!fine).then(|| "run `plugins/toolchain`; only building plugins needs it".to_string());
        return Finding { name: NAME, fine, found, hint };
    }
    let rustup = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let target = "wasm32-unknown-unknown";
    let by_rustup = rustup.is_ok_and(|it| String::from_utf8_lossy(&it.stdout).lines().any(|it| it == target));
    let by_debian = root.join(".wasm-toolchain").is_dir();
    let found = match (by_rustup, by_debian) {
        (true, _) => format!("rustup has `{target}`"),
        (false, true) => "`.wasm-toolchain` is there".to_string(),
        (false, false) => format!("no `{target}` by rustup, no `.wasm-toolchain`"),
    };
    let fine = by_rustup || by_debian;
    let hint = format!("`rustup target add {target}`; only building plugins needs it");
    Finding { name: NAME, fine, found, hint: (!fine).then_some(hint) }
}
