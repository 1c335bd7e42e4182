//! A chart of something over time.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Chart, Drawn, Series, Style};

const WIDTH: u32 = 860;
const HEIGHT: u32 = 380;

/// Of Okabe and Ito, as the states'.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
];
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x76, 0x76, 0x76);
const GRID: RGBColor = RGBColor(0xe6, 0xe6, 0xe6);

pub(super) fn draw(chart: &Chart) -> Drawn {
    let mut text = String::new();
    // It writes into memory: there is nothing that can fail but a range without numbers.
    if let Err(error) = plot(chart, &mut text) {
        log::error!("cannot draw {:?}: {error}", chart.title);
    }
    Drawn {
        text,
        width: f64::from(WIDTH),
        height: f64::from(HEIGHT),
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn plot(chart: &Chart, into: &mut String) -> Outcome {
    let root = SVGBackend::with_string(into, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let right = points()
        .map(|point| point.0)
        .chain(chart.marks.iter().map(|mark| mark.0));
    let right = right.fold(1.0, f64::max);
    let top = points()
        .map(|point| point.1)
        .chain(chart.levels.iter().map(|level| level.0));
    let top = top
        .fold(0.0, f64::max)
        .max(if is_integral(chart) { 1.0 } else { 0.001 });
    let mut area = ChartBuilder::on(&root)
        .margin(14)
        .margin_top(66)
        .margin_right(26)
        .x_label_area_size(44)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..right * 1.02, 0.0..top * 1.18)?;
    let whole = |value: &f64| match value.fract() == 0.0 {
        true => format!("{value}"),
        false => String::new(),
    };
    let decimal = |value: &f64| {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let is_integral = is_integral(chart);
    let label = |value: &f64| {
        if is_integral {
            whole(value)
        } else {
            decimal(value)
        }
    };
    area.configure_mesh()
        .x_desc(&chart.x)
        .y_desc(&chart.y)
        .axis_desc_style(("sans-serif", 13).into_font().color(&INK))
        .label_style(("sans-serif", 12).into_font().color(&FAINT))
        .x_label_formatter(&decimal)
        .y_label_formatter(&label)
        .y_labels(if is_integral {
            (top.ceil() as usize + 2).min(10)
        } else {
            8
        })
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .draw()?;
    for (height, name) in &chart.levels {
        let ends = [(0.0, *height), (right * 1.02, *height)];
        area.draw_series(DashedLineSeries::new(ends, 6, 4, INK.stroke_width(1)))?;
        let style = ("sans-serif", 12)
            .into_font()
            .color(&INK)
            .pos(Pos::new(HPos::Left, VPos::Bottom));
        area.draw_series([Text::new(
            name.clone(),
            (right * 0.01, *height + top * 0.012),
            style,
        )])?;
    }
    for (at, name) in &chart.marks {
        let ends = [(*at, 0.0), (*at, top * 1.08)];
        area.draw_series(DashedLineSeries::new(ends, 2, 4, FAINT.stroke_width(1)))?;
        let side = if *at > right * 0.75 {
            HPos::Right
        } else {
            HPos::Center
        };
        let style = ("sans-serif", 12)
            .into_font()
            .color(&FAINT)
            .pos(Pos::new(side, VPos::Bottom));
        area.draw_series([Text::new(name.clone(), (*at, top * 1.1), style)])?;
    }
    for (series, colour) in chart.series.iter().zip(COLOURS.into_iter().cycle()) {
        match series.style {
            Style::Steps => {
                area.draw_series(LineSeries::new(steps(series), colour.stroke_width(2)))?
            }
            Style::Points => {
                let circle = |point: &(f64, f64)| Circle::new(*point, 4, colour.filled());
                area.draw_series(series.points.iter().map(circle))?
            }
        };
    }
    drop(area);
    head(chart, &root)?;
    root.present()?;
    Ok(())
}

/// The title, and which colour is what: above the chart, where nothing is in the way.
fn head(chart: &Chart, on: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Outcome {
    let middle = Pos::new(HPos::Center, VPos::Center);
    let title = ("sans-serif", 17).into_font().color(&INK).pos(middle);
    let centre = WIDTH as i32 / 2;
    on.draw(&Text::new(chart.title.clone(), (centre, 22), title))?;
    // Wide enough for the usual fonts.
    let width = |series: &Series| 24 + series.name.chars().count() as i32 * 8 + 20;
    let all: i32 = chart.series.iter().map(width).sum();
    let mut x = centre - all / 2;
    for (series, colour) in chart.series.iter().zip(COLOURS.into_iter().cycle()) {
        on.draw(&Rectangle::new([(x, 44), (x + 14, 54)], colour.filled()))?;
        let left = Pos::new(HPos::Left, VPos::Center);
        let style = ("sans-serif", 13).into_font().color(&INK).pos(left);
        on.draw(&Text::new(series.name.clone(), (x + 20, 49), style))?;
        x += width(series);
    }
    Ok(())
}

fn is_integral(chart: &Chart) -> bool {
    let mut values = chart.series.iter().flat_map(|series| &series.points);
    values.all(|point| point.1.fract() == 0.0)
}

/// The corners of a line that holds each value until the next point; only where it changes.
fn steps(series: &Series) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for &(x, y) in &series.points {
        match corners.last() {
            Some(&(_, last)) if last == y => {}
            Some(&(_, last)) => corners.extend([(x, last), (x, y)]),
            None => corners.push((x, y)),
        }
    }
    if let (Some(&(x, _)), Some(&(_, y))) = (series.points.last(), corners.last()) {
        corners.push((x, y));
    }
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_holds_its_value_until_the_next_point() {
        let series = Series {
            name: String::new(),
            style: Style::Steps,
            points: vec![(0.0, 1.0), (1.0, 1.0), (2.0, 3.0), (3.0, 3.0)],
        };
        let corners = [(0.0, 1.0), (2.0, 1.0), (2.0, 3.0), (3.0, 3.0)];
        assert_eq!(steps(&series), corners);
    }
}
