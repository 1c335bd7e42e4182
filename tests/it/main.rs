//! Behaviour from outside: the real program, started as by a user, as seen by clients and the kernel.
//! One binary, with a module for each subject.

#[path = "../common/mod.rs"]
mod common;

mod allocations;
mod backlog;
mod balance;
mod c_abi;
mod c_alone;
mod c_crash;
mod c_examples;
mod c_sqlite;
mod chaos;
mod cli;
mod close;
mod close_always;
mod crash;
mod cut;
mod dispatch;
mod doctor;
mod doctor_acts;
mod errors;
mod examples;
mod faults;
mod flow_control;
mod generator;
mod handlers;
mod header;
mod inherited;
mod install;
mod isolation;
mod lab;
mod layers;
mod liar;
mod limits;
mod load;
mod logging;
mod memory;
mod messages;
mod moves;
mod newcomers;
mod policy;
mod posts;
mod processes;
mod refusals;
mod reload;
mod sessions;
mod signals;
mod silence;
mod standby;
mod status;
mod stopped;
mod streams;
mod stuck;
mod timers;
mod watchdog;
