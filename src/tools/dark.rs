//! The dark form of pictures: a style that replaces their colours where the reader prefers dark pages. The
//! pictures themselves are drawn in light colours, as attributes, which a style overrides (SVG 2, 6.6).

use std::fmt::Write as _;

/// Colours that all pictures share, light and dark: the ground, text, grid, what is lost, and lines of charts.
const SHARED: [(&str, &str); 10] = [
    ("#ffffff", GROUND),
    ("#000000", "#e6e6e3"),
    ("#222222", "#e6e6e3"),
    ("#6b6b6b", "#a8a8a4"),
    ("#e6e6e6", "#3c3d40"),
    ("#b3001b", "#ff7b86"),
    ("#d55e00", "#ef7a1f"),
    ("#0072b2", "#4aa3dc"),
    ("#009e73", "#25b58a"),
    ("#cc79a7", "#d98fb8"),
];

/// The ground of a dark picture.
pub(crate) const GROUND: &str = "#1b1c1d";

/// Returns the rules for pictures with these colours besides, light and dark, below the element `within`.
pub(crate) fn rules(within: &str, more: &[(String, String)]) -> String {
    let shared = SHARED.map(|(light, dark)| (light.to_owned(), dark.to_owned()));
    let mut rules = String::from("@media screen and (prefers-color-scheme: dark) {\n");
    let more = more
        .iter()
        .filter(|pair| SHARED.iter().all(|it| it.0 != pair.0));
    for (light, dark) in shared.iter().chain(more) {
        for part in ["fill", "stroke"] {
            // Writing to a String does not fail.
            let _ = writeln!(rules, "{within}[{part}=\"{light}\" i] {{ {part}: {dark} }}");
        }
    }
    rules + "}\n"
}

/// Adds these rules to an SVG document.
pub(crate) fn add(svg: &str, rules: &str) -> String {
    match svg.trim_end().strip_suffix("</svg>") {
        Some(open) => format!("{open}<style>\n{rules}</style>\n</svg>\n"),
        None => svg.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_light_colour_has_one_dark_one() {
        let mut light = SHARED.map(|pair| pair.0);
        light.sort_unstable();
        assert!(light.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_picture_with_the_rules_is_still_xml() {
        let picture = add(
            "<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
            &rules("", &[]),
        );
        // It has no end tag, and stays as it is.
        assert_eq!(picture, "<svg xmlns=\"http://www.w3.org/2000/svg\"/>");
        let picture = add("<svg><rect fill=\"#ffffff\"/></svg>\n", &rules("", &[]));
        roxmltree::Document::parse(&picture).expect("XML");
        assert!(
            picture.contains("[fill=\"#ffffff\" i] { fill: #1b1c1d }"),
            "{picture}"
        );
    }
}
