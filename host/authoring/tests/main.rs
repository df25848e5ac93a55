//! Packages as an author meets them. One binary, a module a subject.

mod cases;
mod scaffolds;
mod support;
