//! Ranks under real launchers: each test starts this very program several times by one.
//!
//! `mpirun` is Open MPI's where it is on the path; `FTHOST_TEST_MPICH` names a folder with MPICH's `bin/mpiexec` and `lib`, for its
//! two binary interfaces. What is not there is skipped, and said so.

mod launch;
#[path = "../../../../tests/support/mpirun.rs"]
mod mpirun;
mod nccl;
mod shard;

use std::path::Path;
use std::time::{Duration, Instant};

use fthost_engine::device::DeviceKind;
use fthost_engine::parallel::{Collective, Flat, Patience, Ranks, Vigil, mpi};

use launch::{Launcher, launchers, under};

/// A rank, started by [`every_operation_does_what_it_says`].
#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank() {
    let most = std::env::var("FTHOST_TEST_MOST").ok().and_then(|it| it.parse().ok());
    let ranks = mpi::Mpi::open().unwrap();
    does_what_it_says(match most {
        Some(most) => ranks.with_most(most),
        None => ranks,
    });
}

/// What every rank checks.
pub fn does_what_it_says(ranks: impl Collective + 'static) {
    let (rank, size) = (ranks.global_rank(), ranks.size());
    assert_eq!(size.to_string(), std::env::var("FTHOST_TEST_RANKS").unwrap());
    assert_eq!(ranks.local_rank(), rank, "all are on one machine");
    for length in [0, 1, 13, 1000, 300_001] {
        let part = |of: usize| (0..length).map(move |it| (it * 7 + of * 13) as u8);
        let own: Vec<u8> = part(rank).collect();
        let mut all = vec![0; length * size];
        all[rank * length..][..length].copy_from_slice(&own);
        ranks.all_gather(&mut all).unwrap();
        assert_eq!(all, (0..size).flat_map(part).collect::<Vec<u8>>(), "{length}");
        for root in 0..size {
            let mut bytes = own.clone();
            ranks.broadcast(&mut bytes, root).unwrap();
            assert_eq!(bytes, part(root).collect::<Vec<u8>>(), "{length} of {root}");
        }
        // Small whole numbers: their sums are exact in any order.
        let value = |of: usize, at: usize| (at % 1000 + of * 3) as f32;
        let sum = |at: usize| (0..size).map(|of| value(of, at)).sum::<f32>();
        let mut values: Vec<f32> = (0..length).map(|it| value(rank, it)).collect();
        ranks.all_reduce(&mut values).unwrap();
        assert_eq!(values, (0..length).map(sum).collect::<Vec<f32>>(), "{length}");
        let all: Vec<f32> = (0..length * size).map(|it| value(rank, it)).collect();
        let mut own = vec![0.0; length];
        ranks.reduce_scatter(&all, &mut own).unwrap();
        assert_eq!(own, (rank * length..(rank + 1) * length).map(sum).collect::<Vec<f32>>(), "{length}");
    }
    let ranks = Ranks::new(ranks);
    assert!(ranks.any(rank == size - 1).unwrap() && !ranks.any(false).unwrap());
    assert_eq!(ranks.sum([1.0, rank as f64]).unwrap(), [size as f64, (size * (size - 1) / 2) as f64]);
    // Neighbours, and every other one.
    for of in [(|it| it / 2) as fn(usize) -> usize, |it| it % 2] {
        let part = ranks.of_group(of(rank)).unwrap();
        let members: Vec<usize> = (0..size).filter(|it| of(*it) == of(rank)).collect();
        assert_eq!(part.size(), members.len());
        assert_eq!(members[part.global_rank()], rank);
        assert_eq!(part.sum([rank as f64]).unwrap(), [members.iter().sum::<usize>() as f64]);
        let sent = part.begin_reduce_scatter(Flat::Host(vec![rank as f32; 2 * members.len()]));
        let Flat::Host(sums) = sent.wait() else { panic!("what was in the host's memory stays there") };
        assert_eq!(sums, [members.iter().sum::<usize>() as f32; 2]);
    }
    ranks.agree(&[("model", "a".into())]).unwrap();
    let differs =
        ranks.agree(&[("model", "a".into()), ("step", rank.to_string())]).map_err(|it| it.to_string());
    let expected = format!("rank {rank} has another step than the first: {rank}, not 0");
    assert_eq!(differs.is_ok(), rank == 0);
    assert!(differs.err().is_none_or(|it| it.starts_with(&expected)));
    ranks.barrier().unwrap();
    if rank == 0 {
        println!("under {}", ranks.name());
    }
}

/// Over shared memory and over TCP, on 1, 2 and 4 ranks, in one message and in parts.
#[test]
fn every_operation_does_what_it_says() {
    for launcher in launchers("every_operation_does_what_it_says") {
        for (size, most) in [(1, None), (2, None), (4, None), (2, Some("1000")), (3, Some("1000"))] {
            let mut command = launcher.command(size);
            most.iter().for_each(|it| {
                command.env("FTHOST_TEST_MOST", it);
            });
            let said = under(command, "parallel::as_a_rank");
            assert!(said.contains(launcher.library()), "{launcher:?}: {said}");
        }
    }
}

