//! A comparison as Markdown: what docs/performance.md shows.

use super::goals;
use super::measure::Run;
use super::report::Report;
use super::workload::{Unit, Workload};
use crate::ratio::Spread;
use crate::topology::{Between, Kind};
use std::collections::BTreeMap;
use std::fmt::Write as _;

type Figure = fn(&Run) -> Option<f64>;

const CPU: Figure = |run| run.cpu_us_per_unit;
const MACHINE: Figure = |run| Some(run.machine_cpu_us_per_unit);
const P50: Figure = |run| Some(run.p50_us);
const P99: Figure = |run| Some(run.p99_us);
/// Of fewer latencies, what is above the 99.9th percentile is a handful.
const P999_SAMPLES_MIN: u64 = 10_000;
const P999: Figure = |run| (run.latency_samples >= P999_SAMPLES_MIN).then_some(run.p999_us);
/// Behind figures without queueing; what it means is told above the tables.
const CLOSED: &str = "†";

impl Report {
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        self.head(&mut out);
        goals::append(self, &mut out);
        for workload in self.workloads.iter().filter_map(|name| Workload::named(name)) {
            self.costs(&mut out, workload);
        }
        if !self.runs.is_empty() {
            self.ratios(&mut out);
        }
        self.footprints(&mut out);
        self.failures(&mut out);
        out
    }

    fn head(&self, out: &mut String) {
        let header = &self.header;
        let _ = writeln!(
            out,
            "{}; {} rounds of {} s for each workload and way.",
            header.opening(),
            self.rounds,
            self.seconds
        );
        let _ = writeln!(out, "{}\n", header.programs());
        for kind in self.topologies.iter().filter_map(|name| Kind::named(name)) {
            let _ = writeln!(out, "- *{}*: {}", kind.name(), kind.meaning());
        }
        let args = header.ringside_args.join(" ");
        let args =
            if args.is_empty() { "no further flags".to_owned() } else { format!("`{args}`") };
        let _ = writeln!(
            out,
            "\nAll on loopback: client (one thread) → outbound hop → inbound hop → app (one \
             thread); plaintext HTTP/2 at both ends. Between the hops of ringside, daprd, \
             HAProxy, nginx and Envoy: HTTP/2 over TLS 1.3, AES-128-GCM, both sides verified \
             (P-256 keys for the proxies, Sentry's Ed25519 for the sidecars). One thread each \
             (daprd as it comes), ringside with {args}; log level warn, no access log, metrics \
             on where there are any, the sidecars' tracing at Dapr's default rate and told \
             to nobody. Windows and buffers are each program's own defaults, but for \
             HAProxy's HTTP/2 window of 1 MiB and, in \
             TCP mode, its buffers of 64 KiB. Every workload \
             runs over all ways before the next, in an order rotated and reversed from round to \
             round. CPU: user and system time of both hops by the scheduler's clock, over what \
             they moved, then with the client's and the app's; machine: of everything on it, by \
             {}. All costs are over calls that ended OK. Medians over the rounds, lowest and \
             highest in brackets; a ratio is taken within a round.{}\n\n\
             {CLOSED} Closed loop: a call begins when the one before it has ended, so these \
             latencies hold no queueing (coordinated omission): good for comparing ways, not for \
             what callers would see. Lateness: how late the generator itself sent calls of an \
             open loop. A p99.9 needs {P999_SAMPLES_MIN} latencies in a run.\n",
            header.machine_clock,
            debian(&header.versions),
        );
    }

    fn costs(&self, out: &mut String, workload: Workload) {
        let (name, scale) = (workload.name(), scale(workload.unit()));
        heading(out, workload);
        for way in &self.topologies {
            let values =
                |figure: Figure| Spread::of(self.by_round(name, way, figure).into_iter().flatten());
            let with_spread = |spread: Option<Spread>| {
                spread.map_or("–".to_owned(), |spread| spread.scaled(scale).text())
            };
            let median =
                |figure: Figure| values(figure).map_or("–".to_owned(), |s| number(s.median));
            let switches = [
                median(|run| run.voluntary_switches_per_unit),
                median(|run| run.involuntary_switches_per_unit),
            ];
            let switches =
                if switches[0] == "–" { "–".to_owned() } else { switches.join(" + ") };
            let failed: u64 = self.errors(name, way).values().sum();
            let failed = if failed == 0 { "0".to_owned() } else { format!("**⚠ {failed}**") };
            let late = || format!(" {} |", median(|run| Some(run.lateness_p99_us)));
            let late = if workload.is_open() { late() } else { String::new() };
            let _ = writeln!(
                out,
                "| {way} | {} | {} | {} | {} | {} | {} | {} | {} |{late} {switches} | {} | \
                 {failed} |",
                with_spread(values(CPU)),
                with_spread(values(|run| Some(run.all_cpu_us_per_unit()))),
                with_spread(values(MACHINE)),
                median(|run| Some(run.units_per_s)),
                median(P50),
                median(|run| Some(run.p90_us)),
                median(P99),
                median(P999),
                median(|run| run.resident_octets.map(|octets| octets as f64 / MIB)),
            );
        }
        out.push('\n');
    }

    fn ratios(&self, out: &mut String) {
        let own = Kind::Ringside.name();
        if !self.topologies.contains(&own) {
            return;
        }
        for (title, figure, is_latency) in [
            ("CPU of each way's hops as a multiple of ringside's", CPU, false),
            ("CPU of the whole machine as a multiple of that with ringside", MACHINE, false),
            ("p50 as a multiple of ringside's", P50, true),
            ("p99 as a multiple of ringside's", P99, true),
        ] {
            let others = self.topologies.iter().filter(|way| **way != own);
            let others: Vec<&str> = others.copied().collect();
            let _ = writeln!(out, "{title}:\n\n| | {} |", others.join(" | "));
            let _ = writeln!(out, "|---{}|", "|---".repeat(others.len()));
            for workload in &self.workloads {
                let open = Workload::named(workload).is_some_and(Workload::is_open);
                let mark = if is_latency && !open { CLOSED } else { "" };
                let mut row = format!("| {}{mark} |", workload.to_uppercase());
                let of_own = self.by_round(workload, own, figure);
                for other in &others {
                    let ratio = Spread::of_ratios(&self.by_round(workload, other, figure), &of_own);
                    let _ = write!(row, " {} |", ratio.map_or("–".to_owned(), |r| r.text()));
                }
                let _ = writeln!(out, "{row}");
            }
            out.push('\n');
        }
    }

    fn footprints(&self, out: &mut String) {
        let memory = !self.footprints.is_empty();
        if !memory && self.starts.is_empty() {
            return;
        }
        let _ = writeln!(
            out,
            "**W6, W7, W7P**: both hops together. Idle: after the start, one call and two seconds \
             of rest, before any connection is held. Per connection: growth of RSS over {} \
             connections held open besides 100 that have been used, without a call and after one \
             call on each. Start: exec to the first call answered through both hops, tried every \
             millisecond; plaintext: without TLS between the hops.

\
             | Through | idle RSS MiB | of that anonymous | idle PSS MiB | octets/connection \
             idle | used | start ms | its CPU ms | plaintext start ms | its CPU ms |\n\
             |---|---|---|---|---|---|---|---|---|---|",
            self.footprints.first().map_or(0, |footprint| footprint.connections)
        );
        for way in self.topologies.iter().filter(|way| **way != Kind::Direct.name()) {
            let held = |figure: fn(&super::Footprint) -> f64| {
                let of_way = self.footprints.iter().filter(|f| f.topology == *way);
                Spread::of(of_way.map(figure)).map_or("–".to_owned(), |s| s.text())
            };
            let begun = |between: Between, figure: fn(&super::Start) -> f64| {
                let of_way = self.starts.iter().filter(|s| s.topology == *way);
                let of_way = of_way.filter(|s| s.between == between.name());
                Spread::of(of_way.map(figure)).map_or("–".to_owned(), |s| s.text())
            };
            let _ = writeln!(
                out,
                "| {way} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                held(|f| f.idle_resident as f64 / MIB),
                held(|f| f.idle_anonymous as f64 / MIB),
                held(|f| f.idle_proportional as f64 / MIB),
                held(|f| f.octets_per_idle_connection),
                held(|f| f.octets_per_used_connection),
                begun(Between::Tls, |s| s.wall_ms),
                begun(Between::Tls, |s| s.cpu_ms),
                begun(Between::Plain, |s| s.wall_ms),
                begun(Between::Plain, |s| s.cpu_ms),
            );
        }
        out.push('\n');
    }

    fn failures(&self, out: &mut String) {
        let _ = writeln!(out, "Errors: {} in {} runs.", self.failed(), self.runs.len());
        for workload in &self.workloads {
            for way in &self.topologies {
                for (text, count) in self.errors(workload, way) {
                    let _ = writeln!(
                        out,
                        "- ⚠ {} through {way}: {count} × {text}",
                        workload.to_uppercase()
                    );
                }
            }
        }
    }
}

