//! A chart of values over time. The names of lines are written outside the plot, never in it.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use svg::node::element::{Description, Title};

use super::lettering::Font;
use super::sheet::clean;
use super::{Chart, Drawn, Series, Style};

const WIDTH: u32 = 584;
/// Height of the plot alone.
const PLOT: u32 = 250;
/// Space left of the plot for the numbers.
const LEFT: u32 = 74;
/// Space below the plot.
const BELOW: u32 = 62;
/// Space above the plot for the title and the names of the series.
const HEAD: u32 = 74;
/// Space right of the plot, if no level has its name there.
const RIGHT: u32 = 30;

const TITLE: Font = Font::new(17.0).bold();
const NAME: Font = Font::new(13.0);
const SMALL: Font = Font::new(12.0);

/// By Okabe and Ito, like the colours of the states.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
];
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x6b, 0x6b, 0x6b);
const GRID: RGBColor = RGBColor(0xe6, 0xe6, 0xe6);

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Outcome = Result<(), Box<dyn std::error::Error>>;

pub(super) fn draw(chart: &Chart) -> Drawn {
    let chart = finite(chart);
    let plan = Plan::of(&chart);
    let mut text = String::new();
    // Writing into memory does not fail, and every number is finite.
    if let Err(error) = plot(&chart, &plan, &mut text) {
        log::error!("cannot draw {:?}: {error}", chart.title);
    }
    Drawn {
        text: accessible(&text, &chart),
        width: f64::from(WIDTH),
        height: f64::from(plan.height),
    }
}

/// Removes infinite values and control characters, which can't be drawn.
fn finite(chart: &Chart) -> Chart {
    let mut chart = chart.clone();
    let named = [&mut chart.title, &mut chart.x, &mut chart.y].into_iter();
    let series = chart.series.iter_mut().map(|series| &mut series.name);
    let levels = chart.levels.iter_mut().map(|level| &mut level.1);
    let marks = chart.marks.iter_mut().map(|mark| &mut mark.1);
    for text in named.chain(series).chain(levels).chain(marks) {
        *text = clean(text);
    }
    for series in &mut chart.series {
        let points = &mut series.points;
        points.retain(|(x, y)| x.is_finite() && y.is_finite());
    }
    chart.levels.retain(|level| level.0.is_finite());
    chart.marks.retain(|mark| mark.0.is_finite());
    chart
}

/// The layout of a chart.
struct Plan {
    height: u32,
    /// End of the x axis, which begins at zero.
    right: f64,
    /// End of the y axis, which begins at zero.
    top: f64,
    /// The column of pixels at which the plot ends.
    end: u32,
    /// Space above the plot, with the names of marks.
    above: u32,
    /// The places of the names of marks: middle, and row, counted upwards from the plot.
    marks: Vec<(i32, u32)>,
}

impl Plan {
    fn of(chart: &Chart) -> Plan {
        let points = || chart.series.iter().flat_map(|series| &series.points);
        let marks = chart.marks.iter().map(|mark| mark.0);
        let last = points()
            .map(|point| point.0)
            .chain(marks)
            .fold(0.0, f64::max);
        let right = if last > 0.0 { last * 1.01 } else { 1.0 };
        let levels = chart.levels.iter().map(|level| level.0);
        let highest = points()
            .map(|point| point.1)
            .chain(levels)
            .fold(0.0, f64::max);
        let top = match (highest > 0.0, is_integral(chart)) {
            (true, _) => highest * 1.12,
            (false, true) => 1.12,
            (false, false) => 0.001,
        };
        let names = chart.levels.iter().map(|level| SMALL.width(&level.1) + 8.0);
        let beside = names.fold(0.0, f64::max) as u32;
        let end = WIDTH - RIGHT.max(beside + 12).min(WIDTH / 3);
        let place = |x: f64| (f64::from(LEFT) + x / right * f64::from(end - LEFT)) as i32;
        let marks = staggered(chart, place);
        let rows = marks.iter().map(|mark| mark.1 + 1).max().unwrap_or(0);
        let above = HEAD + rows * 17;
        Plan {
            height: above + PLOT + BELOW,
            right,
            top,
            end,
            above,
            marks,
        }
    }
}

/// Puts names of marks that would overlap above each other.
fn staggered(chart: &Chart, place: impl Fn(f64) -> i32) -> Vec<(i32, u32)> {
    let mut ends: Vec<Vec<[i32; 2]>> = Vec::new();
    let put = |(at, name): &(f64, String)| {
        let half = (SMALL.width(name) / 2.0) as i32 + 1;
        let most = (WIDTH as i32 - 8 - half).max(half);
        let middle = place(*at).clamp(half, most);
        let span = [middle - half - 5, middle + half + 5];
        let is_free = |row: &Vec<[i32; 2]>| {
            let apart = |other: &[i32; 2]| other[1] <= span[0] || span[1] <= other[0];
            row.iter().all(apart)
        };
        let row = ends.iter().position(is_free).unwrap_or(ends.len());
        if row == ends.len() {
            ends.push(Vec::new());
        }
        ends[row].push(span);
        (middle, row as u32)
    };
    chart.marks.iter().map(put).collect()
}

