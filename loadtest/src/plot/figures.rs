//! Which pictures a record makes, and of which of its figures.

use super::chart::{Axis, Chart, Marks, Panel, Point, Series};
use super::record::{Header, Kind, Look, Record, Run};
use super::scale::Scale;
use crate::ratio::Spread;

/// A file of its own.
pub struct Picture {
    /// Without `.svg`.
    pub name: &'static str,
    pub svg: String,
}

pub fn of(record: &Record) -> Vec<Picture> {
    let charts: Vec<(&'static str, Option<Chart>)> = match record.kind() {
        Some(Kind::Comparison) => vec![
            ("cpu-by-workload", cpu(record)),
            ("bulk", bulk(record)),
            ("drivers", drivers(record)),
        ],
        Some(Kind::Sweep) => vec![("latency-by-rate", rates(record)), ("knee", knee(record))],
        Some(Kind::Hold) => vec![("memory", memory(record))],
        None => Vec::new(),
    };
    let drawn = charts.into_iter().filter_map(|(name, chart)| Some((name, chart?)));
    drawn.map(|(name, chart)| Picture { name, svg: chart.svg() }).collect()
}

/// Costs of these are for a gigabyte.
const BULK: [&str; 2] = ["w4a", "w4b"];
const RINGSIDE: &str = "ringside";
const EPOLL: &str = "ringside-epoll";
const FLOOR: &str = "relay";
/// Fewer latencies have no 99.9th percentile.
const P999_SAMPLES_MIN: u64 = 10_000;

type Figure = fn(&Run) -> Option<f64>;

const CPU: Figure = |run| run.cpu_us_per_unit;

fn cpu(record: &Record) -> Option<Chart> {
    let workloads: Vec<&str> = record.workloads.iter().map(String::as_str).collect();
    let small: Vec<&str> = workloads.into_iter().filter(|name| !BULK.contains(name)).collect();
    let panel = panel_by_workload(record, &small, Marks::Dots, CPU, (1.0, "CPU, µs"))?;
    Some(Chart {
        title: "CPU of both hops for each call, round trip or message".to_owned(),
        note: "user and system time".to_owned(),
        origin: origin(record),
        panels: vec![panel],
    })
}

fn bulk(record: &Record) -> Option<Chart> {
    let known = BULK.into_iter().filter(|name| record.workloads.iter().any(|w| w == name));
    let known: Vec<&str> = known.collect();
    let cost = panel_by_workload(record, &known, Marks::Bars, CPU, (1e-3, "CPU, ms/GB"))?;
    let pace: Figure = |run| Some(run.units_per_s);
    let pace = panel_by_workload(record, &known, Marks::Bars, pace, (1.0, "GB/s"))?;
    Some(Chart {
        title: "Bulk: 64 KiB (W4A) and 1 MiB (W4B) echoed".to_owned(),
        note: "requests and responses together".to_owned(),
        origin: origin(record),
        panels: vec![
            Panel { title: "CPU of both hops, less is better".to_owned(), ..cost },
            Panel { title: "throughput, more is better".to_owned(), ..pace },
        ],
    })
}

/// One figure of each way at each workload.
fn panel_by_workload(
    record: &Record,
    workloads: &[&str],
    marks: Marks,
    figure: Figure,
    (factor, unit): (f64, &str),
) -> Option<Panel> {
    let series = record.topologies.iter().map(|way| {
        let at = |(x, workload): (usize, &&str)| {
            let is_of = |run: &&Run| run.topology == *way && run.workload == **workload;
            let values = record.runs.iter().filter(is_of).filter_map(figure);
            point(x as f64, values.map(|value| value * factor))
        };
        Series { name: way.clone(), points: workloads.iter().enumerate().filter_map(at).collect() }
    });
    let series = shown(series)?;
    let scale = match marks {
        Marks::Bars => Scale::linear(ends(&series)),
        Marks::Dots | Marks::Lines => Scale::log(ends(&series)),
    };
    let names = workloads.iter().map(|name| name.to_uppercase()).collect();
    Some(Panel {
        title: String::new(),
        x: Axis { title: "workload".to_owned(), scale: Scale::Names(names) },
        y: Axis { title: unit.to_owned(), scale },
        marks,
        series,
    })
}

