// The page of a running sidecar: asks /live.json once a second, draws what changed in between.
// Nothing is loaded from elsewhere, and nothing that comes in is ever read as HTML.
"use strict";

const INTERVAL = 1000;
const HISTORY = 900;
const SVG = "http://www.w3.org/2000/svg";
const HOPS = ["inbound", "outbound"];

const $ = (id) => document.getElementById(id);
const points = []; // one for each answer, the newest last
let last = null; // the last answer
let prior = null; // the one before it, of the same process
let paused = false;
let hop = "inbound";

// ---- building blocks

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function show(number, digits = 3) {
  if (!Number.isFinite(number)) return "–";
  if (number === 0) return "0";
  if (number >= 1e6) return (number / 1e6).toPrecision(digits) + " M";
  if (number >= 1e4) return (number / 1e3).toPrecision(digits) + " k";
  return number >= 100 ? number.toFixed(0) : String(Number(number.toPrecision(digits)));
}

function time(us) {
  if (us === Infinity) return "> 100 ms";
  if (!Number.isFinite(us)) return "–";
  return us < 1000 ? `${show(us, 2)} µs` : `${show(us / 1000, 2)} ms`;
}

function duration(seconds) {
  const steps = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = steps.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [size, unit] = steps[first];
  const rest = steps[first + 1];
  const whole = `${Math.floor(seconds / size)} ${unit}`;
  const more = rest ? Math.floor((seconds % size) / rest[0]) : 0;
  return more ? `${whole} ${more} ${rest[1]}` : whole;
}

const percent = (part, whole) => (whole > 0 ? `${show((100 * part) / whole, 2)} %` : "–");

// ---- what happened between two answers

const total = (calls) => Object.values(calls).reduce((sum, count) => sum + count, 0);
const failed = (calls) => total(calls) - (calls.OK ?? 0);

function quantile(share, before, after) {
  const counts = after.counts.map((count, i) => count - (before.counts[i] ?? 0));
  const all = after.count - before.count;
  if (all <= 0) return NaN;
  const rank = share * all;
  const at = counts.findIndex((count) => count >= rank);
  if (at < 0) return Infinity;
  const below = at > 0 ? counts[at - 1] : 0;
  const from = at > 0 ? after.bounds[at - 1] : 0;
  const inside = counts[at] - below;
  return inside > 0 ? from + ((after.bounds[at] - from) * (rank - below)) / inside : after.bounds[at];
}

function compare(before, after) {
  const seconds = (after.at - before.at) / 1000;
  if (seconds <= 0) return null;
  const point = { at: after.at, seconds, hops: {}, busy: [] };
  for (const name of HOPS) {
    const [old, now] = [before.hops[name], after.hops[name]];
    const latency = [0.5, 0.9, 0.99].map((share) => quantile(share, old.latencyUs, now.latencyUs));
    point.hops[name] = {
      calls: Math.max(0, total(now.calls) - total(old.calls)) / seconds,
      failed: Math.max(0, failed(now.calls) - failed(old.calls)) / seconds,
      latency,
    };
  }
  point.busy = after.workers.map((worker, i) =>
    Math.max(0, (worker.busySeconds - (before.workers[i]?.busySeconds ?? 0)) / seconds));
  return point;
}

// Rates of list entries that are the same by `key`.
function rates(before, after, key, seconds) {
  const old = new Map(before.map((entry) => [key(entry), entry]));
  return after.map((entry) => {
    const was = old.get(key(entry)) ?? { calls: 0, failed: 0 };
    return {
      ...entry,
      rate: Math.max(0, entry.calls - was.calls) / seconds,
      failing: Math.max(0, entry.failed - was.failed) / seconds,
    };
  });
}

// ---- drawing

