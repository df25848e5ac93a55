//! Ranks of NCCL, without a GPU: in place of the driver and of NCCL stand libraries of the same functions (`tests/support/nccl`), whose
//! device is the processor. So it is seen what is asked, with which counts and addresses and in which order, and what comes of it; NCCL
//! itself is not.

use std::path::{Path, PathBuf};
use std::process::Command;

use fthost_engine::device::DeviceKind;
use fthost_engine::parallel::nccl::Nccl;
use fthost_engine::parallel::{self, Collective, mpi};

use super::does_what_it_says;
use super::launch::{Launcher, launchers, run, under};

/// Builds what stands in place of both libraries; `None`, and `test` says so, without a C compiler.
pub fn stand_ins(test: &str) -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/support/nccl");
    for (source, library) in [("nccl.c", "libnccl.so.2"), ("cuda.c", "libcuda.so.1")] {
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join(library))
            .arg(sources.join(source));
        match compile.output() {
            Err(error) => {
                eprintln!("SKIPPED {test}: no C compiler ({error})");
                return None;
            }
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
    Some(folder)
}

/// `command` with these libraries before those of the machine.
pub fn with(mut command: Command, folder: &Path) -> Command {
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_path_buf())
        .chain(std::env::split_paths(&before).filter(|it| *it != PathBuf::new()));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(all).unwrap());
    command
}

#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank() {
    let by_environment = std::env::var_os("MASTER_PORT").is_some();
    let ranks = if by_environment { Nccl::by_environment() } else { Nccl::over(mpi::Mpi::open().unwrap()) };
    let ranks = ranks.unwrap();
    assert_eq!(ranks.name().contains(" and "), !by_environment, "{}", ranks.name());
    does_what_it_says(ranks);
}

#[test]
fn ranks_find_each_other_over_mpi() {
    let name = "ranks_find_each_other_over_mpi";
    let Some(folder) = stand_ins(name) else { return };
    for launcher in launchers(name) {
        for size in [2, 4] {
            let said = under(with(launcher.command(size), folder.path()), "parallel::nccl::as_a_rank");
            assert!(said.contains("under NCCL 2.27.3 and "), "{said}");
        }
    }
}

/// Three processes with the variables that `torchrun` sets.
#[test]
fn ranks_find_each_other_as_torchrun_tells_them() {
    let Some(folder) = stand_ins("ranks_find_each_other_as_torchrun_tells_them") else { return };
    let port = 20_000 + std::process::id() % 40_000;
    let threads = (0..3).map(|rank: usize| {
        let mut command = with(Launcher::none(), folder.path());
        let place = [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 3), ("FTHOST_TEST_RANKS", 3)];
        command.envs(place.map(|(key, it)| (key, it.to_string())));
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        std::thread::spawn(move || under(command, "parallel::nccl::as_a_rank"))
    });
    let threads: Vec<_> = threads.collect();
    let said: Vec<String> = threads.into_iter().map(|it| it.join().unwrap()).collect();
    assert!(said[0].contains("under NCCL 2.27.3\n"), "{}", said[0]);
}

#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank_that_is_refused() {
    let error = parallel::open(DeviceKind::Cuda(0)).unwrap_err();
    println!("said: {error}");
}

#[test]
fn what_is_missing_is_named() {
    let name = "parallel::nccl::as_a_rank_that_is_refused";
    let Some(folder) = stand_ins("what_is_missing_is_named") else { return };
    let place = |keys: &[(&str, &str)]| {
        let mut command = with(Launcher::none(), folder.path());
        command.envs([("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")]).envs(keys.iter().copied());
        under(command, name)
    };
    let at = [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")];
    let said = place(&[at[0], at[1], ("FTHOST_NCCL_LIBRARY", "libnccl_of_nobody.so")]);
    assert!(
        said.contains("they need NCCL: libnccl_of_nobody.so") && said.contains("nvidia-nccl-cu12"),
        "{said}"
    );
    let said = place(&at[..1]);
    assert!(said.contains("`MASTER_PORT` is not set"), "{said}");
    // One process too many for the devices of its machine.
    let said = place(&[at[0], at[1], ("FTHOST_TEST_DEVICES", "0")]);
    assert!(said.contains("there are 0 devices"), "{said}");
    for launcher in launchers("what_is_missing_is_named") {
        let mut command = with(launcher.command(2), folder.path());
        command.env("FTHOST_NCCL_LIBRARY", "libnccl_of_nobody.so");
        let output = run(command, name);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.matches("said: several ranks").count() == 2, "{said}");
    }
}

