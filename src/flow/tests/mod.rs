//! The flow from inside.
