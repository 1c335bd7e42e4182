//! The histogram and the series of a report: in letters for a terminal, and as SVG.

use std::fmt::Write;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Report;
use super::series::Point;
use super::words::{round_time, time};
use crate::dark;

/// The width of the longest bar in letters.
const BAR: usize = 50;

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Returns the histogram and the series as lines of text.
pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    let most = report.histogram.iter().map(|bar| bar.messages).max();
    let mut rows: Vec<(String, u64, String)> = report
        .histogram
        .iter()
        .map(|bar| {
            let limits = format!("up to {}", round_time(bar.up_to));
            (
                limits,
                bar.messages,
                bar_of(bar.messages, most.unwrap_or(0)),
            )
        })
        .collect();
    if let Some((over, unanswered)) = unanswered(report) {
        rows.push((
            format!("over {}", time(over)),
            unanswered,
            "unanswered".to_owned(),
        ));
    }
    // Writing to a String does not fail.
    if rows.is_empty() {
        let _ = writeln!(out, "no message was answered");
    } else {
        let _ = writeln!(out, "{:>15}  {:>12}", "latency", "messages");
    }
    for (limits, messages, bar) in rows {
        let line = format!("{limits:>15}  {messages:>12}  {bar}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for (name, value, unit) in LINES {
        let values: Vec<Option<f64>> = report.series.iter().map(value).collect();
        let highest = values.iter().flatten().copied().fold(0.0, f64::max);
        let line: String = values.iter().map(|value| level(*value, highest)).collect();
        let _ = writeln!(out, "{name:>15}  {line}  at most {}", unit(highest));
    }
    if let [first, ..] = &report.series[..] {
        let _ = writeln!(out, "{:>15}  one letter for {} s", "", first.until);
    }
    out
}

/// A line of the series: its name, its value at a point, and how the value is written.
type Shown = (&'static str, fn(&Point) -> Option<f64>, fn(f64) -> String);

const LINES: [Shown; 4] = [
    (
        "messages/s",
        |point| Some(point.messages_per_second),
        |rate| format!("{rate:.0}"),
    ),
    ("p50", |point| point.p50, time),
    ("p99", |point| point.p99, time),
    ("max", |point| point.max, time),
];

fn unanswered(report: &Report) -> Option<(f64, u64)> {
    let latency = report.latency.as_ref()?;
    Some((latency.unanswered_over?, latency.unanswered))
}

fn bar_of(messages: u64, most: u64) -> String {
    let length = messages as f64 / most.max(1) as f64 * BAR as f64;
    let length = if messages > 0 { length.ceil() } else { 0.0 };
    "█".repeat(length as usize)
}

/// Returns the letter for a value, or a space for none.
fn level(value: Option<f64>, highest: f64) -> char {
    match value {
        Some(value) if highest > 0.0 => {
            let level = (value / highest * LEVELS.len() as f64).ceil() as usize;
            LEVELS[level.clamp(1, LEVELS.len()) - 1]
        }
        Some(_) => LEVELS[0],
        None => ' ',
    }
}

const SIZE: (u32, u32) = (860, 900);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GRID: RGBColor = RGBColor(0xe6, 0xe6, 0xe6);
/// By Okabe and Ito: told apart also by readers who are colour-blind.
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const ORANGE: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Returns a picture of the histogram and the series.
///
/// # Errors
/// When it cannot be drawn.
pub(crate) fn svg(report: &Report) -> Result<String, Box<dyn std::error::Error>> {
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let title = ("sans-serif", 17).into_font().color(&INK);
        let head = report.to_string();
        let head = head.lines().next().unwrap_or_default();
        let areas = root.titled(head, title)?.split_evenly((3, 1));
        if let [bars, rate, latency] = &areas[..] {
            histogram(report, bars)?;
            throughput(report, rate)?;
            latencies(report, latency)?;
        }
        root.present()?;
    }
    Ok(dark::add(&out, &dark::rules("", &[])))
}

