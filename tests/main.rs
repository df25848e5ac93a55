//! What holds for the repository as a whole and for the `fthost` program. One binary, a module a subject.

mod architecture;
mod ci;
mod cli;
mod generate;
mod models;
mod support;
