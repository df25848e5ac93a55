//! What holds for the repository as a whole and for the `fthost` program. One binary, a module a subject.

mod adapters;
mod architecture;
mod authoring;
mod ci;
mod cli;
mod contract;
mod data;
mod embedded;
mod estimate;
mod generate;
mod hub;
mod interrupt;
mod launch;
mod models;
mod output;
mod plugins;
mod ranks;
mod recipes;
mod rollouts;
mod scores;
mod sharing;
mod support;
mod tensorboard;
mod token_cache;
