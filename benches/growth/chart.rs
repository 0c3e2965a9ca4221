//! A picture of curves, both axes logarithmic, as SVG.

use std::fmt::Write as _;

/// What is to be seen.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) across: &'a str,
    pub(crate) up: &'a str,
    pub(crate) curves: &'a [Curve],
}

/// A curve, and what is written beside it.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Chart<'_> {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let (across, up) = (Axis::over(points().map(|point| point.0)), Axis::over(points().map(|point| point.1)));
        let x = |value: f64| LEFT + across.at(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - up.at(value) * (HEIGHT - TOP - BOTTOM);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        let mut text = |x: f64, y: f64, more: &str, words: &str| {
            writeln!(svg, "<text x=\"{x:.0}\" y=\"{y:.0}\" fill=\"#222222\"{more}>{words}</text>").unwrap();
        };
        text(LEFT, 24.0, " font-size=\"16\"", self.title);
        text(f64::midpoint(LEFT, right), HEIGHT - 10.0, " text-anchor=\"middle\"", self.across);
        let middle = f64::midpoint(TOP, bottom);
        text(18.0, middle, &format!(" text-anchor=\"middle\" transform=\"rotate(-90 18 {middle:.0})\""), self.up);
        for tick in across.ticks() {
            text(x(tick), bottom + 18.0, " text-anchor=\"middle\"", &plain(tick));
        }
        for tick in up.ticks() {
            text(LEFT - 8.0, y(tick) + 4.0, " text-anchor=\"end\"", &plain(tick));
        }
        for tick in across.ticks() {
            writeln!(svg, "<path d=\"M{0:.1} {TOP}V{bottom}\" stroke=\"#dddddd\"/>", x(tick)).unwrap();
        }
        for tick in up.ticks() {
            writeln!(svg, "<path d=\"M{LEFT} {0:.1}H{right}\" stroke=\"#dddddd\"/>", y(tick)).unwrap();
        }
        for (curve, color) in self.curves.iter().zip(COLORS.iter().cycle()) {
            let places: Vec<_> = curve.points.iter().map(|&(across, up)| (x(across), y(up))).collect();
            let line: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
                line.join(" ")
            )
            .unwrap();
            for ((x, y), (_, value)) in places.iter().zip(&curve.points) {
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"/>").unwrap();
                let label = plain((value * 100.0).round() / 100.0);
                writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"11\" text-anchor=\"middle\" fill=\"{color}\">{label}</text>", y - 8.0).unwrap();
            }
            if let Some((x, y)) = places.last() {
                writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{}</text>",
                    x + 10.0,
                    y + 5.0,
                    curve.name
                )
                .unwrap();
            }
        }
        svg + "</svg>\n"
    }
}

/// From one power of ten to another.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) =
            values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        Self { from: least.log10().floor(), to: most.log10().ceil().max(least.log10().floor() + 1.0) }
    }

    fn at(&self, value: f64) -> f64 {
        (value.log10() - self.from) / (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.from as i32..=self.to as i32).map(|power| 10_f64.powi(power))
    }
}

/// A number as people write it.
fn plain(value: f64) -> String {
    if value < 1000.0 {
        return format!("{}", (value * 1000.0).round() / 1000.0);
    }
    let digits = format!("{value:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;
const COLORS: [&str; 4] = ["#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad"];