fn plot(chart: &Chart, plan: &Plan, into: &mut String) -> Outcome {
    let root = SVGBackend::with_string(into, (WIDTH, plan.height)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut area = ChartBuilder::on(&root)
        .margin_top(plan.above)
        .margin_right(WIDTH - plan.end)
        .margin_left(14)
        .margin_bottom(12)
        .x_label_area_size(BELOW - 12)
        .y_label_area_size(LEFT - 14)
        .build_cartesian_2d(0.0..plan.right, 0.0..plan.top)?;
    axes(chart, plan, &mut area)?;
    for (level, _) in &chart.levels {
        let ends = [(0.0, *level), (plan.right, *level)];
        area.draw_series(DashedLineSeries::new(ends, 6, 4, INK.stroke_width(1)))?;
    }
    for (at, _) in &chart.marks {
        let ends = [(*at, 0.0), (*at, plan.top)];
        area.draw_series(DashedLineSeries::new(ends, 2, 4, FAINT.stroke_width(1)))?;
    }
    lines(chart, &mut area)?;
    drop(area);
    head(chart, &root)?;
    beside(chart, plan, &root)?;
    root.present()?;
    Ok(())
}

fn axes(chart: &Chart, plan: &Plan, area: &mut Plot<'_, '_>) -> Outcome {
    let is_integral = is_integral(chart);
    let height = |value: &f64| match is_integral && value.fract() != 0.0 {
        true => String::new(),
        false => decimal(*value),
    };
    area.configure_mesh()
        .x_desc(&chart.x)
        .y_desc(&chart.y)
        .axis_desc_style(of(NAME, INK))
        .label_style(of(SMALL, FAINT))
        .x_labels(10)
        .x_label_formatter(&|value| decimal(*value))
        .y_label_formatter(&height)
        .y_labels(match is_integral {
            true => (plan.top.ceil() as usize + 1).min(9),
            false => 7,
        })
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .draw()?;
    Ok(())
}

/// Draws the series.
fn lines(chart: &Chart, area: &mut Plot<'_, '_>) -> Outcome {
    for (number, series) in chart.series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        // Lines that are drawn earlier are thicker: under a later one their edges stay visible.
        let thicker = (chart.series.len() - 1 - number).min(2) as u32;
        match series.style {
            Style::Steps => {
                let line = colour.stroke_width(2 + thicker);
                area.draw_series(LineSeries::new(steps(series), line))?
            }
            Style::Points => {
                let size = 4 + thicker as i32;
                let circle = |point: &(f64, f64)| Circle::new(*point, size, colour.filled());
                area.draw_series(series.points.iter().map(circle))?
            }
        };
    }
    Ok(())
}

/// Draws the title and the names of the series, above the plot.
fn head(chart: &Chart, on: &Area<'_>) -> Outcome {
    let left = Pos::new(HPos::Left, VPos::Center);
    let title = of(TITLE, INK).pos(left);
    on.draw(&Text::new(chart.title.clone(), (24, 26), title))?;
    let mut x = 24;
    for (series, colour) in chart.series.iter().zip(COLOURS.into_iter().cycle()) {
        match series.style {
            Style::Steps => {
                on.draw(&Rectangle::new([(x, 49), (x + 18, 53)], colour.filled()))?;
            }
            Style::Points => on.draw(&Circle::new((x + 9, 51), 4, colour.filled()))?,
        }
        let style = of(NAME, INK).pos(left);
        on.draw(&Text::new(series.name.clone(), (x + 25, 51), style))?;
        x += 25 + NAME.width(&series.name) as i32 + 24;
    }
    Ok(())
}

/// Draws the names of levels right of the plot, and those of marks above it.
fn beside(chart: &Chart, plan: &Plan, on: &Area<'_>) -> Outcome {
    let mut levels: Vec<_> = chart.levels.iter().collect();
    levels.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut free = 0;
    for (level, name) in levels {
        let down = (1.0 - level / plan.top) * f64::from(PLOT);
        let y = (plan.above as i32 + down as i32).max(free);
        free = y + 16;
        let style = of(SMALL, INK).pos(Pos::new(HPos::Left, VPos::Center));
        on.draw(&Text::new(name.clone(), (plan.end as i32 + 8, y), style))?;
    }
    for ((_, name), (x, row)) in chart.marks.iter().zip(&plan.marks) {
        let y = plan.above as i32 - 9 - *row as i32 * 17;
        let style = of(SMALL, FAINT).pos(Pos::new(HPos::Center, VPos::Center));
        on.draw(&Text::new(name.clone(), (*x, y), style))?;
    }
    Ok(())
}

fn of(font: Font, colour: RGBColor) -> TextStyle<'static> {
    let weight = if font.bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let desc = FontDesc::new(FontFamily::SansSerif, font.size, weight);
    desc.color(&colour)
}

fn decimal(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Adds a title and a description for people who can't see the chart.
fn accessible(text: &str, chart: &Chart) -> String {
    let Some((opening, rest)) = text.split_once('>') else {
        return String::new();
    };
    let title = Title::new(chart.title.as_str());
    let mut words = format!("{} over {}.", chart.y, chart.x);
    for series in &chart.series {
        let points = || series.points.iter().map(|point| point.1);
        if let Some(last) = points().next_back() {
            let (highest, name) = (points().fold(last, f64::max), &series.name);
            let (highest, last) = (decimal(highest), decimal(last));
            words += &format!(" {name}: at most {highest}, {last} at the end.");
        }
    }
    let words = Description::new().add(svg::node::Text::new(words));
    let label = maud::html! { (chart.title) }.into_string();
    format!("{opening} role=\"img\" aria-label=\"{label}\">\n{title}\n{words}{rest}")
}

fn is_integral(chart: &Chart) -> bool {
    let mut values = chart.series.iter().flat_map(|series| &series.points);
    values.all(|point| point.1.fract() == 0.0)
}

/// Returns the corners of a line that holds each value until the next point.
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
