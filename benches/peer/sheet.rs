//! The figures as they come in, and the table and the file that are made of them.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::figures::{COLD, FIGURES, Figure, Goal, POPGATE};

/// What was measured.
#[derive(Default)]
pub(crate) struct Sheet {
    samples: BTreeMap<(&'static str, String), Vec<f64>>,
}

impl Sheet {
    /// Notes a figure of `target`. The key is one of [`FIGURES`].
    pub(crate) fn note(&mut self, key: &'static str, target: &str, value: f64) {
        assert!(FIGURES.iter().any(|figure| figure.key == key), "{key} is no figure");
        self.samples.entry((key, target.to_owned())).or_default().push(value);
    }

    /// The table, for people. `judge`: the figures are good enough to say whether goals are reached.
    pub(crate) fn table(&self, judge: bool) -> String {
        let columns = ["raw", "direct", "peer", POPGATE, COLD];
        let columns: Vec<_> =
            columns.into_iter().filter(|column| self.samples.keys().any(|(_, target)| target == column)).collect();
        let mut lines = vec![
            [&["medians"][..], &columns, &["to peer", "goal", ""]].concat().into_iter().map(str::to_owned).collect(),
        ];
        for figure in FIGURES {
            let medians: Vec<_> = columns.iter().map(|column| self.median(figure.key, column)).collect();
            if medians.iter().all(Option::is_none) {
                continue;
            }
            let mut line = vec![format!("{}, {}", figure.what, figure.unit)];
            line.extend(medians.into_iter().map(|median| median.map_or_else(String::new, rounded)));
            line.push(self.ratio(figure).map_or_else(String::new, |ratio| format!("{}×", rounded(ratio))));
            line.push(match figure.goal {
                Goal::None => String::new(),
                Goal::Times(times) => format!("≥ {times}×"),
                Goal::AtMost(most) => format!("≤ {most}"),
            });
            line.push(match self.reached(figure).filter(|_| judge) {
                Some(true) => "reached".to_owned(),
                Some(false) => "MISSED".to_owned(),
                None => String::new(),
            });
            lines.push(line);
        }
        aligned(&lines)
    }

    /// Writes everything to a file: each figure with all its samples.
    pub(crate) fn write(&self, path: &Path, form: &str) {
        let figures: Vec<_> = FIGURES
            .iter()
            .map(|figure| {
                let samples: BTreeMap<_, _> = self
                    .samples
                    .iter()
                    .filter(|((key, _), _)| *key == figure.key)
                    .map(|((_, target), samples)| {
                        (target.clone(), json!({"median": median(samples), "samples": samples}))
                    })
                    .collect();
                json!({
                    "key": figure.key, "what": figure.what, "unit": figure.unit, "targets": samples,
                    "to_peer": self.ratio(figure), "reached": self.reached(figure),
                })
            })
            .collect();
        let date = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let about = json!({"form": form, "seconds since 1970": date, "version": env!("CARGO_PKG_VERSION")});
        let sheet = json!({"about": about, "figures": figures});
        fs::write(path, serde_json::to_string_pretty(&sheet).unwrap() + "\n").unwrap();
    }

    fn median(&self, key: &'static str, target: &str) -> Option<f64> {
        self.samples.get(&(key, target.to_owned())).map(|samples| median(samples))
    }

    /// popgate's figure: that of the popgate whom the goal is for, if there is one.
    fn own(&self, figure: &Figure) -> Option<f64> {
        self.median(figure.key, figure.of).or_else(|| self.median(figure.key, POPGATE))
    }

    fn ratio(&self, figure: &Figure) -> Option<f64> {
        Some(self.own(figure)? / self.median(figure.key, "peer")?)
    }

    fn reached(&self, figure: &Figure) -> Option<bool> {
        match figure.goal {
            Goal::None => None,
            Goal::Times(times) => Some(self.ratio(figure)? >= times),
            Goal::AtMost(most) => Some(self.own(figure)? <= most),
        }
    }
}

/// The middle one, or the mean of the two.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

/// Three digits that say something.
fn rounded(value: f64) -> String {
    match value.abs() {
        1000.0.. => {
            let digits = format!("{value:.0}");
            let groups: Vec<_> =
                digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
            groups.join(",")
        }
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            text += &if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
