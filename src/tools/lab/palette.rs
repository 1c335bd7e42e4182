//! One colour for each state, in text, pictures and pages. The colours are Okabe and Ito's, which people
//! with impaired colour vision can tell apart; CLOSE_WAIT has the most striking one.

use std::fmt;

use anstyle::{AnsiColor, Style};

use crate::dark;
use crate::sockets::State;

/// Red, green, blue. Displays as `#d55e00`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Colour(pub(crate) u8, pub(crate) u8, pub(crate) u8);

impl Colour {
    /// A background for dark text.
    pub(crate) fn tint(self) -> Colour {
        self.towards(0xff, 0.83)
    }

    /// A text colour on white or on the tint, with a contrast of at least 4.5:1, WCAG 2.2, 1.4.3.
    pub(crate) fn ink(self) -> Colour {
        self.towards(0, 0.52)
    }

    /// The background for light text, on a dark page.
    pub(crate) fn dark_tint(self) -> Colour {
        self.towards(0x1b, 0.74)
    }

    /// A text colour on the dark tint, with the same contrast.
    pub(crate) fn dark_ink(self) -> Colour {
        self.towards(0xff, 0.55)
    }

    fn towards(self, end: u8, part: f64) -> Colour {
        let mix = |from: u8| (f64::from(from) * (1.0 - part) + f64::from(end) * part).round() as u8;
        Colour(mix(self.0), mix(self.1), mix(self.2))
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

/// Returns the colour of a state in pictures and pages, on a light background.
pub(crate) fn colour(state: State) -> Colour {
    match state {
        State::Established => Colour(0x00, 0x9e, 0x73),
        State::SynSent => Colour(0xf0, 0xe4, 0x42),
        State::SynRecv => Colour(0xb3, 0xa5, 0x1d),
        State::FinWait1 => Colour(0x56, 0xb4, 0xe9),
        State::FinWait2 => Colour(0x00, 0x72, 0xb2),
        State::CloseWait => Colour(0xd5, 0x5e, 0x00),
        State::Closing => Colour(0xcc, 0x79, 0xa7),
        State::LastAck => Colour(0xe6, 0x9f, 0x00),
        State::TimeWait => Colour(0xa0, 0xa0, 0xa0),
        State::Listen => Colour(0x50, 0x50, 0x50),
        State::Close => Colour(0x00, 0x00, 0x00),
    }
}

/// Returns the rules of a style that gives pictures below the element `within` their dark form.
pub(crate) fn dark_rules(within: &str) -> String {
    let pairs = |state: State| {
        let it = colour(state);
        let pair = |light: Colour, dark: Colour| (light.to_string(), dark.to_string());
        [
            pair(it.tint(), it.dark_tint()),
            pair(it.ink(), it.dark_ink()),
        ]
    };
    let pairs: Vec<_> = State::ALL.into_iter().flat_map(pairs).collect();
    dark::rules(within, &pairs)
}

/// Returns the style of a state in a terminal, on any background.
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Relative luminance, as WCAG 2.2 defines it.
    fn luminance(Colour(red, green, blue): Colour) -> f64 {
        let part = |value: u8| match f64::from(value) / 255.0 {
            low if low <= 0.04045 => low / 12.92,
            high => ((high + 0.055) / 1.055).powf(2.4),
        };
        0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue)
    }

    #[test]
    fn each_state_has_a_colour_of_its_own() {
        let colours: HashSet<String> = State::ALL.map(|state| colour(state).to_string()).into();
        assert_eq!(colours.len(), State::ALL.len());
    }

    #[test]
    fn names_are_legible_on_their_tint() {
        for state in State::ALL {
            let (ground, ink) = (colour(state).tint(), colour(state).ink());
            let contrast = (luminance(ground) + 0.05) / (luminance(ink) + 0.05);
            assert!(contrast >= 4.5, "{state}: {contrast:.1}");
            let (ground, ink) = (colour(state).dark_tint(), colour(state).dark_ink());
            let contrast = (luminance(ink) + 0.05) / (luminance(ground) + 0.05);
            assert!(contrast >= 4.5, "dark {state}: {contrast:.1}");
        }
    }

    #[test]
    fn a_light_colour_has_one_dark_form() {
        let rules = dark_rules("");
        let lines: Vec<&str> = rules.lines().filter(|line| line.starts_with('[')).collect();
        let selectors: HashSet<&str> = lines.iter().filter_map(|it| it.split('{').next()).collect();
        assert_eq!(selectors.len(), lines.len());
    }
}
