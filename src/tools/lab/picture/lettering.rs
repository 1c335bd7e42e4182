//! Widths of text. A picture is drawn without a font, and shown in the font that the reader has, so these
//! are upper bounds for the usual ones: DejaVu Sans and Verdana, and Arial and Helvetica, which are
//! narrower.

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Font {
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) italic: bool,
    pub(super) mono: bool,
}

impl Font {
    pub(super) const fn new(size: f64) -> Font {
        Font {
            size,
            bold: false,
            italic: false,
            mono: false,
        }
    }

    pub(super) const fn bold(self) -> Font {
        Font { bold: true, ..self }
    }

    pub(super) const fn italic(self) -> Font {
        let italic = true;
        Font { italic, ..self }
    }

    pub(super) const fn mono(self) -> Font {
        Font { mono: true, ..self }
    }

    /// Returns the distance from one line of text to the next.
    pub(super) fn line(self) -> f64 {
        self.size * 1.3
    }

    pub(super) fn width(self, text: &str) -> f64 {
        let letters: f64 = text.chars().map(|letter| self.of(letter)).sum();
        letters * self.size
    }

    /// Measured: no ASCII letter is wider in DejaVu Sans, or in Liberation Sans, which is as wide as Arial.
    fn of(self, letter: char) -> f64 {
        if self.mono && letter.is_ascii() {
            return 0.61;
        }
        let width = match letter {
            'i' | 'j' | 'l' | '\'' => 0.28,
            ' ' | '.' | ',' | ':' | ';' | '/' | '|' | '\\' => 0.34,
            'I' | 'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '!' | '-' => 0.42,
            'J' | 's' | 'c' | 'z' | '"' | '*' | '?' | '_' | '`' => 0.56,
            'w' | 'G' | 'O' | 'Q' | 'D' | '+' | '<' | '=' | '>' | '~' | '#' | '^' => 0.84,
            'M' => 0.87,
            'm' => 0.98,
            'W' | '%' | '@' => 1.02,
            'B' | 'C' | 'H' | 'N' | 'R' | 'U' | 'A' | 'K' | 'V' | 'X' | 'Z' | '&' => 0.78,
            letter if letter.is_ascii_graphic() => 0.67,
            letter if letter < '\u{250}' => 0.9,
            _ => 1.1,
        };
        if self.bold {
            width * 1.13 + 0.03
        } else {
            width
        }
    }

    /// Breaks the text into lines of at most that width: between words, and within a word that is wider
    /// than a line.
    pub(super) fn wrap(self, text: &str, width: f64) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let mut line = String::new();
        for word in text.split_whitespace() {
            let longer = match line.as_str() {
                "" => word.to_owned(),
                begun => format!("{begun} {word}"),
            };
            if self.width(&longer) <= width {
                line = longer;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for letter in word.chars() {
                if !line.is_empty() && self.width(&line) + self.of(letter) * self.size > width {
                    lines.push(std::mem::take(&mut line));
                }
                line.push(letter);
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FONT: Font = Font::new(12.0);

    #[test]
    fn no_line_is_wider_than_the_limit() {
        let text = "the client closes /a/very/long/path/that/no/line/can/hold/in/one/piece at once";
        let lines = FONT.wrap(text, 100.0);
        assert!(
            lines.iter().all(|line| FONT.width(line) <= 100.0),
            "{lines:?}"
        );
        let without_spaces = |text: &str| text.replace(' ', "");
        assert_eq!(without_spaces(&lines.concat()), without_spaces(text));
    }

    #[test]
    fn words_stay_whole_where_they_fit() {
        assert_eq!(
            FONT.wrap("closes its  side\n", 80.0),
            ["closes its", "side"]
        );
        assert!(FONT.wrap("", 80.0).is_empty());
    }
}
