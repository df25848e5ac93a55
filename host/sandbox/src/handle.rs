//! One instance of a component in one role: made at its first call, dropped when it traps, made anew at the next.

use std::sync::Arc;
use std::time::Duration;

use fthost_data::{Failure, RoleError};
use wasmtime::component::InstancePre;
use wasmtime::{Engine, Store, Trap, UpdateDeadline};

use crate::component::TICK;
use crate::contract::{Bind, Called, Contract};
use crate::state::{Shared, State, Stopped};

/// The number of a call that belongs to no role: `describe`, `configure`.
const NO_CALL: u64 = u64::MAX;

/// The number of the first call at an optimizer step: what is drawn there does not depend on the steps before.
pub(crate) fn first_call(step: u64) -> u64 {
    step << 32
}

/// What instances are made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) engine: Engine,
    pub(crate) pre: InstancePre<State>,
    pub(crate) contract: Contract,
    pub(crate) shared: Arc<Shared>,
    /// One JSON object.
    pub(crate) config: String,
}

/// An instance and the way to make another.
pub(crate) struct Handle<G> {
    parts: Parts,
    live: Option<(Store<State>, G)>,
    calls: u64,
}

impl<G: Bind> Handle<G> {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts, live: None, calls: 0 }
    }

    /// Calls the guest within its limits. `Ok(Err)` of `call` is the plugin's own failure and keeps the instance; a
    /// trap drops it. `number` decides the random numbers.
    pub(crate) fn call_numbered<R>(
        &mut self,
        number: u64,
        items: usize,
        call: impl FnOnce(&G, &mut Store<State>) -> Called<R>,
    ) -> Result<R, Failure> {
        let (mut store, guest) = match self.live.take() {
            Some(live) => live,
            None => start(&self.parts)?,
        };
        begin(&mut store, number);
        let called = call(&guest, &mut store);
        store.data().end_call(items as u64, fuel_used(&store));
        match called {
            Ok(result) => {
                self.live = Some((store, guest));
                result.map_err(|message| Failure::Plugin { message })
            }
            Err(error) => Err(failure(&error, store.data())),
        }
    }

    /// As [`Handle::call_numbered`], numbered one after the other; the call is named in the error.
    pub(crate) fn call<R>(
        &mut self,
        name: &'static str,
        items: usize,
        call: impl FnOnce(&G, &mut Store<State>) -> Called<R>,
    ) -> Result<R, RoleError> {
        let number = self.calls;
        self.calls += 1;
        self.call_numbered(number, items, call).map_err(|failure| {
            self.parts.shared.meter.lock().outcome(failure.kind(), 1);
            RoleError { plugin: self.parts.shared.plugin.clone(), call: name, items, failure }
        })
    }

    /// The next call is the first at `step`, unless calls at that step are under way.
    pub(crate) fn at_step(&mut self, step: u64) {
        if self.calls >> 32 != step {
            self.calls = first_call(step);
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.parts.shared
    }
}

/// A fresh instance without configuration.
pub(crate) fn bare<G: Bind>(parts: &Parts) -> Result<(Store<State>, G), Failure> {
    let mut store = store(parts);
    begin(&mut store, NO_CALL);
    let guest =
        G::bind(parts.contract, &mut store, &parts.pre).map_err(|error| failure(&error, store.data()))?;
    parts.shared.meter.lock().instances += 1;
    Ok((store, guest))
}

/// Gives an instance its configuration; the plugin's problems, each as key and message.
pub(crate) fn configure<G: Bind>(
    parts: &Parts,
    store: &mut Store<State>,
    guest: &G,
) -> Result<Result<(), Vec<(String, String)>>, Failure> {
    begin(store, NO_CALL);
    guest.configure(store, &parts.config).map_err(|error| failure(&error, store.data()))
}

/// A fresh, configured instance.
fn start<G: Bind>(parts: &Parts) -> Result<(Store<State>, G), Failure> {
    let (mut store, guest) = bare(parts)?;
    configure(parts, &mut store, &guest)?.map_err(|problems| Failure::Contract {
        message: format!("refused the configuration it had accepted: {problems:?}"),
    })?;
    Ok((store, guest))
}

/// A store with the limits of its state in force.
fn store(parts: &Parts) -> Store<State> {
    let mut store = Store::new(&parts.engine, State::new(Arc::clone(&parts.shared)));
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
fn begin(store: &mut Store<State>, call: u64) {
    store.data_mut().begin_call(call);
    let limits = store.data().limits();
    let (deadline, fuel) = (limits.deadline(), limits.fuel);
    store.set_epoch_deadline(ticks(deadline));
    if let Some(fuel) = fuel {
        store.set_fuel(fuel).expect("the engine was made with fuel");
    }
}

/// Fuel that the call used; 0 where it is not counted.
fn fuel_used(store: &Store<State>) -> u64 {
    let left = store.data().limits().fuel.zip(store.get_fuel().ok());
    left.map_or(0, |(given, left)| given.saturating_sub(left))
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
