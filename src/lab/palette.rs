//! One colour for each state, wherever it is shown. The colours are Okabe and Ito's, which people who
//! see few colours can tell apart; CLOSE_WAIT has the loudest.

use anstyle::{AnsiColor, Style};

use crate::inspect::sockets::State;

/// For pictures and pages, on a light ground.
pub(crate) fn colour(state: State) -> &'static str {
    match state {
        State::Established => "#009e73",
        State::SynSent | State::SynRecv => "#8a8a8a",
        State::FinWait1 => "#56b4e9",
        State::FinWait2 => "#0072b2",
        State::CloseWait => "#d55e00",
        State::Closing => "#cc79a7",
        State::LastAck => "#e69f00",
        State::TimeWait => "#b0b0b0",
        State::Listen => "#404040",
        State::Close => "#000000",
    }
}

/// For a terminal, on any ground.
pub(crate) fn style(state: State) -> Style {
    match state {
        State::Established => AnsiColor::Green.on_default(),
        State::CloseWait => AnsiColor::Red.on_default().bold(),
        State::FinWait1 | State::FinWait2 => AnsiColor::Blue.on_default(),
        State::LastAck | State::Closing => AnsiColor::Yellow.on_default(),
        State::SynSent | State::SynRecv => AnsiColor::Magenta.on_default(),
        State::TimeWait => Style::new().dimmed(),
        State::Listen | State::Close => Style::new(),
    }
}
