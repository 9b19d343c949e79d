//! What must hold: at every step, and when all is still.

use super::ends::{Call, Outcome};
use super::script::{ResponseEnd, Whom};
use super::world::{Mark, World};
use ringside::grpc::Code;
use ringside::http2::ErrorCode;

/// Stream window of a sidecar's connections: what `http2::Limits` gives by default.
const WINDOW: usize = 256 << 10;
/// What a sidecar keeps of a call to make it again.
const REPLAYED: usize = 256 << 10;
/// The same under a retry policy.
const RETRIED: usize = (4 << 20) + 5;
/// What a connection's window is before SETTINGS say otherwise (RFC 9113 §6.9.2).
const WINDOW_DEFAULT: usize = 65_535;

/// Octets of one direction of a call that may be under way when its reader stalls: the windows
/// of the three connections of the chain, what their sockets hold, and one batch each.
pub fn octets_under_way_max(world: &World, reader_window: u32) -> usize {
    let windows = 2 * WINDOW + (reader_window as usize).max(WINDOW_DEFAULT);
    windows + 3 * (world.plan.capacity + 2 * world.plan.batch)
}

/// A stalled reader stops its sender.
pub fn check_bounds(world: &World) {
    let up = octets_under_way_max(world, world.plan.app_limits.stream_window);
    let down = octets_under_way_max(world, world.plan.caller_limits.stream_window);
    for call in &world.calls {
        let id = call.script.id;
        let read = call.app.received - call.app.held as usize;
        // What each sidecar sends again, its caller has had the window back for.
        let again = match (&world.plan.policy, call.earlier.len()) {
            (Some(_), _) => 2 * RETRIED,
            (None, 0) => 0,
            (None, _) => 2 * REPLAYED,
        };
        assert!(call.left_caller - read <= up + again, "call {id}: request octets pile up");
        let read = call.received - call.held as usize;
        assert!(call.left_app - read <= down, "call {id}: response octets pile up");
    }
}

/// When all is still.
pub fn judge(world: &World) {
    for call in &world.calls {
        let id = call.script.id;
        let Some(outcome) = &call.outcome else {
            panic!("call {id} hangs: {call:?}", call = Brief(call));
        };
        world.note(|| format!("call {id}: {outcome:?}"));
        if let Err(why) = allowed(world, call, outcome) {
            panic!("call {id}: {why}: {call:?}", call = Brief(call));
        }
    }
    for (index, worker) in world.workers.iter().enumerate() {
        assert_eq!(worker.proxy.calls(), 0, "worker {index} keeps calls");
    }
    for (index, caller) in world.callers.iter().enumerate() {
        let left = if caller.alive { caller.h2.streams() } else { 0 };
        assert_eq!(left, 0, "caller {index} keeps streams");
    }
    for (index, app) in world.apps.iter().enumerate() {
        let left = if app.alive { app.h2.streams() } else { 0 };
        assert_eq!(left, 0, "app connection {index} keeps streams");
    }
}

/// A budget bounds the retries of all calls together.
pub fn check_budget(world: &World) {
    let Some(policy) = &world.plan.policy else { return };
    let time = world.now.duration_since(world.start);
    let Some(most) = policy.retries_max(world.calls.len(), world.plan.workers, time) else {
        return;
    };
    let refused = Some(ErrorCode::REFUSED_STREAM);
    let taken = |call: &Call| call.sides().filter(|side| side.reset != refused).count();
    let retries: usize = world.calls.iter().map(|call| taken(call).saturating_sub(1)).sum();
    assert!(retries <= most, "{retries} retries of {most}");
}

/// Window accounting is back at its start, on each connection that is whole; how many those are.
pub fn check_windows(world: &World) -> usize {
    let mut checked = 0;
    for link in world.links.iter().filter(|link| link.is_still()) {
        if let (Some(left), Some(right)) = (world.h2(link.left), world.h2(link.right)) {
            left.check_rest(right);
            checked += 1;
        }
    }
    checked
}

/// A call without its octets.
struct Brief<'a>(&'a Call);

impl std::fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Call { script, sent, sent_end, received, held, outcome, app, .. } = self.0;
        write!(
            f,
            "{outcome:?}, sent {sent} of {} end {sent_end}, received {received} of {}, held \
             {held}, {:?}, {app:?}, timeout {:?}",
            script.request.len(),
            script.response.len(),
            script.whom,
            script.timeout,
        )
    }
}

fn allowed(world: &World, call: &Call, outcome: &Outcome) -> Result<(), String> {
    let script = &call.script;
    let marked = |marks: &[Mark]| {
        world.marks.iter().any(|(step, mark)| {
            let lasting = matches!(mark, Mark::Goaway | Mark::Leap | Mark::NoApp);
            marks.contains(mark) && (lasting || *step >= call.begun_step)
        })
    };
    let verdict = |fine: bool, why: &str| if fine { Ok(()) } else { Err(why.to_owned()) };
    match outcome {
        Outcome::Cancelled => verdict(script.cancel_at.is_some(), "cancelled by nobody"),
        Outcome::Lost => {
            let lost = world.links.iter().any(|link| link.broken);
            // Past its drain's limit a sidecar closes on callers that are slow to read.
            let overdue = world.plan.drain_max.is_some() && marked(&[Mark::Goaway]);
            verdict(lost || overdue || marked(&[Mark::Leap]), "lost")
        }
        Outcome::Refused => verdict(marked(&[Mark::Goaway, Mark::Leap]), "refused"),
        Outcome::Bare => Err("ended without a status".into()),
        Outcome::Status { code, by_app: true, .. } => {
            let strays = matches!(script.whom, Whom::Unknown | Whom::Malformed);
            let attempt = call.answer.unwrap_or_default();
            if world.plan.policy.as_ref().is_some_and(|policy| policy.owes_another(call, attempt)) {
                return Err("it was not tried again".into());
            }
            verdict(*code == script.status_of(attempt) && !strays, "not the app's status")
        }
        Outcome::Status { code, message, by_app: false } => {
            let is = |of: Code| *code == of as u8;
            let late = script.timeout.is_some_and(|timeout| {
                call.ended.is_some_and(|ended| ended.duration_since(call.begun) >= timeout)
            });
            let resets = call.sides().filter_map(|side| side.reset);
            let reset = resets.map(|code| Code::of_reset(code.0) as u8).any(|is| is == *code);
            let policy = world.plan.policy.as_ref();
            let text = |needle: &str| message.contains(needle);
            let lost = [Mark::LinkLost, Mark::DialFailed, Mark::NoApp, Mark::Goaway, Mark::Leap];
            let fine = (is(Code::DeadlineExceeded) && late && text("deadline exceeded"))
                || (is(Code::Unavailable) && marked(&lost))
                || reset
                || policy.is_some_and(|policy| policy.allows(call, *code, message))
                || (is(Code::ResourceExhausted) && is_oversized(world, call))
                || (is(Code::Internal) && script.response_end == ResponseEnd::None)
                || (is(Code::Unknown) && script.whom == Whom::Unknown && text("nobody"))
                || (is(Code::Unknown) && script.whom == Whom::Malformed && text("invalid app id"))
                || (is(Code::Unknown) && marked(&[Mark::ResolveFailed]) && text("find service"))
                // Past the time that a lookup has, at one go.
                || (is(Code::Unknown) && marked(&[Mark::Leap]) && text("timeout waiting for"));
            verdict(fine, "a sidecar failed it without need")
        }
    }
}

fn is_oversized(world: &World, call: &Call) -> bool {
    call.script.largest as u64 > world.plan.max_body_size
}
