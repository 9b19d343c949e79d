//! Panels with axes, series and one legend: from figures to SVG.
//!
//! 1. A series has the colour of its name in every picture.
//! 2. Each axis says its unit.
//!
//! Refuses to know where figures come from.

use super::scale::{Scale, short};
use super::svg::{Anchor, Svg};
use std::fmt::Write as _;

/// A picture.
pub struct Chart {
    pub title: String,
    /// What is to be known to read it, a line.
    pub note: String,
    /// Where and when.
    pub origin: String,
    pub panels: Vec<Panel>,
}

pub struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub marks: Marks,
    pub series: Vec<Series>,
}

pub struct Axis {
    /// With its unit.
    pub title: String,
    pub scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// Points, joined.
    Lines,
    /// Points beside each other at each name.
    Dots,
    /// From zero, beside each other at each name.
    Bars,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub points: Vec<Point>,
}

/// The median of rounds, and how far they go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub low: f64,
    pub high: f64,
}

/// Name, colour on light, colour on dark. Told apart with any colour vision, and by lightness.
const COLOURS: &[(&str, &str, &str)] = &[
    ("ringside", "#c2410c", "#fb923c"),
    ("ringside-epoll", "#a16207", "#fde047"),
    ("relay", "#525252", "#b8b8b8"),
    ("direct", "#a3a3a3", "#737373"),
    ("haproxy", "#1d4ed8", "#60a5fa"),
    ("haproxy-tcp", "#0891b2", "#67e8f9"),
    ("daprd", "#7e22ce", "#c084fc"),
    ("nginx", "#15803d", "#4ade80"),
    ("envoy", "#be185d", "#f472b6"),
];
/// Of names that are not in the table.
const OTHER: (&str, &str) = ("#000000", "#ffffff");

const WIDTH: f64 = 960.0;
const PANEL_HEIGHT: f64 = 300.0;
const HEAD: f64 = 98.0;
const LEGEND: f64 = 72.0;
const MARGIN: f64 = 12.0;
/// Of a panel, around what is drawn.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 48.0;
/// Of a name's place, taken by its marks.
const GROUP: f64 = 0.78;

impl Chart {
    pub fn svg(&self) -> String {
        let columns = match self.panels.len() {
            4 => 2,
            count => count.clamp(1, 3),
        };
        let rows = self.panels.len().div_ceil(columns);
        let size = (WIDTH, HEAD + rows as f64 * PANEL_HEIGHT + MARGIN);
        let width = (WIDTH - 2.0 * MARGIN) / columns as f64;
        let mut svg = Svg::default();
        svg.text("title", (MARGIN + 4.0, 26.0), Anchor::Start, &self.title);
        svg.text("note", (MARGIN + 4.0, 44.0), Anchor::Start, &self.note);
        svg.text("note", (MARGIN + 4.0, 60.0), Anchor::Start, &self.origin);
        let names = self.names();
        legend(&mut svg, &names);
        for (number, panel) in self.panels.iter().enumerate() {
            let at = (
                MARGIN + (number % columns) as f64 * width,
                HEAD + (number / columns) as f64 * PANEL_HEIGHT,
            );
            panel.draw(&mut svg, Area::within(at, (width, PANEL_HEIGHT)), &names);
        }
        svg.finish(size, &self.title, &style(&names))
    }

    /// In the order of their first appearance.
    fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            if !names.contains(&series.name.as_str()) {
                names.push(series.name.as_str());
            }
        }
        names
    }
}

/// Names, a mark of their colour in front.
fn legend(svg: &mut Svg, names: &[&str]) {
    let mut x = MARGIN + 6.0;
    for (number, name) in names.iter().enumerate() {
        svg.rectangle(&format!("fill c{number}"), (x, LEGEND), (14.0, 8.0), name);
        svg.text("legend", (x + 19.0, LEGEND + 8.0), Anchor::Start, name);
        x += 19.0 + 7.2 * name.len() as f64 + 20.0;
    }
}

/// Where the series of a panel are drawn.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Area {
    fn within(at: (f64, f64), (width, height): (f64, f64)) -> Self {
        Self {
            left: at.0 + LEFT,
            top: at.1 + TOP,
            width: width - LEFT - RIGHT,
            height: height - TOP - BOTTOM,
        }
    }

    fn x(&self, share: f64) -> f64 {
        self.left + share * self.width
    }

    fn y(&self, share: f64) -> f64 {
        self.top + (1.0 - share) * self.height
    }
}

