//! The roster in a world of its own: told as stories, and played through in random histories.

mod clock;
mod endings;
mod histories;
mod replacement;
mod rules;
mod standby;
mod stories;
mod world;
