//! The guide: topics that concern more than one type.
//!
//! | page | question |
//! |---|---|
//! | [`modes`] | Process mode or base mode? Which process runs what? |
//! | [`crashes`] | What does a client see when a worker dies, blocks or is replaced? |
//! | [`isolation`] | What can a worker reach, if its code turns against the server? |
//! | [`dispatch`] | Which worker gets a message? |
//! | [`memory`] | What does a fork share, and how much memory does a server take? |
//! | [`lasting`] | What lives longer than one callback: state, timers, groups, posts, long answers? |
//! | [`silence`] | What ends a client that is silent, slow or gone? |
//! | [`signals`] | How is a server stopped, reloaded, supervised? |
//! | [`logging`] | Where do the log lines go? |
//! | [`testing`] | How is a handler tested? |

#[doc = include_str!("crashes.md")]
pub mod crashes {}

#[doc = include_str!("dispatch.md")]
pub mod dispatch {}

#[doc = include_str!("isolation.md")]
pub mod isolation {}

#[doc = include_str!("lasting.md")]
pub mod lasting {}

#[doc = include_str!("logging.md")]
pub mod logging {}

#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("modes.md")]
pub mod modes {}

#[doc = include_str!("signals.md")]
pub mod signals {}

#[doc = include_str!("silence.md")]
pub mod silence {}

#[doc = include_str!("testing.md")]
pub mod testing {}
