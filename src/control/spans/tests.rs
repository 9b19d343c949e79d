//! Queues, batches and texts: no collector.

use super::*;
use crate::control::state::tests::options;
use crate::observe::span::SpanKind;
use crate::observe::trace::Context;
use tokio::task::LocalSet;

#[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
fn span(name: &str) -> Span {
    let context = Context::from_text(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let (context, now) = (context.unwrap(), Instant::now());
    let mut span = Span::new(context, Some([0x11; 8]), SpanKind::Client, name.as_bytes(), now);
    span.push(b"dapr-app-id", b"server");
    span
}

/// A call that failed after two milliseconds.
pub(super) fn finished() -> Finished {
    let mut span = span("/a.B/C");
    span.fail("not now");
    let begun = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
    Finished { span, begun, ended: begun + Duration::from_millis(2) }
}

#[test]
fn the_log_says_it_as_daprd() {
    assert_eq!(
        finished().to_string(),
        "[/a.B/C] Trace: 4bf92f3577b34da6a3ce929d0e0e4736 Span: 1111111111111111/00f067aa0ba902b7 \
         Time: [2023-11-14 22:13:20.123456789 +0000 UTC ->  2023-11-14 22:13:20.125456789 +0000 \
         UTC] Annotations: []"
    );
    assert_eq!(go_time(UNIX_EPOCH), "1970-01-01 00:00:00 +0000 UTC");
    assert_eq!(
        go_time(UNIX_EPOCH + Duration::from_millis(1500)),
        "1970-01-01 00:00:01.5 +0000 UTC"
    );
}

fn line(batching: Batching) -> Line {
    Line::new(batching)
}

fn fill(line: &Line, count: usize) -> usize {
    let span = Rc::new(finished());
    (0..count).filter(|_| line.push(&span)).count()
}

#[test]
fn a_queue_and_a_batch_are_bounded() {
    let batching = Batching { queue_max: 100, batch_max: 30, ..Batching::default() };
    let small = line(batching);
    assert_eq!(fill(&small, 1000), 100);
    assert_eq!((small.cut().len(), fill(&small, 1000)), (30, 30));
    let sizes: Vec<usize> = (0..5).map(|_| small.cut().len()).collect();
    assert_eq!(sizes, [30, 30, 30, 10, 0]);
    assert_eq!(small.queue.borrow().octets, 0);

    let mut large = span("/a.B/C");
    large.fail(&"e".repeat(1 << 20));
    let (begun, ended) = (UNIX_EPOCH, UNIX_EPOCH);
    let large = Rc::new(Finished { span: large, begun, ended });
    let wide = line(Batching { queue_max: 1 << 16, batch_max: 1 << 16, ..batching });
    let taken = (0..10_000).filter(|_| wide.push(&large)).count();
    assert!(taken * large.span.charge() <= QUEUE_OCTETS_MAX, "{taken}");
    let batch = wide.cut().len();
    assert!(batch * large.span.charge() <= BATCH_OCTETS_MAX, "{batch}");
    assert!(batch * large.span.charge() > BATCH_OCTETS_MAX - (16 << 10), "{batch}");
}

/// A full batch at once, another when it has waited, what is left at the end.
#[tokio::test(start_paused = true)]
async fn batches_leave_in_time() {
    let batching = Batching { batch_max: 3, ..Batching::default() };
    let line = line(batching);
    let begun = tokio::time::Instant::now();
    fill(&line, 4);
    line.ready().await;
    assert_eq!((line.cut().len(), begun.elapsed()), (3, Duration::ZERO));
    line.ready().await;
    assert_eq!((line.cut().len(), begun.elapsed()), (1, batching.delay));
    let later = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        fill(&line, 1);
        line.closing.set(true);
        line.changed.notify_one();
    };
    tokio::join!(line.ready(), later);
    assert_eq!((line.cut().len(), begun.elapsed()), (1, batching.delay + Duration::from_secs(60)));
}

/// What a worker could not hand over is dropped for each exporter, as is what has no room.
#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_counted() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let state = State::new(options());
            let counters = &state.counters;
            let batching = Batching { queue_max: 5, batch_max: 5, ..Batching::default() };
            let exporters = Exporters { stdout: true, batching, ..Exporters::default() };
            let spans = Spans::start(exporters, &state).unwrap();
            spans.take((0..7).map(|_| span("/a.B/C")).collect(), 4, counters);
            assert_eq!(counters.spans_dropped.get(), 4 + 2);
            spans.close().await;
            assert_eq!((counters.spans_exported.get(), counters.spans_dropped.get()), (5, 6));
            // Nobody wants them: nothing is lost.
            let nobody = Spans::default();
            nobody.take(vec![span("/a.B/C")], 3, counters);
            nobody.close().await;
            assert_eq!(counters.spans_dropped.get(), 6);
        })
        .await;
}
