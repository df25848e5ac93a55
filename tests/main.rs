//! What holds for the repository as a whole and for the `fthost` program. One binary, a module a subject.

mod architecture;
mod ci;
mod cli;
mod embedded;
mod generate;
mod hub;
mod models;
mod support;