/// A rank that dies while the others wait for it, started by [`a_rank_that_dies_ends_the_others`].
#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank_that_dies() {
    let ranks = mpi::Mpi::open().unwrap();
    ranks.barrier().unwrap();
    if ranks.global_rank() == 1 {
        match std::env::var("FTHOST_TEST_END").unwrap().as_str() {
            "abort" => ranks.abort(3),
            // As the system does when memory is out.
            _ => drop(
                std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status(),
            ),
        }
        std::thread::sleep(Duration::from_mins(5));
    }
    let _ = ranks.barrier();
    std::thread::sleep(Duration::from_mins(5));
}

#[test]
fn a_rank_that_dies_ends_the_others() {
    for launcher in launchers("a_rank_that_dies_ends_the_others") {
        for how in ["abort", "kill"] {
            let mut command = launcher.command(3);
            command.env("FTHOST_TEST_END", how);
            let began = Instant::now();
            let output = launch::run(command, "parallel::as_a_rank_that_dies");
            assert!(!output.status.success(), "{launcher:?}, {how}");
            assert!(began.elapsed() < Duration::from_mins(2), "{launcher:?}, {how}: {:?}", began.elapsed());
        }
    }
}

/// A rank that stops, or goes somewhere else, while the others wait for it, started by [`a_rank_that_hangs_is_named`].
#[test]
#[ignore = "a rank: needs a launcher"]
fn as_a_rank_that_hangs() {
    let ranks = Ranks::new(mpi::Mpi::open().unwrap());
    let folder = std::env::var("FTHOST_TEST_FOLDER").unwrap();
    let patience = Patience { call: Duration::from_secs(4), sign: Duration::from_secs(2) };
    let all = ranks.clone();
    let end = move |error| {
        println!("said: {error}");
        all.abort(7)
    };
    let vigil = Vigil::start(&ranks, Path::new(&folder), patience, end).unwrap();
    for _ in 0..3 {
        // Longer than a rank may be silent, and shorter than it may be waited for.
        if ranks.is_first() {
            std::thread::sleep(Duration::from_millis(2500));
        }
        ranks.barrier().unwrap();
    }
    if ranks.global_rank() == 1 {
        match std::env::var("FTHOST_TEST_END").unwrap().as_str() {
            "stop" => drop(
                std::process::Command::new("kill").args(["-STOP", &std::process::id().to_string()]).status(),
            ),
            "sleep" => std::thread::sleep(Duration::from_mins(5)),
            _ => return vigil.done(),
        }
    }
    if std::env::var("FTHOST_TEST_END").unwrap() == "done" {
        // Twice as long as a rank may be silent.
        std::thread::sleep(Duration::from_secs(4));
        return vigil.done();
    }
    let _ = ranks.begin_all_gather(Flat::Host(vec![0.0; 3])).wait();
}

/// Whoever stops gives no sign; whoever is busy elsewhere does, and has not come. Ranks that are done are not missed.
#[test]
fn a_rank_that_hangs_is_named() {
    for launcher in launchers("a_rank_that_hangs_is_named").into_iter().take(1) {
        for (how, expected) in [("stop", "rank 1 (process "), ("sleep", "waited 4 s for rank 1 (process ")] {
            let folder = tempfile::tempdir().unwrap();
            let mut command = launcher.command(3);
            command.env("FTHOST_TEST_END", how).env("FTHOST_TEST_FOLDER", folder.path());
            let began = Instant::now();
            let output = launch::run(command, "parallel::as_a_rank_that_hangs");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(!output.status.success() && said.contains(expected), "{how}: {said}");
            let silent = said.contains("has given no sign of life for");
            assert_eq!(silent, how == "stop", "{said}");
            assert!(began.elapsed() < Duration::from_mins(1), "{how}: {:?}", began.elapsed());
        }
        let folder = tempfile::tempdir().unwrap();
        let mut command = launcher.command(3);
        command.env("FTHOST_TEST_END", "done").env("FTHOST_TEST_FOLDER", folder.path());
        let said = under(command, "parallel::as_a_rank_that_hangs");
        assert!(!said.contains("said:"), "{said}");
    }
}

/// Several ranks and no library: what was looked for, and what to do.
#[test]
#[ignore = "a rank: needs a launcher's environment"]
fn as_a_rank_without_mpi() {
    println!("said: {}", fthost_engine::parallel::open(DeviceKind::Cpu).unwrap_err());
}

#[test]
fn what_is_missing_is_named() {
    let asked = |key: &str, library: &str| {
        let mut command = Launcher::none();
        command.env(key, "2").env("FTHOST_MPI_LIBRARY", library);
        under(command, "parallel::as_a_rank_without_mpi")
    };
    let said = asked("PMI_SIZE", "libmpi_of_nobody.so");
    assert!(
        said.contains("no MPI library could be loaded") && said.contains("libmpi_of_nobody.so"),
        "{said}"
    );
    let said = asked("WORLD_SIZE", "libmpi_of_nobody.so");
    assert!(said.contains("torchrun started 2 ranks") && said.contains("mpirun -np 2"), "{said}");
    // Of one launcher inside of another the greater number counts.
    let mut command = Launcher::none();
    command.env("SLURM_STEP_NUM_TASKS", "1").env("WORLD_SIZE", "4");
    let said = under(command, "parallel::as_a_rank_without_mpi");
    assert!(said.contains("torchrun started 4 ranks"), "{said}");
}
