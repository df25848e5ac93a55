//! WASI for guests whose language can't do without: a clock that stands still, seeded random numbers, and nothing else.
//!
//! No environment, no arguments, no file, closed standard input; what is printed is thrown away. Sockets and HTTP are
//! refused when a component is loaded. Nothing of it can wait: a pollable of any time is ready at once, so that a guest
//! can't sleep past its deadline in the host.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Infallible, SeedableRng, TryRng};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use crate::state::State;

/// Packages of WASI 0.2 that a component may import.
const OFFERED: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];

/// Resources (streams, pollables) that an instance may hold at one time.
const HELD: usize = 10_000;

/// 2000-01-01T00:00:00Z: late enough for libraries that distrust 1970.
const NOW: Duration = Duration::from_secs(946_684_800);

/// Whether a component may import `name`.
pub(crate) fn offers(name: &str) -> bool {
    let version = name.rsplit_once('@').map_or("", |it| it.1);
    OFFERED.iter().any(|it| name.starts_with(it)) && version.starts_with("0.2.")
}

/// An instance's side of WASI.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    random: SharedRandom,
}

impl Wasi {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let random = SharedRandom(Arc::new(Mutex::new(ChaCha8Rng::from_seed(seed))));
        let ctx = WasiCtx::builder()
            .secure_random(random.clone())
            .insecure_random(random.clone())
            .insecure_random_seed(0)
            .wall_clock(Stopped)
            .monotonic_clock(Stopped)
            .allow_ip_name_lookup(false)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HELD);
        Self { ctx, table, random }
    }

    /// Random numbers depend on the call alone.
    pub(crate) fn begin_call(&mut self, seed: [u8; 32]) {
        *self.random.0.lock().unwrap_or_else(PoisonError::into_inner) = ChaCha8Rng::from_seed(seed);
    }
}

#[derive(Clone)]
struct SharedRandom(Arc<Mutex<ChaCha8Rng>>);

impl SharedRandom {
    fn with<R>(
        &mut self,
        draw: impl FnOnce(&mut ChaCha8Rng) -> Result<R, Infallible>,
    ) -> Result<R, Infallible> {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TryRng for SharedRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.with(TryRng::try_next_u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.with(TryRng::try_next_u64)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.with(|it| it.try_fill_bytes(bytes))
    }
}

/// The clock that stands still.
struct Stopped;

impl HostWallClock for Stopped {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        NOW
    }
}

impl HostMonotonicClock for Stopped {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}

/// What a guest waits for when it wants to sleep.
struct Ready;

#[wasmtime_wasi::async_trait]
impl Pollable for Ready {
    async fn ready(&mut self) {}
}

/// `wasi:clocks/monotonic-clock` over an instance's table.
struct Clock<'a>(&'a mut ResourceTable);

struct HasClock;

impl HasData for HasClock {
    type Data<'a> = Clock<'a>;
}

impl monotonic_clock::Host for Clock<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::now(&Stopped))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(HostMonotonicClock::resolution(&Stopped))
    }

    fn subscribe_instant(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let ready = self.0.push(Ready)?;
        subscribe(self.0, ready)
    }

    fn subscribe_duration(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe_instant(0)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

/// WASI's interfaces, the clock that waits replaced by one that does not.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<State, HasClock>(linker, |state| Clock(&mut state.wasi().table))?;
    linker.allow_shadowing(false);
    Ok(())
}
