//! A real headless Chromium, driven by the DevTools protocol over pipes.

use super::process::{PATIENCE, command, until};
use super::{World, observer};
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// One browser with one page.
pub struct Chromium {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// What the page complained of: exceptions, console errors, refusals by its own policy.
    pub complaints: Vec<String>,
}

impl Chromium {
    pub fn start(world: &World) -> Self {
        let home = world.folder("chromium");
        // DevTools' pipe is at descriptors 3 and 4.
        let mut shell = command("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 1>&2"]).arg(observer("chromium"));
        shell.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--remote-debugging-pipe",
            "--hide-scrollbars",
        ]);
        shell.arg(format!("--user-data-dir={}", home.display())).arg("about:blank");
        let log = std::fs::File::create(home.join("chromium.log")).expect("a log");
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = shell.spawn().expect("Chromium");
        let commands = child.stdin.take().expect("a pipe");
        let mut told = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while told.read_until(0, &mut message).is_ok_and(|count| count > 0) {
                message.pop();
                let value = serde_json::from_slice(&message);
                message.clear();
                if value.is_ok_and(|value| sender.send(value).is_err()) {
                    return;
                }
            }
        });
        let complaints = Vec::new();
        let mut browser = Self { child, commands, answers, session: None, last: 0, complaints };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let target = target["targetId"].clone();
        let attached =
            browser.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("Chromium listens");
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let value = self.answers.recv_timeout(left);
            let value = value.unwrap_or_else(|_| panic!("Chromium does not answer {method}"));
            if value["id"] == self.last {
                assert!(value["error"].is_null(), "{method}: {}", value["error"]);
                return value["result"].clone();
            }
            self.hear(&value);
        }
    }

    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(params["exceptionDetails"].to_string());
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.complaints.push(params["entry"].to_string());
            }
            Some(_) | None => {}
        }
    }

    pub fn open(&mut self, url: &str) {
        self.ask("Page.navigate", json!({ "url": url }));
    }

    /// Size in CSS pixels, and what the viewer prefers.
    pub fn look_as(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let scheme = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.ask("Emulation.setEmulatedMedia", json!({ "features": [scheme] }));
    }

    /// The value of an expression.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        let result = self.ask("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Asks until the expression is true.
    pub fn wait(&mut self, expression: &str) {
        if until(|| (self.evaluate(expression) == true).then_some(())).is_none() {
            let page = self.evaluate("document.body?.innerText");
            panic!("never true: {expression}\n{page}");
        }
    }

    /// A key, as a keyboard sends it; `text` is what it writes.
    pub fn press(&mut self, key: &str, text: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            _ => u32::from(key.to_ascii_uppercase().as_bytes()[0]),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = text.into();
            }
            self.ask("Input.dispatchKeyEvent", params);
        }
    }

    /// The whole page as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.ask("Page.captureScreenshot", params);
        BASE64.decode(shot["data"].as_str().expect("a picture").as_bytes()).expect("base64")
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its own children end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
