//! SIGINT and SIGTERM: the first lets the step in work end and a checkpoint be saved, a second ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
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

    /// Comes by SIGINT or SIGTERM too.
    ///
    /// # Errors
    /// A system that refuses to register them.
    pub fn on_signals() -> std::io::Result<Self> {
        let interrupt = Self::default();
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the exit not yet armed.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(&armed))?;
            flag::register_usize(signal, Arc::clone(&interrupt.signal), signal as usize)?;
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