/// The name of the workload and the columns of its table.
fn heading(out: &mut String, workload: Workload) {
    let unit = workload.unit().name();
    let time = if scale(workload.unit()) == 1.0 { "µs" } else { "ms" };
    let (mark, lateness) =
        if workload.is_open() { ("", " lateness p99 µs |") } else { (CLOSED, "") };
    let name = workload.name().to_uppercase();
    let _ = writeln!(out, "**{name}**: {}\n", workload.meaning());
    let _ = writeln!(
        out,
        "| Through | CPU {time}/{unit} | with client, app {time}/{unit} | machine {time}/{unit} | \
         {unit}s/s | p50{mark} µs | p90{mark} µs | p99{mark} µs | p99.9{mark} µs |{lateness} \
         switches/{unit} (wait + forced) | RSS MiB | errors |\n|{}",
        "---|".repeat(12 + usize::from(workload.is_open()))
    );
}

/// What is to be known of the proxies' versions.
fn debian(versions: &BTreeMap<String, String>) -> String {
    let known = [("haproxy", "version 2.6.", "HAProxy 2.6"), ("nginx", "/1.22.", "nginx 1.22")];
    let is_old = |name: &str, part| versions.get(name).is_some_and(|text| text.contains(part));
    let old = known.into_iter().filter(|(name, part, _)| is_old(name, *part));
    let old: Vec<&str> = old.map(|(_, _, shown)| shown).collect();
    if old.is_empty() {
        return String::new();
    }
    let old = old.join(" and ");
    format!(" {old} as Debian 12 has it, not as its authors release it now, which may cost less.")
}

