//! Tests of the roster in a simulated world: stories, and random histories.

mod clock;
mod endings;
mod histories;
mod replacement;
mod rules;
mod standby;
mod stories;
mod world;
