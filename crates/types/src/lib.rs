//! Names, ids, time, commands and outcomes: the ground floor that every other crate of Claviger stands on.
//!
//! Nothing here does I/O, reads a clock or draws a random number. A type that has rules has one fallible constructor, and
//! holding a value of it means that the rules hold ("parse, don't validate").

pub mod alg;
pub mod codec;
pub mod command;
pub mod duration;
pub mod name;
pub mod outcome;
pub mod permission;
pub mod reads;
pub mod role;
pub mod vault;
