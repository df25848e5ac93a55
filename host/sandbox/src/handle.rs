//! One instance of a component in one role: made at its first call, dropped when it traps, made anew at the next.

use std::time::Duration;

use fthost_data::{Failure, RoleError};
use wasmtime::component::InstancePre;
use wasmtime::{Engine, Store, Trap, UpdateDeadline};

use crate::component::TICK;
use crate::state::{State, StateParts, Stopped};

/// The bindings of one world.
pub(crate) trait World: Sized + Send {
    fn bind(store: &mut Store<State>, pre: &InstancePre<State>) -> wasmtime::Result<Self>;
    /// `about.configure`; each problem as `key` and message.
    fn configure(
        &self,
        store: &mut Store<State>,
        config: &str,
    ) -> wasmtime::Result<Result<(), Vec<(String, String)>>>;
}

/// What instances are made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) engine: Engine,
    pub(crate) pre: InstancePre<State>,
    pub(crate) state: std::sync::Arc<dyn Fn() -> StateParts + Send + Sync>,
    /// One JSON object.
    pub(crate) config: String,
}

/// An instance and the way to make another.
pub(crate) struct Handle<W> {
    parts: Parts,
    live: Option<(Store<State>, W)>,
    calls: u64,
}

impl<W: World> Handle<W> {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts, live: None, calls: 0 }
    }

    /// Calls the guest within its limits. `Ok(Err)` of `call` is the plugin's own failure and keeps the instance; a
    /// trap drops it.
    pub(crate) fn call<R>(
        &mut self,
        call: impl FnOnce(&W, &mut Store<State>) -> wasmtime::Result<Result<R, String>>,
    ) -> Result<R, Failure> {
        let number = self.calls;
        self.calls += 1;
        let (mut store, world) = match self.live.take() {
            Some(live) => live,
            None => self.start()?,
        };
        begin(&mut store, number);
        match call(&world, &mut store) {
            Ok(result) => {
                self.live = Some((store, world));
                result.map_err(|message| Failure::Plugin { message })
            }
            Err(error) => Err(failure(&error, store.data())),
        }
    }

    /// A fresh, configured instance.
    fn start(&self) -> Result<(Store<State>, W), Failure> {
        let mut store = store(&self.parts);
        begin(&mut store, u64::MAX);
        let world = W::bind(&mut store, &self.parts.pre).map_err(|error| failure(&error, store.data()))?;
        let configured = world.configure(&mut store, &self.parts.config);
        let configured = configured.map_err(|error| failure(&error, store.data()))?;
        configured.map_err(|problems| Failure::Contract {
            message: format!("refused the configuration it had accepted: {problems:?}"),
        })?;
        Ok((store, world))
    }

    /// As [`Handle::call`], with the call named in the error.
    pub(crate) fn call_role<R>(
        &mut self,
        plugin: &str,
        name: &'static str,
        items: usize,
        call: impl FnOnce(&W, &mut Store<State>) -> wasmtime::Result<Result<R, String>>,
    ) -> Result<R, RoleError> {
        self.call(call).map_err(|failure| RoleError {
            plugin: plugin.to_string(),
            call: name,
            items,
            failure,
        })
    }
}

/// A store with the limits of its state in force.
pub(crate) fn store(parts: &Parts) -> Store<State> {
    let mut store = Store::new(&parts.engine, State::new((parts.state)()));
    store.limiter(|state| state);
    let output_bytes = store.data().limits().output_bytes;
    store.set_hostcall_fuel(usize::try_from(output_bytes).unwrap_or(usize::MAX));
    store.epoch_deadline_callback(|context| match context.data().time_left() {
        Some(left) => Ok(UpdateDeadline::Continue(ticks(left))),
        None => Err(Stopped(Failure::Timeout { limit: context.data().limits().deadline() }).into()),
    });
    store
}

/// Epochs until `left` has passed. The engine's first tick may come at once, so one more.
fn ticks(left: Duration) -> u64 {
    (left.as_millis() / TICK.as_millis()) as u64 + 1
}

/// Budgets of a call begin anew.
pub(crate) fn begin(store: &mut Store<State>, call: u64) {
    store.data_mut().begin_call(call);
    let limits = store.data().limits();
    let (deadline, fuel) = (limits.deadline(), limits.fuel);
    store.set_epoch_deadline(ticks(deadline));
    if let Some(fuel) = fuel {
        store.set_fuel(fuel).expect("the engine was made with fuel");
    }
}

/// What a trap means. A limit that made an allocation fail is the cause of the trap that follows it.
pub(crate) fn failure(error: &wasmtime::Error, state: &State) -> Failure {
    if let Some(Stopped(failure)) = error.downcast_ref::<Stopped>() {
        return failure.clone();
    }
    let limits = state.limits();
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => return Failure::OutOfFuel { limit: limits.fuel.unwrap_or_default() },
        Some(Trap::StackOverflow) => return Failure::StackOverflow { limit: limits.stack_bytes },
        _ => {}
    }
    if let Some(failure) = &state.exceeded {
        return failure.clone();
    }
    let text = format!("{:#}", error.root_cause());
    // The error's type is private to wasmtime; its words are held by the test of huge output.
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        return Failure::OutputTooLarge { limit: limits.output_bytes };
    }
    let message = match &state.last_error {
        Some(line) => line.clone(),
        None => text.lines().next().unwrap_or_default().to_string(),
    };
    Failure::Trap { message }
}
