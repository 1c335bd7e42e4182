//! Behaviour from outside: the real program, started as a user starts it, and what clients and the
//! kernel see of it. One binary, a module a subject.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "bench-hooks")]
mod allocations;
mod backlog;
#[cfg(feature = "test-hooks")]
mod balance;
#[cfg(feature = "capi")]
mod c_abi;
#[cfg(feature = "capi")]
mod c_examples;
mod chaos;
mod cli;
mod close;
#[cfg(feature = "test-hooks")]
mod close_always;
mod crash;
#[cfg(feature = "test-hooks")]
mod dispatch;
#[cfg(feature = "doctor")]
mod doctor;
#[cfg(feature = "doctor")]
mod doctor_acts;
#[cfg(feature = "test-hooks")]
mod faults;
#[cfg(feature = "load")]
mod generator;
#[cfg(feature = "test-hooks")]
mod handlers;
#[cfg(feature = "capi")]
mod header;
#[cfg(all(
    feature = "capi",
    feature = "doctor",
    feature = "lab",
    feature = "load"
))]
mod install;
#[cfg(feature = "lab")]
mod lab;
#[cfg(feature = "test-hooks")]
mod liar;
mod limits;
mod load;
mod messages;
#[cfg(feature = "test-hooks")]
mod policy;
mod processes;
mod refusals;
mod reload;
mod standby;
#[cfg(feature = "status")]
mod status;
#[cfg(feature = "test-hooks")]
mod stuck;
mod watchdog;