fn histogram(report: &Report, on: &Area<'_>) -> Outcome {
    let mut bars: Vec<(String, u64, RGBColor)> = report
        .histogram
        .iter()
        .map(|bar| (round_time(bar.up_to), bar.messages, BLUE))
        .collect();
    if let Some((over, unanswered)) = unanswered(report) {
        bars.push((format!("over {}", time(over)), unanswered, ORANGE));
    }
    let most = bars.iter().map(|bar| bar.1).max().unwrap_or(0).max(1);
    let count = bars.len().max(1);
    let mut chart = ChartBuilder::on(on)
        .caption("messages by latency, up to", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..count as f64, 0.0..most as f64 * 1.05)?;
    let label = |x: &f64| {
        let is_middle = (x - x.floor() - 0.5).abs() < 0.01;
        let bar = bars.get(x.floor() as usize).filter(|_| is_middle);
        bar.map_or_else(String::new, |bar| bar.0.clone())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .x_labels(count * 2 + 1)
        .x_label_formatter(&label)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    let shapes = bars.iter().enumerate().map(|(at, (_, messages, colour))| {
        let left = at as f64;
        let corners = [(left + 0.08, 0.0), (left + 0.92, *messages as f64)];
        Rectangle::new(corners, colour.filled())
    });
    chart.draw_series(shapes)?;
    Ok(())
}

fn throughput(report: &Report, on: &Area<'_>) -> Outcome {
    let line = [("messages/s", GREEN, values(report, LINES[0].1))];
    plot(report, on, "messages per second over time", &line, |rate| {
        format!("{rate:.0}")
    })
}

fn latencies(report: &Report, on: &Area<'_>) -> Outcome {
    let lines = [
        ("max", INK, values(report, LINES[3].1)),
        ("p99", ORANGE, values(report, LINES[2].1)),
        ("p50", BLUE, values(report, LINES[1].1)),
    ];
    plot(
        report,
        on,
        "latency over time, by the time of the reply",
        &lines,
        time,
    )
}

/// Returns the runs of intervals in a row that have a value: a line is not drawn over a stall.
fn values(report: &Report, of: fn(&Point) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for point in &report.series {
        match (of(point), runs.last_mut()) {
            (Some(value), Some(run)) => run.push((point.until, value)),
            (None, Some(run)) if !run.is_empty() => runs.push(Vec::new()),
            _ => {}
        }
    }
    runs
}

type Line = (&'static str, RGBColor, Vec<Vec<(f64, f64)>>);

fn plot(
    report: &Report,
    on: &Area<'_>,
    title: &str,
    lines: &[Line],
    unit: fn(f64) -> String,
) -> Outcome {
    let all = lines.iter().flat_map(|line| line.2.iter().flatten());
    let highest = all.map(|point| point.1).fold(0.0, f64::max).max(1.0);
    let end = report.series.last().map_or(1.0, |point| point.until);
    let mut chart = ChartBuilder::on(on)
        .caption(title, ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..end, 0.0..highest * 1.05)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .x_label_formatter(&|x| format!("{x:.1} s"))
        .y_label_formatter(&|y| unit(*y))
        .draw()?;
    for (name, colour, runs) in lines {
        let colour = *colour;
        for (number, run) in runs.iter().enumerate() {
            let drawn = chart.draw_series(LineSeries::new(run.clone(), colour.stroke_width(2)))?;
            if number == 0 && lines.len() > 1 {
                drawn.label(*name).legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2))
                });
            }
        }
        // One interval alone is no line.
        let alone = runs.iter().filter(|run| run.len() == 1).flatten();
        chart.draw_series(alone.map(|point| Circle::new(*point, 2, colour.filled())))?;
    }
    if lines.len() > 1 {
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .position(SeriesLabelPosition::UpperRight)
            .draw()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_as_high_as_its_value_and_none_is_a_gap() {
        let line = |values: &[Option<f64>]| -> String {
            values.iter().map(|value| level(*value, 8.0)).collect()
        };
        assert_eq!(
            line(&[Some(0.0), Some(1.0), Some(4.5), Some(8.0), None]),
            "▁▁▅█ "
        );
        assert_eq!(level(Some(0.0), 0.0), '▁');
    }

    #[test]
    fn a_bar_with_a_message_is_seen() {
        assert_eq!(bar_of(0, 100), "");
        assert_eq!(bar_of(1, 1_000_000).chars().count(), 1);
        assert_eq!(bar_of(7, 7).chars().count(), BAR);
    }
}