const MIB: f64 = 1_048_576.0;

/// Bulk costs are milliseconds for each gigabyte.
fn scale(unit: Unit) -> f64 {
    match unit {
        Unit::Gigabyte => 1e-3,
        Unit::Call | Unit::RoundTrip | Unit::Message => 1.0,
    }
}

fn number(value: f64) -> String {
    format!("{value:.*}", crate::ratio::digits(value))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::{Footprint, Header, Options, Start};

    pub fn run(round: usize, workload: Workload, topology: Kind, cpu: f64) -> Run {
        Run {
            round,
            workload: workload.name(),
            topology: topology.name(),
            elapsed_s: 3.0,
            calls: 3000,
            units: 3000.0,
            errors: BTreeMap::new(),
            calls_per_s: 1000.0,
            units_per_s: 1000.0,
            latency_samples: 9999,
            p50_us: 2.0 * cpu,
            p90_us: 3.0 * cpu,
            p99_us: 4.0 * cpu,
            p999_us: 5.0 * cpu,
            max_us: 6.0 * cpu,
            lateness_p99_us: 1.0,
            cpu_us_per_unit: (topology != Kind::Direct).then_some(cpu),
            voluntary_switches_per_unit: (topology != Kind::Direct).then_some(4.0),
            involuntary_switches_per_unit: (topology != Kind::Direct).then_some(0.5),
            resident_octets: (topology != Kind::Direct).then_some(20 << 20),
            anonymous_octets: (topology != Kind::Direct).then_some(10 << 20),
            app_cpu_us_per_unit: 1.0,
            client_cpu_us_per_unit: 2.0,
            machine_cpu_us_per_unit: 3.0 * cpu,
            busy_shares: vec![0.5, 0.5],
        }
    }

    pub fn header() -> Header {
        Header {
            command: "loadtest compare".to_owned(),
            date: "2026-11-23 15:00 UTC".to_owned(),
            machine: "2 CPUs".to_owned(),
            kernel: "6.18".to_owned(),
            commit: None,
            versions: BTreeMap::from([("nginx".to_owned(), "1.22".to_owned())]),
            machine_clock: "a clock".to_owned(),
            ringside_args: Vec::new(),
        }
    }

    pub fn report(kinds: &[Kind], workloads: &[Workload], cpu: fn(Kind) -> f64) -> Report {
        let options = Options {
            rounds: 3,
            seconds: 3.0,
            kinds: kinds.to_vec(),
            workloads: workloads.to_vec(),
            memory: true,
            starts: vec![Between::Tls, Between::Plain],
            command: String::new(),
        };
        let mut report = Report::new(header(), &options);
        for round in 0..3 {
            // The machine slows down from round to round.
            let drift = 1.0 + round as f64;
            for kind in kinds {
                for workload in workloads {
                    report.runs.push(run(round, *workload, *kind, cpu(*kind) * drift));
                }
                if *kind != Kind::Direct {
                    report.footprints.push(Footprint {
                        round,
                        topology: kind.name(),
                        idle_resident: (cpu(*kind) * MIB) as u64,
                        idle_anonymous: 1 << 20,
                        idle_proportional: 2 << 20,
                        connections: 1000,
                        octets_per_idle_connection: 512.0,
                        octets_per_used_connection: 1024.0,
                    });
                    for between in [Between::Tls, Between::Plain] {
                        report.starts.push(Start {
                            round,
                            topology: kind.name(),
                            between: between.name(),
                            wall_ms: cpu(*kind),
                            cpu_ms: 7.0,
                        });
                    }
                }
            }
        }
        report
    }

    fn cpu(kind: Kind) -> f64 {
        match kind {
            Kind::Ringside => 10.0,
            Kind::Daprd => 400.0,
            _ => 5.0,
        }
    }

    #[test]
    fn tables_hold_medians_and_ratios_of_rounds() {
        let kinds = [Kind::Direct, Kind::Ringside, Kind::Daprd];
        let text = report(&kinds, &[Workload::W2, Workload::W4a], cpu).markdown();
        // Rounds 10, 20, 30; the ratio is 40 in each.
        assert!(
            text.contains(
                "| ringside | 20.0 (10.0–30.0) | 23.0 (13.0–33.0) | 60.0 (30.0–90.0) | 1000 |"
            ),
            "{text}"
        );
        assert!(
            text.contains("| direct | – | 15.0 (8.0–30.0) | ") || text.contains("| direct | – |")
        );
        assert!(text.contains("| W2 | – | 40.0 (40.0–40.0) |"), "{text}");
        assert!(text.contains("| Through | CPU ms/GB |"), "{text}");
        assert!(text.contains("| 4.00 + 0.50 | 20.0 | 0 |"), "{text}");
        assert!(text.contains("Errors: 0 in 18 runs."), "{text}");
        assert!(text.contains("nginx 1.22") && text.contains("```sh\nloadtest compare\n```"));
    }

    #[test]
    fn latencies_say_what_they_are() {
        let kinds = [Kind::Ringside, Kind::Daprd];
        let mut report = report(&kinds, &[Workload::W1, Workload::W3], cpu);
        let text = report.markdown();
        // The open loop tells how late it was, the closed one that it hides queueing.
        assert!(text.contains("| p50 µs | p90 µs | p99 µs | p99.9 µs | lateness p99 µs |"));
        assert!(text.contains("| p50† µs | p90† µs | p99† µs | p99.9† µs | switches/call"));
        assert!(text.contains("| 1000 | 40.0 | 60.0 | 80.0 | – | 1.00 | 4.00 + 0.50 |"), "{text}");
        assert!(text.contains("| 1000 | 40.0 | 60.0 | 80.0 | – | 4.00 + 0.50 |"), "{text}");
        let ratios = text.split("p50 as a multiple").nth(1).unwrap();
        assert!(ratios.contains("| W1 | 40.0") && ratios.contains("| W3† | 40.0"), "{ratios}");
        for run in &mut report.runs {
            run.latency_samples = P999_SAMPLES_MIN;
        }
        assert!(report.markdown().contains("| 80.0 | 100 | 1.00 |"));
    }

    #[test]
    fn old_proxies_are_called_so() {
        let versions = |haproxy: &str, nginx: &str| {
            let pairs = [("haproxy", haproxy), ("nginx", nginx)];
            BTreeMap::from(pairs.map(|(name, text)| (name.to_owned(), text.to_owned())))
        };
        let old = versions("HAProxy version 2.6.12-1+deb12u4 2026/10/17", "nginx/1.22.1");
        assert!(debian(&old).starts_with(" HAProxy 2.6 and nginx 1.22 as Debian 12"));
        assert_eq!(debian(&versions("HAProxy version 3.2.1", "nginx/1.29.0")), "");
    }

    #[test]
    fn errors_mark_their_runs() {
        let mut report = report(&[Kind::Ringside], &[Workload::W1], cpu);
        report.runs[1].errors.insert("status 14 UNAVAILABLE".to_owned(), 7);
        let text = report.markdown();
        assert!(text.contains("| **⚠ 7** |"), "{text}");
        assert!(text.contains("Errors: 7 in 3 runs."), "{text}");
        assert!(text.contains("- ⚠ W1 through ringside: 7 × status 14 UNAVAILABLE"), "{text}");
    }

    #[test]
    fn every_round_is_in_the_json() {
        let report = report(&[Kind::Direct, Kind::Ringside], &[Workload::W1], cpu);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["runs"].as_array().unwrap().len(), 6);
        assert_eq!(json["runs"][5]["cpu_us_per_unit"], 30.0);
        assert_eq!(json["runs"][0]["cpu_us_per_unit"], serde_json::Value::Null);
        assert_eq!(json["starts"][2]["wall_ms"], 10.0);
        assert_eq!(json["starts"][3]["between"], "plaintext");
    }
}