/// io_uring and epoll, each as a multiple of the relays in the same round.
fn drivers(record: &Record) -> Option<Chart> {
    let in_round = |way: &str, workload: &str, round: usize| {
        let is_of = |r: &&Run| r.topology == way && r.workload == workload && r.round == round;
        record.runs.iter().find(is_of).and_then(CPU)
    };
    let rounds = record.runs.iter().map(|run| run.round + 1).max().unwrap_or(0);
    record.topologies.iter().find(|way| *way == EPOLL)?;
    let series = [RINGSIDE, EPOLL].map(|way| {
        let at = |(x, workload): (usize, &String)| {
            let ratios = (0..rounds).filter_map(|round| {
                Some(in_round(way, workload, round)? / in_round(FLOOR, workload, round)?)
            });
            point(x as f64, ratios)
        };
        Series {
            name: way.to_owned(),
            points: record.workloads.iter().enumerate().filter_map(at).collect(),
        }
    });
    let series = shown(series.into_iter())?;
    let names = record.workloads.iter().map(|name| name.to_uppercase()).collect();
    Some(Chart {
        title: "io_uring (ringside) and epoll (ringside-epoll)".to_owned(),
        note: "CPU of both hops over that of two byte relays in the same round".to_owned(),
        origin: origin(record),
        panels: vec![Panel {
            title: "less is better".to_owned(),
            x: Axis { title: "workload".to_owned(), scale: Scale::Names(names) },
            y: Axis { title: "CPU, relay = 1".to_owned(), scale: Scale::linear(ends(&series)) },
            marks: Marks::Bars,
            series,
        }],
    })
}

/// Latencies of open loops.
fn rates(record: &Record) -> Option<Chart> {
    let runs: Vec<&Run> = record.runs.iter().filter(|run| run.rate.is_some()).collect();
    let tail: Figure = |run| (run.latency_samples >= P999_SAMPLES_MIN).then_some(run.p999_us);
    let figures: [(&str, Figure); 4] = [
        ("p50", |run| Some(run.p50_us)),
        ("p99", |run| Some(run.p99_us)),
        ("p99.9, where a run has 10,000 latencies", tail),
        ("CPU of both hops for a call", CPU),
    ];
    let x = Scale::log(runs.iter().filter_map(|run| run.rate));
    let panels = figures.map(|(title, figure)| {
        let series = shown(record.topologies.iter().map(|way| {
            let of_way = runs.iter().filter(|run| run.topology == *way);
            series(way, of_way.filter_map(|run| Some((run.rate?, figure(run)?))))
        }))?;
        // A point alone is no line.
        if series.iter().all(|series| series.points.len() < 2) {
            return None;
        }
        let ys = ends(&series);
        let unit = if title.starts_with('p') { "latency, µs" } else { "CPU, µs" };
        Some(Panel {
            title: title.to_owned(),
            x: Axis { title: "calls/s asked for".to_owned(), scale: x.clone() },
            y: Axis { title: unit.to_owned(), scale: Scale::log(ys) },
            marks: Marks::Lines,
            series,
        })
    });
    let panels: Vec<Panel> = panels.into_iter().flatten().collect();
    let connections = runs.first()?.connections;
    (!panels.is_empty()).then(|| Chart {
        title: format!("Unary calls of 100 octets at a given rate, {connections} connections"),
        note: "open loop: a latency counts from when its call was due".to_owned(),
        origin: origin(record),
        panels,
    })
}

/// Closed loops of more and more calls in flight, to the knee.
fn knee(record: &Record) -> Option<Chart> {
    let runs: Vec<&Run> = record.runs.iter().filter(|run| run.rate.is_none()).collect();
    let mut counts: Vec<usize> = runs.iter().map(|run| run.connections).collect();
    counts.sort_unstable();
    counts.dedup();
    let of_count = |count: usize| {
        shown(record.topologies.iter().map(|way| {
            let of_way = runs.iter().filter(|r| r.topology == *way && r.connections == count);
            let of_way: Vec<&&Run> = of_way.collect();
            let mut streams: Vec<usize> = of_way.iter().map(|run| run.streams).collect();
            streams.sort_unstable();
            streams.dedup();
            let at = |streams: usize| {
                let runs = || of_way.iter().filter(|run| run.streams == streams);
                let x = Spread::of(runs().map(|run| run.units_per_s))?.median;
                point(x, runs().map(|run| run.p99_us))
            };
            Series { name: way.clone(), points: streams.into_iter().filter_map(at).collect() }
        }))
    };
    let known: Vec<(usize, Vec<Series>)> =
        counts.into_iter().filter_map(|count| Some((count, of_count(count)?))).collect();
    // All panels have the same axes, so that they can be compared.
    let points = || known.iter().flat_map(|(_, series)| series).flat_map(|s| &s.points);
    let x = Scale::linear(points().map(|point| point.x));
    let y = Scale::log(points().flat_map(|point| [point.low, point.high]));
    let panels = known.iter().map(|(count, series)| Panel {
        title: if *count == 1 { "1 connection".into() } else { format!("{count} connections") },
        x: Axis { title: "calls/s".to_owned(), scale: x.clone() },
        y: Axis { title: "p99, µs".to_owned(), scale: y.clone() },
        marks: Marks::Lines,
        series: series.clone(),
    });
    let panels: Vec<Panel> = panels.collect();
    let mut streams: Vec<usize> = runs.iter().map(|run| run.streams).collect();
    streams.sort_unstable();
    streams.dedup();
    let streams: Vec<String> = streams.iter().map(usize::to_string).collect();
    let streams = format!(
        "closed loop; from left to right {} calls in flight on each connection",
        streams.join(", ")
    );
    (!panels.is_empty()).then(|| Chart {
        title: "Throughput and latency up to the knee".to_owned(),
        note: streams,
        origin: origin(record),
        panels,
    })
}

