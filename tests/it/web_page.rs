//! The web page, in a real Chromium: what it shows of a live pair, in light and dark, narrow and
//! wide, by keyboard.
//!
//! In one setting only (`scripts/test`): drivers and workers play no part.

use crate::peer::chromium::Chromium;
use crate::peer::ports::claim;
use crate::peer::probe::{Call, ProbeApp};
use crate::peer::sidecar::{Options, http_request};
use crate::peer::{Kind, Sidecar, World};
use std::fs;

struct Stage {
    world: World,
    _app: ProbeApp,
    caller: Sidecar,
    callee: Sidecar,
    page: u16,
    callers_page: u16,
}

impl Stage {
    fn new(name: &str, env: &[(&str, &str)]) -> Self {
        let mut world = World::with_sentry(name);
        world.reserve(&["server", "client"]);
        let policies = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\n\
                        spec:\n  policies: {circuitBreakers: {cb: {trip: totalFailures > 999}}}\n  \
                        targets: {apps: {server: {circuitBreaker: cb}}}\n";
        fs::write(world.folder("resources").join("r.yaml"), policies).expect("a Resiliency");
        let app = ProbeApp::start(&world);
        let (page, callers_page) = (claim(), claim());
        let start = |id: &str, app_port, page: u16| {
            let page = page.to_string();
            let args = vec!["--ringside-page-port", &page];
            let options = Options { app_port, args, env: env.to_vec(), ..Options::default() };
            Sidecar::start(&world, Kind::Ringside, id, options)
        };
        let callee = start("server", Some(app.port), page);
        let caller = start("client", None, callers_page);
        Self { world, _app: app, caller, callee, page, callers_page }
    }

    /// Calls that the app ends with this status.
    fn call(&self, name: &str, status: &str, times: &str) -> String {
        let call = Call::to(&self.caller.address()).app("server").metadata("probe-code", status);
        call.args(&["-times", times]).run(&self.world, name).code
    }
}

/// Text of an element.
fn text(browser: &mut Chromium, selector: &str) -> String {
    let told = browser.evaluate(&format!("document.querySelector('{selector}')?.textContent"));
    told.as_str().unwrap_or_default().to_owned()
}

#[test]
fn shows_what_happens() {
    let stage = Stage::new("page", &[]);
    let mut browser = Chromium::start(&stage.world);
    browser.look_as(1280, 900, "light");
    browser.open(&format!("http://127.0.0.1:{}/", stage.page));
    browser.wait("document.getElementById('ready')?.textContent === 'ready'");
    for round in 0..3 {
        assert_eq!(stage.call(&format!("calls-{round}"), "0", "200"), "OK");
        let gone = stage.call(&format!("gone-{round}"), "14", "2");
        assert_eq!(gone, "Unavailable");
    }
    browser.wait("document.querySelector('#graph title').textContent.includes('client: ')");
    browser.wait("document.querySelector('#graph title').textContent.includes('of 606 failed')");
    assert_eq!(text(&mut browser, "#app"), "server");
    let identity = text(&mut browser, "#identity");
    assert!(identity.starts_with("spiffe://public/ns/default/server, for 23 h"), "{identity}");
    let graph = text(&mut browser, "#graph title");
    assert!(graph.starts_with("Calls to server: client: "), "{graph}");
    browser.wait("document.querySelectorAll('#rate path.plot').length === 3");
    let policies = text(&mut browser, "#policies");
    assert!(policies.contains("Access control") && policies.contains("in force as they are"));
    let workers = "document.querySelectorAll('#workers tbody tr').length";
    let count = browser.evaluate(workers).as_u64().expect("a number");
    assert!(count >= 1);
    // Nothing is wider than the screen, whatever the screen.
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
        browser.look_as(width, 900, scheme);
        browser.wait(&format!("document.documentElement.scrollWidth <= {width}"));
        let ground = browser.evaluate("getComputedStyle(document.body).backgroundColor");
        let light = ground == "rgb(251, 250, 248)";
        assert_eq!(light, scheme == "light", "{ground}");
        // Drawn for this width, of more than a point.
        browser.wait("document.querySelector('#rate path.plot').getAttribute('d').includes('L')");
        browser.wait(
            "document.querySelector('#rate svg').viewBox.baseVal.width === \
             Math.max(260, document.getElementById('rate').clientWidth)",
        );
        let picture = browser.picture();
        assert!(picture.len() > 10_000);
        if let Some(folder) = std::env::var_os("RINGSIDE_PICTURES") {
            let name = format!("page-{width}-{scheme}.png");
            fs::write(std::path::Path::new(&folder).join(name), picture).expect("a picture");
        }
    }
    browser.open(&format!("http://127.0.0.1:{}/", stage.callers_page));
    browser.wait("document.querySelector('#graph title')?.textContent.includes('server: ')");
    let method = text(&mut browser, "#methods tbody tr");
    assert!(method.starts_with("/probe.Probe/Echoserver") && method.contains("606"), "{method}");
    let breaker = text(&mut browser, "#breakers tbody tr");
    assert!(breaker.starts_with("server /probe.Probe/Echoclosed"), "{breaker}");
    assert!(breaker.contains("2 failures in a row, 6 of 606 calls"), "{breaker}");
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
}

#[test]
fn works_by_keyboard() {
    let mut stage = Stage::new("page-keys", &[]);
    let mut browser = Chromium::start(&stage.world);
    browser.look_as(1280, 900, "light");
    browser.open(&format!("http://localhost:{}/", stage.page));
    browser.wait("document.getElementById('ready')?.textContent === 'ready'");
    // From the beginning of the page, each control in the order in which it is seen.
    let mut met = Vec::new();
    for _ in 0..12 {
        browser.press("Tab", "");
        let name = "(() => { const at = document.activeElement; return at.id || at.dataset.hop || \
                    at.className + '/' + (at.getAttribute('aria-labelledby') ?? ''); })()";
        met.push(browser.evaluate(name).as_str().expect("an element").to_owned());
    }
    let expected = [
        "skip/",
        "span",
        "pause",
        "inbound",
        "outbound",
        "scroll/workers-title",
        "scroll/methods-title",
        "scroll/limits-title",
    ];
    assert_eq!(met[..expected.len()], expected);
    browser.evaluate("document.querySelector('[data-hop=outbound]').focus()");
    browser.press("Enter", "\r");
    let pressed = "document.querySelector('[data-hop=outbound]').getAttribute('aria-pressed')";
    assert_eq!(browser.evaluate(pressed), "true");
    browser.press("p", "p");
    browser.wait("document.getElementById('pause').getAttribute('aria-pressed') === 'true'");
    browser.press("p", "p");
    browser.wait("document.getElementById('pause').getAttribute('aria-pressed') === 'false'");
    // A sidecar that is gone is told, and the page stays.
    stage.callee.process.terminate();
    browser.wait("!document.getElementById('trouble').hidden");
    assert_eq!(text(&mut browser, "#app"), "server");
}

#[test]
fn asks_for_its_token() {
    let stage = Stage::new("page-token", &[("RINGSIDE_PAGE_TOKEN", "sesame")]);
    let status = |header: &str| {
        let answer = http_request(stage.page, "GET", "/live.json", header, "").expect("an answer");
        answer.split(' ').nth(1).expect("a status").to_owned()
    };
    assert_eq!(status(""), "401");
    assert_eq!(status("Authorization: Bearer sesame\r\n"), "200");
    let mut browser = Chromium::start(&stage.world);
    browser.open(&format!("http://viewer:sesame@127.0.0.1:{}/", stage.page));
    browser.wait("document.getElementById('ready')?.textContent === 'ready'");
}
