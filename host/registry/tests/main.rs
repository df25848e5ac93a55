//! Packages shared between two users: through a folder, and through a real registry on loopback.

mod corpus;
mod folder;
mod registry;
#[path = "../../../tests/support/registry.rs"]
mod started;
mod support;