fn memory(record: &Record) -> Option<Chart> {
    const MIB: f64 = 1_048_576.0;
    let panel = |title: &str, held: fn(&Look) -> Option<usize>, unit: &str| {
        let mut counts: Vec<usize> = record.looks.iter().filter_map(held).collect();
        counts.sort_unstable();
        counts.dedup();
        let series = shown(record.topologies.iter().map(|way| {
            let of_way = record.looks.iter().filter(|look| look.topology == *way);
            let placed = of_way.filter_map(|look| {
                let place = counts.binary_search(&held(look)?).ok()?;
                Some((place as f64, look.resident as f64 / MIB))
            });
            series(way, placed)
        }))?;
        let names = counts.iter().map(|count| super::scale::short(*count as f64)).collect();
        Some(Panel {
            title: title.to_owned(),
            x: Axis { title: unit.to_owned(), scale: Scale::Names(names) },
            y: Axis { title: "RSS, MiB".to_owned(), scale: Scale::log(ends(&series)) },
            marks: Marks::Lines,
            series,
        })
    };
    let connections = panel(
        "connections without a call",
        |look| (look.streams == 0).then_some(look.connections),
        "idle connections",
    );
    let streams = panel(
        "streams that have carried a message",
        |look| (look.streams > 0 || look.connections == 0).then_some(look.streams),
        "idle streams",
    );
    let panels: Vec<Panel> = [connections, streams].into_iter().flatten().collect();
    (!panels.is_empty()).then(|| Chart {
        title: "Memory of both hops by what they hold".to_owned(),
        note: "resident, file pages included".to_owned(),
        origin: origin(record),
        panels,
    })
}

fn origin(record: &Record) -> String {
    let Header { date, machine } = &record.header;
    format!("medians of rounds, lowest to highest; {machine}, {date}")
}

/// Those with points; nothing without any.
fn shown(series: impl Iterator<Item = Series>) -> Option<Vec<Series>> {
    let some: Vec<Series> = series.filter(|series| !series.points.is_empty()).collect();
    (!some.is_empty()).then_some(some)
}

/// Medians by x, rising.
fn series(name: &str, values: impl Iterator<Item = (f64, f64)>) -> Series {
    let mut values: Vec<(f64, f64)> = values.collect();
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let of_same_x = values.chunk_by(|a, b| a.0 == b.0);
    let points = of_same_x.filter_map(|same| point(same.first()?.0, same.iter().map(|(_, y)| *y)));
    Series { name: name.to_owned(), points: points.collect() }
}

fn point(x: f64, values: impl Iterator<Item = f64>) -> Option<Point> {
    let Spread { median, lowest, highest, .. } = Spread::of(values)?;
    Some(Point { x, y: median, low: lowest, high: highest })
}

/// Of every point, whiskers included.
fn ends(series: &[Series]) -> Vec<f64> {
    series.iter().flat_map(|s| &s.points).flat_map(|point| [point.low, point.high]).collect()
}

#[cfg(test)]
mod tests {
    use crate::compare::Workload;
    use crate::compare::sample;
    use crate::plot::pictures;
    use crate::topology::Kind;

