//! The shapes and labels of a picture. The area of each label is known, so that a test can check that none
//! overlaps another.

use svg::Document;
use svg::node::element::{Description, Line, Polygon, Rectangle, Text, Title};

use super::lettering::Font;
use super::{Drawn, ground};

#[derive(Default)]
pub(super) struct Sheet {
    /// In the order in which they are drawn, the labels last.
    shapes: Vec<Box<dyn svg::Node>>,
    labels: Vec<Label>,
}

#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) text: String,
    /// The x of its anchor, and the y of the middle of its letters.
    pub(super) at: [f64; 2],
    pub(super) anchor: Anchor,
    pub(super) font: Font,
    pub(super) ink: String,
    /// Rotation in degrees, clockwise, about `at`.
    pub(super) turned: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Stroke<'a> {
    pub(super) ink: &'a str,
    pub(super) width: f64,
    /// Lengths of dashes and gaps; empty for a solid line.
    pub(super) dashes: &'a str,
}

impl Sheet {
    pub(super) fn label(&mut self, label: Label) {
        if !label.text.is_empty() {
            self.labels.push(label);
        }
    }

    /// Draws another sheet on top of this one.
    pub(super) fn append(&mut self, other: Sheet) {
        self.shapes.extend(other.shapes);
        self.labels.extend(other.labels);
    }

    pub(super) fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], stroke: &Stroke<'_>) {
        let mut line = Line::new()
            .set("x1", tenth(x1))
            .set("y1", tenth(y1))
            .set("x2", tenth(x2))
            .set("y2", tenth(y2))
            .set("stroke", stroke.ink)
            .set("stroke-width", stroke.width);
        if !stroke.dashes.is_empty() {
            line = line.set("stroke-dasharray", stroke.dashes);
        }
        self.shapes.push(Box::new(line));
    }

    pub(super) fn rectangle(&mut self, x: [f64; 2], y: [f64; 2], fill: &str, opacity: f64) {
        let mut rectangle = Rectangle::new()
            .set("x", tenth(x[0]))
            .set("y", tenth(y[0]))
            .set("width", tenth(x[1] - x[0]))
            .set("height", tenth(y[1] - y[0]))
            .set("fill", fill);
        if opacity < 1.0 {
            rectangle = rectangle.set("opacity", opacity);
        }
        self.shapes.push(Box::new(rectangle));
    }

    pub(super) fn polygon(&mut self, points: &[[f64; 2]], fill: &str) {
        let point = |[x, y]: &[f64; 2]| format!("{x:.1},{y:.1}");
        let points: Vec<String> = points.iter().map(point).collect();
        let polygon = Polygon::new().set("points", points.join(" "));
        self.shapes.push(Box::new(polygon.set("fill", fill)));
    }

    /// Returns a whole document. `words` describes it for people who can't see it.
    pub(super) fn finish(self, [width, height]: [f64; 2], title: &str, words: &str) -> Drawn {
        let mut document = Document::new()
            .set("viewBox", (0.0, 0.0, width, tenth(height)))
            .set("width", width)
            .set("height", tenth(height))
            .set("role", "img")
            .set("aria-label", clean(title))
            .set("font-family", "'DejaVu Sans', Helvetica, Arial, sans-serif")
            .add(Title::new(clean(title)))
            .add(Description::new().add(svg::node::Text::new(clean(words))))
            .add(ground(width, height));
        for shape in self.shapes {
            document = document.add(shape);
        }
        for label in self.labels {
            document = document.add(label.text());
        }
        Drawn {
            text: document.to_string(),
            width,
            height,
        }
    }
}

impl Label {
    fn text(&self) -> Text {
        let [x, y] = self.at;
        let anchor = match self.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        // The base line is half the height of a capital letter below the middle.
        let base = y + self.font.size * 0.36;
        let mut text = Text::new(clean(&self.text))
            .set("x", tenth(x))
            .set("y", tenth(base))
            .set("text-anchor", anchor)
            .set("font-size", self.font.size)
            .set("fill", self.ink.as_str());
        if self.font.bold {
            text = text.set("font-weight", "bold");
        }
        if self.font.italic {
            text = text.set("font-style", "italic");
        }
        if self.font.mono {
            let mono = "'DejaVu Sans Mono', Menlo, Consolas, monospace";
            text = text.set("font-family", mono);
        }
        if self.turned != 0.0 {
            let turn = format!("rotate({:.2} {x:.1} {y:.1})", self.turned);
            text = text.set("transform", turn);
        }
        text
    }

    /// Returns the area that the label covers: left, top, right, bottom.
    #[cfg(test)]
    pub(super) fn area(&self) -> [f64; 4] {
        let ([x, y], width) = (self.at, self.font.width(&self.text));
        let left = match self.anchor {
            Anchor::Start => x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        let slant = self.turned.to_radians().tan().abs() * width / 2.0;
        let half = self.font.size * 0.5 + slant;
        [left, y - half, left + width, y + half]
    }
}

#[cfg(test)]
impl Sheet {
    pub(super) fn labels(&self) -> &[Label] {
        &self.labels
    }
}

/// Rounds to a tenth: further digits are not visible, and differ between machines.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Replaces control characters, which XML does not allow.
pub(super) fn clean(text: &str) -> String {
    text.replace(
        |letter: char| letter.is_control() && letter != '\n',
        "\u{fffd}",
    )
}