impl Panel {
    fn draw(&self, svg: &mut Svg, area: Area, names: &[&str]) {
        svg.text("panel", (area.left, area.top - 9.0), Anchor::Start, &self.title);
        self.axes(svg, area);
        for (number, series) in self.series.iter().enumerate() {
            let colour = names.iter().position(|name| *name == series.name).unwrap_or(0);
            match self.marks {
                Marks::Lines => self.lines(svg, area, series, colour),
                Marks::Dots | Marks::Bars => self.group(svg, area, (series, number), colour),
            }
        }
    }

    fn axes(&self, svg: &mut Svg, area: Area) {
        let (right, bottom) = (area.x(1.0), area.y(0.0));
        for tick in self.y.scale.ticks() {
            let y = area.y(tick.at);
            svg.line("grid", (area.left, y), (right, y));
            if !tick.label.is_empty() {
                svg.text("tick", (area.left - 6.0, y + 3.5), Anchor::End, &tick.label);
            }
        }
        let named = matches!(self.x.scale, Scale::Names(_));
        if let (Scale::Names(names), Marks::Dots) = (&self.x.scale, self.marks) {
            // Between the names, so that it is seen which marks belong together.
            for number in 1..names.len() {
                let x = area.x(number as f64 / names.len() as f64);
                svg.line("grid", (x, area.top), (x, bottom));
            }
        }
        for tick in self.x.scale.ticks() {
            let x = area.x(tick.at);
            if !named {
                svg.line("grid", (x, area.top), (x, bottom));
            }
            svg.text("tick", (x, bottom + 15.0), Anchor::Middle, &tick.label);
        }
        svg.line("axis", (area.left, bottom), (right, bottom));
        svg.text("name", (area.x(0.5), bottom + 34.0), Anchor::Middle, &self.x.title);
        svg.upright("name", (area.left - 42.0, area.y(0.5)), &self.y.title);
    }

    fn lines(&self, svg: &mut Svg, area: Area, series: &Series, colour: usize) {
        let at = |point: &Point| {
            (area.x(self.x.scale.place(point.x)), area.y(self.y.scale.place(point.y)))
        };
        let points: Vec<(f64, f64)> = series.points.iter().map(at).collect();
        svg.path(&format!("stroke c{colour}"), &points);
        for (point, (x, y)) in series.points.iter().zip(points) {
            self.whisker(svg, area, x, point, colour);
            svg.dot(&format!("fill c{colour}"), (x, y), &told(series, point));
        }
    }

    /// One series' marks at the names, beside the others'.
    fn group(&self, svg: &mut Svg, area: Area, (series, number): (&Series, usize), colour: usize) {
        let Scale::Names(names) = &self.x.scale else { return };
        let place = area.width / names.len().max(1) as f64 * GROUP;
        let each = place / self.series.len().max(1) as f64;
        for point in &series.points {
            let middle = area.x(self.x.scale.place(point.x));
            let left = middle - place / 2.0 + number as f64 * each;
            let y = area.y(self.y.scale.place(point.y));
            let (class, told) = (format!("fill c{colour}"), told(series, point));
            if self.marks == Marks::Bars {
                let size = ((each - 1.5).max(1.0), area.y(0.0) - y);
                svg.rectangle(&class, (left, y), size, &told);
            } else {
                svg.dot(&class, (left + each / 2.0, y), &told);
            }
            self.whisker(svg, area, left + each / 2.0, point, colour);
        }
    }

    /// From the lowest round to the highest.
    fn whisker(&self, svg: &mut Svg, area: Area, x: f64, point: &Point, colour: usize) {
        let [low, high] = [point.low, point.high].map(|value| area.y(self.y.scale.place(value)));
        if (low - high).abs() >= 1.0 {
            let own = if self.marks == Marks::Bars { "axis" } else { "whisker" };
            svg.line(&format!("{own} c{colour}"), (x, low), (x, high));
        }
    }
}

/// What a pointer that rests on a mark is told.
fn told(series: &Series, point: &Point) -> String {
    let digits = |value: f64| format!("{value:.*}", crate::ratio::digits(value));
    let Point { x, y, low, high } = *point;
    format!("{} at {}: {} ({}–{})", series.name, short(x), digits(y), digits(low), digits(high))
}

