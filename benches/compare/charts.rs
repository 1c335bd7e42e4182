//! Charts of the figures: throughput, processor time and latency, with a group of bars for each load.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::table::{CPU, Figure, P99, PER_SECOND, Results};

/// One colour for each server.
const COLOURS: [RGBColor; 13] = [
    RGBColor(0x4c, 0x56, 0x6a),
    RGBColor(0x5e, 0x81, 0xac),
    RGBColor(0xbf, 0x61, 0x6a),
    RGBColor(0xd0, 0x87, 0x70),
    RGBColor(0xa3, 0xbe, 0x8c),
    RGBColor(0xb4, 0x8e, 0xad),
    RGBColor(0xeb, 0xcb, 0x8b),
    RGBColor(0x88, 0xc0, 0xd0),
    RGBColor(0x2f, 0x6f, 0x5f),
    RGBColor(0x8c, 0x5e, 0x3c),
    RGBColor(0xe3, 0x9a, 0xc0),
    RGBColor(0xa9, 0xa9, 0xa9),
    RGBColor(0x5f, 0x5f, 0xaf),
];

pub(crate) fn draw(results: &Results, folder: &Path) -> Result<(), Box<dyn Error>> {
    let charts: [(&str, &str, Figure); 3] = [
        (
            "throughput.svg",
            "messages per second, relative to the first server of each load",
            PER_SECOND,
        ),
        (
            "cpu.svg",
            "processor time per message, relative to the first server of each load",
            CPU,
        ),
        (
            "p99.svg",
            "99th percentile of latency, relative to the first server of each load",
            P99,
        ),
    ];
    for (file, title, figure) in charts {
        bars(results, &folder.join(file), title, figure)?;
    }
    Ok(())
}

/// A group for each load, a bar for each server.
fn bars(results: &Results, file: &Path, title: &str, figure: Figure) -> Result<(), Box<dyn Error>> {
    let (rows, names) = (results.rows(), servers(results));
    let relative = |row: &str, server: &str| {
        let first = *results.servers(row).first()?;
        results.ratio((row, server), (row, first), figure)
    };
    let all = rows
        .iter()
        .flat_map(|row| names.iter().filter_map(|name| relative(row, name)));
    // An outlier must not flatten all others: its bar ends at the top of the chart.
    let highest = all.map(|ratio| ratio.median).fold(1.0, f64::max).min(5.0) * 1.05;
    let width = (rows.len() as u32 * 130).max(700);
    let area = SVGBackend::new(file, (width, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..rows.len() as f64, 0.0..highest)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(rows.len() * 2 + 1)
        .x_label_formatter(&|x| label(&rows, *x))
        .y_label_formatter(&|y| format!("{y:.1}"))
        .draw()?;
    let step = 0.84 / names.len() as f64;
    for (place, name) in names.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let left = |group: usize| group as f64 + 0.08 + place as f64 * step;
        let bar = |(group, row): (usize, &&str)| {
            let height = relative(row, name)?.median.min(highest);
            let corners = [(left(group), 0.0), (left(group) + step * 0.9, height)];
            Some(Rectangle::new(corners, colour.filled()))
        };
        // The spread of the rounds.
        let spread = |(group, row): (usize, &&str)| {
            let ratio = relative(row, name)?;
            let middle = left(group) + step * 0.45;
            let ends = [ratio.least, ratio.most].map(|end| (middle, end.min(highest)));
            Some(PathElement::new(ends, BLACK.mix(0.6)))
        };
        chart
            .draw_series(rows.iter().enumerate().filter_map(bar))?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
        chart.draw_series(rows.iter().enumerate().filter_map(spread))?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .position(SeriesLabelPosition::UpperRight)
        .draw()?;
    area.present()?;
    Ok(())
}

/// Returns the servers of all loads, in the order in which they were measured first.
fn servers(results: &Results) -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in results.rows().iter().flat_map(|row| results.servers(row)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Returns the name of a load for the middle of its group, and nothing elsewhere.
fn label(rows: &[&str], x: f64) -> String {
    let is_middle = (x - x.floor() - 0.5).abs() < 0.01;
    match rows.get(x as usize) {
        Some(row) if is_middle => (*row).to_owned(),
        Some(_) | None => String::new(),
    }
}