function chart(figure, lines, format, title) {
  const [height, left, bottom, top] = [210, 64, 22, 8];
  const width = wide(figure);
  const span = Number($("span").value) * 1000;
  const end = points.at(-1)?.at ?? Date.now();
  const seen = points.filter((point) => point.at >= end - span);
  const values = lines.flatMap((line) => seen.map(line.value).filter(Number.isFinite));
  const most = niceAbove(Math.max(...values, 0));
  const x = (at) => left + ((at - (end - span)) / span) * (width - left - 4);
  const y = (value) => top + (1 - Math.min(value, most) / most) * (height - top - bottom);
  const art = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  art.append(shape("title", {}, title(seen.at(-1))));
  for (const share of [0, 0.5, 1]) {
    const at = y(share * most);
    art.append(shape("line", { class: "grid", x1: left, x2: width, y1: at, y2: at }));
    art.append(shape("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, format(share * most)));
  }
  for (const share of [0, 0.5, 1]) {
    const ago = duration(((1 - share) * span) / 1000);
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    const label = share === 1 ? "now" : `${ago} ago`;
    art.append(shape("text", { x: left + share * (width - left - 4), y: height - 4, "text-anchor": anchor }, label));
  }
  lines.forEach((line, i) => {
    let path = "";
    let pen = "M";
    for (const point of seen) {
      const value = line.value(point);
      if (Number.isNaN(value)) { pen = "M"; continue; }
      path += `${pen}${x(point.at).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    }
    if (path) art.append(shape("path", { class: `plot s${i + 1}`, d: path }));
  });
  const legend = element("ul", { class: "legend" }, ...lines.map((line, i) => {
    const now = seen.length ? format(line.value(seen.at(-1))) : "–";
    return element("li", {}, element("i", { class: `s${i + 1}` }), `${line.name}: ${now}`);
  }));
  figure.replaceChildren(art, legend);
}

// As many units as it has pixels, so that letters are as large as elsewhere.
const wide = (figure) => Math.max(260, figure.clientWidth || 620);

function niceAbove(value) {
  if (value <= 0) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * size).find((step) => step >= value);
}

function drawGraph(answer, callers, callees) {
  const width = wide($("graph"));
  const narrow = width < 640;
  const step = 46;
  const rows = narrow ? callers.length + 1 + callees.length : Math.max(callers.length, callees.length, 1);
  const height = rows * step + 10;
  const middle = narrow ? 28 + callers.length * step : height / 2;
  const art = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const say = (entry) => `${entry.appId || "without identity"}: ${show(entry.rate)} calls a second, ` +
    `${percent(entry.failed, entry.calls)} of ${show(entry.calls)} failed`;
  art.append(shape("title", {}, `Calls to ${answer.appId}: ${callers.map(say).join("; ") || "none yet"}. ` +
    `Calls from it: ${callees.map(say).join("; ") || "none yet"}.`));
  // Wide: callers, app, callees from left to right. Narrow: from top to bottom, joined at the left.
  const box = narrow ? width - 40 : Math.min(260, width * 0.27);
  const own = narrow ? box : Math.min(220, width * 0.24);
  const ownLeft = narrow ? 36 : (width - own) / 2;
  const side = (entries, first) => entries.forEach((entry, i) => {
    const x = narrow ? 36 : first ? 4 : width - box - 4;
    const at = narrow
      ? middle + (first ? i - entries.length : i + 1) * step
      : middle + (i - (entries.length - 1) / 2) * step;
    const [from, to] = first ? [x + box, ownLeft] : [ownLeft + own, x];
    const [y1, y2] = first ? [at, middle] : [middle, at];
    const bend = (from + to) / 2;
    const bad = entry.failing > 0;
    const stroke = 1 + Math.min(7, Math.log10(1 + entry.rate) * 2);
    art.append(shape("path", {
      class: bad ? "edge bad" : "edge", "stroke-width": stroke.toFixed(1),
      d: narrow ? `M36 ${at}H14V${middle}H36` : `M${from} ${y1}C${bend} ${y1} ${bend} ${y2} ${to} ${y2}`,
    }));
    art.append(...node(x, at, box, entry.appId || "(no identity)",
      `${show(entry.rate)}/s, ${percent(entry.failed, entry.calls)} failed`, bad));
  });
  side(callers, true);
  side(callees, false);
  art.append(...node(ownLeft, middle, own, answer.appId, answer.app.address ?? "no app", false, true));
  $("graph").replaceChildren(art);
}

function node(x, y, width, name, below, bad, self = false) {
  const fits = Math.floor(width / 9);
  const short = name.length > fits ? `${name.slice(0, fits - 1)}…` : name;
  return [
    shape("rect", { class: self ? "node self" : "node", x, y: y - 19, width, height: 38, rx: 6 }),
    shape("text", { class: "name", x: x + width / 2, y: y - 3, "text-anchor": "middle" }, short),
    shape("text", { class: bad ? "bad" : "", x: x + width / 2, y: y + 13, "text-anchor": "middle" }, below),
  ];
}

// Rows of cells; a cell is a text, or an element.
function table(target, heads, rows, none) {
  const head = element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text))));
  const body = element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell)))));
  if (!rows.length) body.append(element("tr", {}, element("td", { colspan: heads.length }, none)));
  target.replaceChildren(head, body);
}

function drawNow(point, answer) {
  const [inbound, outbound] = HOPS.map((name) => point?.hops[name]);
  const wrong = (inbound?.failed ?? 0) + (outbound?.failed ?? 0);
  const facts = [
    ["inbound calls /s", show(inbound?.calls ?? NaN)],
    ["outbound calls /s", show(outbound?.calls ?? NaN)],
    ["failed /s", show(point ? wrong : NaN), wrong > 0],
    ["inbound p99", time(inbound?.latency[2] ?? NaN)],
    ["outbound p99", time(outbound?.latency[2] ?? NaN)],
    ["calls in flight", show(answer.gauges.openCalls)],
    ["waiting", show(answer.gauges.waitingCalls), answer.gauges.waitingCalls > 0],
    ["connections", `${answer.gauges.downstreamConnections} + ${answer.gauges.upstreamConnections}`],
  ];
  $("now").replaceChildren(...facts.map(([name, value, bad]) =>
    element("div", bad ? { class: "bad" } : {}, element("dt", {}, name), element("dd", {}, value))));
}

function drawHead(answer) {
  document.title = `${answer.appId} · ringside`;
  $("app").textContent = answer.appId;
  $("namespace").textContent = answer.namespace;
  const ready = answer.notReady.length === 0;
  $("ready").textContent = ready ? "ready" : `not ready: ${answer.notReady.join(", ") || "starting"}`;
  $("ready").className = ready ? "badge good" : "badge bad";
  drawIdentity();
  $("about").textContent = `ringside ${answer.build}, for daprd ${answer.version} · up ${duration(answer.uptimeSeconds)}`;
}

// Counts down between answers, too.
function drawIdentity() {
  const badge = $("identity");
  if (!last) return;
  badge.hidden = false;
  if (!last.identity) {
    badge.textContent = "plaintext: no identity";
    badge.className = "badge warn";
    return;
  }
  const left = Math.max(0, last.identity.notAfter - Date.now()) / 1000;
  badge.textContent = `${last.identity.spiffeId}, for ${duration(left)}`;
  badge.className = left > 3600 ? "badge good" : left > 0 ? "badge warn" : "badge bad";
}

function drawPolicies(answer) {
  const { policies } = answer;
  const facts = [
    ["Access control", policies.accessControl],
    ["Resiliency", policies.resiliency.join(", ") || "none"],
    ["Dapr's own APIs", policies.apisRestricted ? "restricted by lists" : "all"],
    ["API token", policies.apiToken ? "asked for" : "none"],
    ["Features", policies.features.join(", ") || "none"],
    ["Files", policies.reloadGood ? "in force as they are" : "wrong: what was in force stays in force"],
  ];
  if (policies.restartPending) facts.push(["Restart", "pending: SIGHUP restarts in place"]);
  $("policies").replaceChildren(...facts.flatMap(([name, value]) =>
    [element("dt", {}, name), element("dd", {}, value)]));
}

function drawBreakers({ breakers, leftOut }) {
  $("breakers").closest("section").hidden = breakers.length === 0;
  const rows = breakers.map((it) => {
    const state = element("span", it.state === "closed" ? {} : { class: "bad" }, it.state);
    const counted = it.trials !== undefined
      ? `${it.trialsSucceeded} of ${it.trials} trials went well`
      : it.state === "open" ? "refuses calls" : `${it.failuresInRow} failures in a row, ${it.failures} of ${it.requests} calls`;
    const left = it.leftMs === null ? "–" : duration(Math.ceil(it.leftMs / 1000));
    return [`${it.target ?? "?"} ${it.method ?? "(a method too many to be named)"}`, state, left, counted, it.policy];
  });
  if (leftOut) rows.push([`and ${leftOut} more`, "", "", "", ""]);
  table($("breakers"), ["Method", "State", "Left", "So far", "Policy"], rows, "none");
}

function draw() {
  const answer = last;
  const point = points.at(-1);
  const seconds = point?.seconds ?? 1;
  const earlier = prior ?? answer;
  const byApp = (entry) => `${entry.appId}/${entry.namespace ?? ""}/${entry.trustDomain ?? ""}`;
  const busiest = (entries) => entries.sort((a, b) => b.rate - a.rate || b.calls - a.calls);
  const callers = busiest(rates(earlier.callers, answer.callers, byApp, seconds)).slice(0, 12);
  const callees = busiest(rates(earlier.callees, answer.callees, byApp, seconds)).slice(0, 12);
  drawHead(answer);
  drawNow(point, answer);
  const rate = (name) => ({ name, value: (it) => it.hops[name].calls });
  const wrong = { name: "failed", value: (it) => it.hops.inbound.failed + it.hops.outbound.failed };
  chart($("rate"), [rate("inbound"), rate("outbound"), wrong], (value) => show(value),
    (it) => `Calls per second, now: ${show(it?.hops.inbound.calls ?? 0)} inbound, ${show(it?.hops.outbound.calls ?? 0)} outbound`);
  const share = (name, i) => ({ name, value: (it) => it.hops[hop].latency[i] });
  chart($("latency"), [share("p50", 0), share("p90", 1), share("p99", 2)], time,
    (it) => `Time of ${hop} calls, now: half of them less than ${time(it?.hops[hop].latency[0] ?? NaN)}`);
  drawGraph(answer, callers, callees);
  table($("workers"), ["Worker", "CPU", "Connections", "Streams"], answer.workers.map((worker, i) => {
    const busy = point?.busy[i] ?? 0;
    const meter = element("meter", { min: 0, max: 1, high: 0.85, value: busy, "aria-label": `worker ${i}, CPU` });
    const told = worker.answered ? `${show(100 * busy, 2)} %` : "does not answer";
    return [String(i), element("span", {}, meter, ` ${told}`), String(worker.connections), String(worker.streams)];
  }), "none");
  const methods = busiest(rates(earlier.methods, answer.methods, (it) => `${it.peer} ${it.method}`, seconds));
  table($("methods"), ["Method", "Of", "Calls /s", "Calls", "Failed"], methods.map((it) =>
    [it.method, it.peer, show(it.rate), show(it.calls), percent(it.failed, it.calls)]), "no call yet");
  drawPolicies(answer);
  drawBreakers(answer.breakers);
  table($("limits"), ["Limit", "Refused"], answer.limits.map((it) => [it.limit, show(it.hits)]), "none");
}

// ---- asking

async function ask() {
  // Relative to the page's address without a user and password, which fetch refuses.
  const response = await fetch(new URL("live.json", location.origin + location.pathname), { cache: "no-store", credentials: "same-origin" });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`.trim());
  return response.json();
}

async function turn() {
  if (paused) return;
  try {
    const answer = await ask();
    $("trouble").hidden = true;
    // Another process: what it counts begins anew.
    prior = last && last.started === answer.started ? last : null;
    if (!prior) points.length = 0;
    const point = prior && compare(prior, answer);
    if (point) points.push(point);
    if (points.length > HISTORY) points.shift();
    last = answer;
    if (!paused) draw();
  } catch (error) {
    $("trouble").textContent = `No answer from the sidecar: ${error.message}`;
    $("trouble").hidden = false;
    $("ready").textContent = "no answer";
    $("ready").className = "badge bad";
  }
}

function pause(whether) {
  paused = whether;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
}

$("pause").addEventListener("click", () => pause(!paused));
$("span").addEventListener("change", () => last && draw());
addEventListener("resize", () => last && draw());
for (const button of document.querySelectorAll("[data-hop]")) {
  button.addEventListener("click", () => {
    hop = button.dataset.hop;
    for (const other of document.querySelectorAll("[data-hop]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    if (last) draw();
  });
}
document.addEventListener("keydown", (event) => {
  const writing = event.target.matches("input, select, textarea");
  if (event.key === "p" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) pause(!paused);
});

turn();
setInterval(turn, INTERVAL);
setInterval(() => !paused && drawIdentity(), INTERVAL);
