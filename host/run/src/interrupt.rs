//! SIGINT and SIGTERM: the first lets the step in work end and a checkpoint be saved, a SIGINT after it ends the program. A
//! SIGTERM after it does not: launchers and clusters send several, and SIGKILL to who does not end in time.
//!
//! SIGUSR1 is another SIGTERM: Open MPI's `mpirun` hands it on to its ranks at once, which it does not with SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// Whether someone wants the run to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Comes only by [`Interrupt::raise`].
    pub fn none() -> Self {
        Self::default()
    }

    /// Comes by SIGINT, SIGTERM or SIGUSR1 too.
    ///
    /// # Errors
    /// A system that refuses to register them.
    pub fn on_signals() -> std::io::Result<Self> {
        let interrupt = Self::default();
        let armed = Arc::new(AtomicBool::new(false));
        // Before the exit is armed: the first signal finds it so.
        flag::register_conditional_shutdown(SIGINT, 128 + SIGINT, Arc::clone(&armed))?;
        for (signal, taken_for) in [(SIGINT, SIGINT), (SIGTERM, SIGTERM), (SIGUSR1, SIGTERM)] {
            flag::register(signal, Arc::clone(&armed))?;
            flag::register_usize(signal, Arc::clone(&interrupt.signal), taken_for as usize)?;
        }
        Ok(interrupt)
    }

    /// As if `signal` had come.
    pub fn raise(&self, signal: i32) {
        self.signal.store(signal as usize, Ordering::Relaxed);
    }

    /// The signal that came, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }
}
