//! Figures as a table on stdout and as JSON in a file.

use crate::limits::Limits;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::{self, Arguments};
use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::process::Command;

/// What a figure must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
    AtLeast(f64),
    /// Shown for comparison.
    None,
}

impl Bar {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Bar::AtMost(bar) => Some(value <= bar),
            Bar::AtLeast(bar) => Some(value >= bar),
            Bar::None => None,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::AtMost(bar) => write!(to, "<= {}", short(*bar)),
            Bar::AtLeast(bar) => write!(to, ">= {}", short(*bar)),
            Bar::None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Figure {
    bench: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    /// As printed, e.g. `<= 150`; empty when there is none.
    bar: String,
    met: Option<bool>,
    rounds: usize,
    limits: Limits,
}

/// Everything measured so far.
pub(crate) struct Report {
    bench: &'static str,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Machine {
    cores: usize,
    kernel: String,
    processor: String,
    load: String,
}

/// Four significant digits, without an exponent.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

impl Report {
    pub(crate) fn new() -> Self {
        line(format_args!(
            "{:<12} {:<52} {:>12} {:<9} {:<12} met",
            "bench", "figure", "value", "unit", "bar"
        ));
        Self { bench: "", figures: Vec::new() }
    }

    pub(crate) fn begin(&mut self, bench: &'static str, limits: &Limits) {
        self.bench = bench;
        let Limits { fdatasync_p50_us, fdatasync_p99_us, memcpy_gb_s } = limits;
        line(format_args!(
            "{bench:<12} raw limits: fdatasync p50 {} us, p99 {} us; memcpy {} GB/s",
            short(*fdatasync_p50_us),
            short(*fdatasync_p99_us),
            short(*memcpy_gb_s)
        ));
    }

    pub(crate) fn figure(
        &mut self,
        name: &str,
        value: f64,
        unit: &'static str,
        bar: Bar,
        rounds: usize,
        limits: &Limits,
    ) {
        let met = bar.is_met(value);
        let verdict = match met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        let bench = self.bench;
        line(format_args!(
            "{bench:<12} {name:<52} {:>12} {unit:<9} {:<12} {verdict}",
            short(value),
            bar.to_string()
        ));
        let bar = bar.to_string();
        self.figures.push(Figure {
            bench,
            name: name.to_owned(),
            value,
            unit,
            bar,
            met,
            rounds,
            limits: *limits,
        });
    }

    /// Bars that were missed.
    pub(crate) fn missed(&self) -> usize {
        self.figures.iter().filter(|figure| figure.met == Some(false)).count()
    }

    pub(crate) fn finish(&self, json: Option<&Path>) -> Result<()> {
        let barred = self.figures.iter().filter(|figure| figure.met.is_some()).count();
        note(format_args!("{} figures, {} of {barred} bars met", self.figures.len(), barred - self.missed()));
        if let Some(path) = json {
            #[derive(Serialize)]
            struct Document<'a> {
                machine: Machine,
                figures: &'a [Figure],
            }
            let text = serde_json::to_string_pretty(&Document {
                machine: Machine::of_this_run(),
                figures: &self.figures,
            })?;
            std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

impl Machine {
    fn of_this_run() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo");
        let processor = processor
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split(": ").nth(1));
        let kernel = Command::new("uname").arg("-r").output().map(|output| output.stdout).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: String::from_utf8_lossy(&kernel).trim().to_owned(),
            processor: processor.unwrap_or_default().to_owned(),
            load: read("/proc/loadavg").trim().to_owned(),
        }
    }
}

/// A line of data.
pub(crate) fn line(text: Arguments<'_>) {
    let _ = writeln!(stdout(), "{text}");
}

/// A line of talk.
pub(crate) fn note(text: Arguments<'_>) {
    let _ = writeln!(stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_on_its_edge() {
        assert_eq!(Bar::AtMost(2.0).is_met(2.0), Some(true));
        assert_eq!(Bar::AtMost(2.0).is_met(2.1), Some(false));
        assert_eq!(Bar::AtLeast(2.0).is_met(1.9), Some(false));
        assert_eq!(Bar::None.is_met(1.0), None);
        // A figure that could not be computed has not been reached.
        assert_eq!(Bar::AtMost(2.0).is_met(f64::NAN), Some(false));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.5, 12.345, 150.0, 41_234.6].map(short), ["0.5", "12.35", "150", "41235"]);
    }
}
