//! Experiments with TCP's ways to go wrong: each sets up both ends, drives them, looks at the
//! kernel's own socket table, explains what is seen, and checks that it is so.

mod lesson;
mod picture;
