//! The engine's tests in one program.

mod engine;
mod staged;
mod toy;
