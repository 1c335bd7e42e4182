#![doc = include_str!("links.md")]
#![doc = include_str!("README.md")]
// Each page is read here and as a file. Its links have two definitions, of which the first counts: `links.md` is for
// this documentation, and the end of each page for readers of the file.

#[doc = include_str!("links.md")]
#[doc = include_str!("crashes.md")]
pub mod crashes {}

#[doc = include_str!("links.md")]
#[doc = include_str!("dispatch.md")]
pub mod dispatch {}

#[doc = include_str!("links.md")]
#[doc = include_str!("exec.md")]
pub mod exec {}

#[doc = include_str!("links.md")]
#[doc = include_str!("isolation.md")]
pub mod isolation {}

#[doc = include_str!("links.md")]
#[doc = include_str!("lasting.md")]
pub mod lasting {}

#[doc = include_str!("links.md")]
#[doc = include_str!("listeners.md")]
pub mod listeners {}

#[doc = include_str!("links.md")]
#[doc = include_str!("logging.md")]
pub mod logging {}

#[doc = include_str!("links.md")]
#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("links.md")]
#[doc = include_str!("modes.md")]
pub mod modes {}

#[doc = include_str!("links.md")]
#[doc = include_str!("opening.md")]
pub mod opening {}

#[doc = include_str!("links.md")]
#[doc = include_str!("signals.md")]
pub mod signals {}

#[doc = include_str!("links.md")]
#[doc = include_str!("silence.md")]
pub mod silence {}

#[doc = include_str!("links.md")]
#[doc = include_str!("testing.md")]
pub mod testing {}