fn style(names: &[&str]) -> String {
    let of = |name: &str| {
        let known = COLOURS.iter().find(|(known, ..)| *known == name);
        known.map_or(OTHER, |(_, light, dark)| (*light, *dark))
    };
    let mut out = String::from(
        "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#404040}\
         .title{font-size:16px;font-weight:600;fill:#171717}.note{fill:#666}\
         .panel{font-weight:600;fill:#171717}.tick{font-size:11px;fill:#666}\
         .ground{fill:#fff;stroke:#e5e5e5}.grid{stroke:#e8e8e8}.axis{stroke:#737373}\
         .stroke{fill:none;stroke-width:2;stroke-linejoin:round}.whisker{stroke-width:1.2}",
    );
    let mut dark = String::from(
        "text{fill:#d4d4d4}.title,.panel{fill:#fafafa}.note,.tick{fill:#a3a3a3}\
         .ground{fill:#161616;stroke:#333}.grid{stroke:#303030}.axis{stroke:#a3a3a3}",
    );
    for (number, name) in names.iter().enumerate() {
        for (sheet, colour) in [(&mut out, of(name).0), (&mut dark, of(name).1)] {
            let _ = write!(
                sheet,
                ".fill.c{number}{{fill:{colour}}}\
                 .stroke.c{number},.whisker.c{number}{{stroke:{colour}}}"
            );
        }
    }
    let _ = write!(out, "@media(prefers-color-scheme:dark){{{dark}}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(marks: Marks) -> Chart {
        let point = |x: f64, y: f64| Point { x, y, low: y * 0.5, high: y * 2.0 };
        let series = |name: &str, y: f64| Series {
            name: name.to_owned(),
            points: vec![point(0.0, y), point(1.0, 2.0 * y)],
        };
        let names = Scale::Names(vec!["W2".to_owned(), "W<3".to_owned()]);
        let panel = |title: &str| Panel {
            title: title.to_owned(),
            x: Axis { title: "workload".to_owned(), scale: names.clone() },
            y: Axis { title: "CPU, µs".to_owned(), scale: Scale::log([1.0, 100.0]) },
            marks,
            series: vec![series("ringside", 3.0), series("daprd", 30.0)],
        };
        Chart {
            title: "CPU".to_owned(),
            note: "of both".to_owned(),
            origin: "here".to_owned(),
            panels: vec![panel("first"), panel("second")],
        }
    }

    #[test]
    fn a_chart_has_axes_units_a_legend_and_both_colour_schemes() {
        let text = chart(Marks::Dots).svg();
        for wanted in [
            ">workload</text>",
            ">CPU, µs</text>",
            ">W&lt;3</text>",
            ">first</text>",
            ">second</text>",
            "@media(prefers-color-scheme:dark)",
            "class=\"ground\"",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        // Once in the legend, whatever the number of panels; the same colour in all.
        assert_eq!(text.matches(">ringside</text>").count(), 1);
        assert_eq!(text.matches("<circle class=\"fill c0\"").count(), 4);
        assert_eq!(text.matches("<circle class=\"fill c1\"").count(), 4);
        assert!(text.contains(".fill.c0{fill:#c2410c}") && text.contains(".fill.c0{fill:#fb923c}"));
        assert!(text.contains("ringside at 0: 3.00 (1.50–6.00)"), "{text}");
    }

    #[test]
    fn a_bar_reaches_from_zero_to_its_value() {
        let mut bars = chart(Marks::Bars);
        for panel in &mut bars.panels {
            panel.y.scale = Scale::linear([60.0]);
        }
        let text = bars.svg();
        let bar = text.lines().find(|line| line.contains("daprd at 0: 30.0")).expect("a bar");
        let height = PANEL_HEIGHT - TOP - BOTTOM;
        let half = format!("height=\"{}\"", height / 2.0);
        assert!(bar.contains(&half), "half of {height}: {bar}");
    }

    #[test]
    fn lines_join_their_points() {
        let mut lines = chart(Marks::Lines);
        for panel in &mut lines.panels {
            panel.x.scale = Scale::linear([1.0]);
        }
        let text = lines.svg();
        assert_eq!(text.matches("<polyline class=\"stroke c0\"").count(), 2);
        assert_eq!(text.matches("<line class=\"whisker c1\"").count(), 4);
    }

    #[test]
    fn four_panels_are_two_rows() {
        let mut four = chart(Marks::Dots);
        four.panels.extend(chart(Marks::Dots).panels);
        let height = HEAD + 2.0 * PANEL_HEIGHT + MARGIN;
        assert!(four.svg().contains(&format!("viewBox=\"0 0 960 {height}\"")));
    }
}