    fn names(json: &str) -> Vec<&'static str> {
        pictures(json).expect("a record").into_iter().map(|picture| picture.name).collect()
    }

    fn cost(kind: Kind) -> f64 {
        match kind {
            Kind::Relay => 10.0,
            Kind::RingsideEpoll => 15.0,
            _ => 20.0,
        }
    }

    #[test]
    fn a_comparison_shows_what_it_holds() {
        let kinds = [Kind::Relay, Kind::Ringside];
        let json = sample(&kinds, &[Workload::W2, Workload::W3], cost).json();
        assert_eq!(names(&json), ["cpu-by-workload"], "no bulk, no epoll");
        let kinds = [Kind::Relay, Kind::Ringside, Kind::RingsideEpoll];
        let json = sample(&kinds, &[Workload::W2, Workload::W4a], cost).json();
        assert_eq!(names(&json), ["cpu-by-workload", "bulk", "drivers"]);
        let found = pictures(&json).expect("a record");
        // Rounds of 20, 40 and 60 µs for a call; of 0.02, 0.04 and 0.06 ms for a gigabyte.
        assert!(found[0].svg.contains("ringside at 0: 40.0 (20.0–60.0)"), "{}", found[0].svg);
        assert!(found[1].svg.contains("ringside at 0: 0.04 (0.02–0.06)"), "{}", found[1].svg);
        // Over the relays of the same round, which slowed down alike.
        assert!(found[2].svg.contains("ringside at 1: 2.00 (2.00–2.00)"), "{}", found[2].svg);
        assert!(found[2].svg.contains("ringside-epoll at 1: 1.50 (1.50–1.50)"));
    }

    const HEAD: &str =
        r#""header": {"date": "today", "machine": "2 CPUs"}, "topologies": ["relay", "ringside"]"#;

    #[test]
    fn a_sweep_shows_rates_or_the_knee() {
        let run = |topology: &str, rate: &str, streams: u32, p99: f64| {
            format!(
                r#"{{"round": 0, "topology": "{topology}", "workload": "w2", "connections": 4,
                "streams": {streams}, "rate": {rate}, "units_per_s": 1000.0, "p50_us": 50.0,
                "p99_us": {p99}, "p999_us": 900.0, "latency_samples": 500,
                "cpu_us_per_unit": 7.0}}"#
            )
        };
        let of = |runs: &[String]| {
            format!(r#"{{"kind": "sweep", {HEAD}, "runs": [{}]}}"#, runs.join(","))
        };
        let one = of(&[run("relay", "500", 100, 80.0), run("ringside", "500", 100, 120.0)]);
        assert!(pictures(&one).expect("a record").is_empty(), "points alone are no lines");
        let open = of(&[run("ringside", "500", 100, 120.0), run("ringside", "900", 100, 150.0)]);
        let found = pictures(&open).expect("a record");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "latency-by-rate");
        assert!(found[0].svg.contains("ringside at 500: 120 (120–120)"), "{}", found[0].svg);
        assert!(!found[0].svg.contains("p99.9"), "500 latencies have none");
        let closed = of(&[run("ringside", "null", 1, 80.0), run("ringside", "null", 16, 120.0)]);
        let found = pictures(&closed).expect("a record");
        assert_eq!(found[0].name, "knee");
        assert!(found[0].svg.contains(">4 connections</text>"), "{}", found[0].svg);
        assert!(found[0].svg.contains("ringside at 1k: 120 (120–120)"));
    }

    #[test]
    fn what_is_held_shows_connections_and_streams() {
        let look = |connections: u32, streams: u32, mib: u32| {
            format!(
                r#"{{"round": 0, "topology": "ringside", "connections": {connections},
                "streams": {streams}, "resident": {}}}"#,
                mib << 20
            )
        };
        let looks = [look(0, 0, 20), look(1000, 0, 25), look(10, 1000, 30)].join(",");
        let json = format!(r#"{{"kind": "hold", {HEAD}, "looks": [{looks}]}}"#);
        let found = pictures(&json).expect("a record");
        assert_eq!(found[0].name, "memory");
        // Places 0 and 1 of both axes.
        for told in ["ringside at 1: 25.0", "ringside at 1: 30.0", ">idle streams</text>"] {
            assert!(found[0].svg.contains(told), "{told}: {}", found[0].svg);
        }
        assert_eq!(found[0].svg.matches("ringside at 0: 20.0").count(), 2);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for json in ["", "[]", "{}", r#"{"kind": "crowd", "topologies": []}"#] {
            let error = pictures(json).err().expect("no record");
            assert!(error.starts_with("no record of compare, sweep or hold: "), "{error}");
        }
        let of_nothing = format!(r#"{{"kind": "sweep", {HEAD}}}"#);
        assert!(pictures(&of_nothing).expect("a record").is_empty());
    }
}