/// NCCL itself, where `FTHOST_TEST_NCCL` names its library: it is loaded, and what fails without a device is told in words.
#[test]
fn the_library_itself_is_loaded() {
    let Some(library) = std::env::var_os("FTHOST_TEST_NCCL") else {
        eprintln!("SKIPPED the_library_itself_is_loaded: FTHOST_TEST_NCCL is not set");
        return;
    };
    let Some(folder) = stand_ins("the_library_itself_is_loaded") else { return };
    let mut command = with(Launcher::none(), folder.path());
    command.envs([("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")]);
    command.env("FTHOST_NCCL_LIBRARY", library).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", "23456");
    let said = under(command, "parallel::nccl::as_a_rank_that_is_refused");
    assert!(said.contains("said: nccl") && said.contains("failed: "), "{said}");
}

/// On a device whose memory is reached by addresses, as a GPU's is: CubeCL's CPU runtime.
#[cfg(feature = "cubecl-cpu")]
mod on_devices {
    use burn::tensor::Tensor;
    use fthost_engine::Device;
    use fthost_engine::adapters::{LoraConfig, attach_lora};
    use fthost_engine::checkpoint::{LoadConfig, load_model_as};
    use fthost_engine::device::DeviceMemory;
    use fthost_engine::nn::FloatDtype;
    use fthost_engine::optim::{AdamW, MomentStorage};
    use fthost_engine::parallel::{Collective, Ranks};
    use fthost_engine::shard::{Offload, ParallelConfig, Zero};
    use fthost_engine::train::{TrainState, step};

    use super::*;
    use crate::support::{assert_close, golden};
    use crate::train::support::{batches, config, full_on, lora_on, trained};

    /// f32 on two runtimes, sums in another order.
    const TOLERANCE: f32 = 1e-4;

    /// An adapter on a base in bf16, whose words are two values each.
    fn narrow_on(device: &Device) -> TrainState {
        let load = LoadConfig { dtype: FloatDtype::Bf16, ..LoadConfig::default() };
        let mut model = load_model_as(&golden("train/model"), device, &load).unwrap();
        let adapter = LoraConfig { rank: 4, ..LoraConfig::default() };
        attach_lora(&mut model, &adapter, 3).unwrap();
        TrainState::new(model, Some(adapter.into()))
    }

    #[test]
    #[ignore = "a rank: needs a launcher"]
    fn as_a_rank() {
        let ranks = Ranks::new(Nccl::over(mpi::Mpi::open().unwrap()).unwrap());
        let device = Device::cpu();
        assert!(ranks.on_device().is_some());
        assert_eq!(DeviceMemory::of(Tensor::zeros([3], &device)).unwrap().bytes(), 12);
        let shared = ParallelConfig { data_parallel_shard: 2, ..ParallelConfig::default() };
        let second = ParallelConfig { zero: Zero::Two, ..shared.clone() };
        let offloaded = ParallelConfig { offload: Offload::All, ..shared.clone() };
        // That runtime takes its time: every way once.
        let kinds: [(&str, fn(&Device) -> TrainState, &[ParallelConfig]); 3] = [
            ("full", full_on, &[ParallelConfig::default(), shared.clone(), second, offloaded]),
            ("lora", lora_on, &[shared.clone()]),
            ("bf16", narrow_on, &[shared]),
        ];
        for (kind, begin, meshes) in kinds {
            let mut alone = begin(&Device::flex());
            let mut alone_step = |it| step(&mut alone, &batches(it), &config(1e-2)).unwrap().loss;
            let expected = [alone_step(0), alone_step(1)];
            for parallel in meshes {
                let what = format!("{kind}, {parallel:?}");
                println!("{what}");
                let mut state = begin(&device);
                state.ranks = ranks.clone();
                if parallel.offload != Offload::None {
                    state.optimizer = AdamW::new(MomentStorage::Host);
                }
                if let Some(mesh) = parallel.mesh(&ranks).unwrap() {
                    state.share(&mesh);
                    state.ranks = mesh.ranks(&ranks);
                }
                for (index, expected) in expected.iter().enumerate() {
                    let loss = step(&mut state, &batches(index), &config(1e-2)).unwrap().loss;
                    assert!((loss - expected).abs() < f64::from(TOLERANCE), "{what}: {loss} for {expected}");
                }
                state.model = state.model.whole();
                for ((name, got), (_, expected)) in trained(&state).iter().zip(&trained(&alone)) {
                    assert_close(&format!("{what}: {name}"), got, expected, TOLERANCE);
                }
            }
        }
        println!("as one process does");
    }

    #[test]
    fn ranks_share_a_model_in_the_memory_of_devices() {
        let name = "ranks_share_a_model_in_the_memory_of_devices";
        let Some(folder) = stand_ins(name) else { return };
        for launcher in launchers(name).into_iter().take(1) {
            let said =
                under(with(launcher.command(2), folder.path()), "parallel::nccl::on_devices::as_a_rank");
            assert_eq!(said.matches("as one process does").count(), 2, "{said}");
        }
    }
}
