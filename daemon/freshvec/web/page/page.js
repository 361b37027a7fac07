// Asks the daemon every two seconds how it is, while somebody looks, and shows it.
import { Chart } from "./charts.js";
import { offer } from "./search.js";
import { ago, duration, element, gigabytes, mark, number, ORDER, percent, prose, rate, say } from "./show.js";
import { showSyncs } from "./syncs.js";

const EVERY = 2000; // milliseconds
const STEPS = 180;
const RECENT = 12; // steps that count as now, for lags
const at = (id) => document.getElementById(id);

/** The steps of every sync, as they come in. */
class Past {
  constructor() {
    this.step = 0;
    this.first = 1;
    this.syncs = new Map();
  }

  take(state) {
    if (state.step < this.step) { this.step = 0; this.syncs.clear(); } // another process
    for (const sync of state.syncs) {
      const kept = this.syncs.get(sync.name) ?? new Map();
      for (const [number, ...values] of sync.steps) kept.set(number, values);
      for (const number of kept.keys()) if (number <= state.step - STEPS) kept.delete(number);
      this.syncs.set(sync.name, kept);
    }
    this.step = state.step;
    this.first = Math.max(1, state.step - STEPS + 1);
    this.numbers = Array.from({ length: Math.max(0, this.step - this.first + 1) }, (_, i) => this.first + i);
    this.times = this.numbers.map((number) => state.now - (state.step - number) * state.step_seconds);
  }

  of(name) {
    const kept = this.syncs.get(name) ?? new Map();
    const value = (place, missing) => this.numbers.map((number) => kept.get(number)?.[place] ?? missing);
    const rates = value(0, 0), p50 = value(1, null), p99 = value(2, null);
    return { times: this.times, rates, p50, p99, rate: mean(rates.slice(-2)), lag: most(p99.slice(-RECENT)) };
  }

  all() {
    const syncs = [...this.syncs.keys()].map((name) => this.of(name));
    const rates = this.numbers.map((_, i) => syncs.reduce((sum, sync) => sum + sync.rates[i], 0));
    const worst = (which) => this.numbers.map((_, i) => most(syncs.map((sync) => sync[which][i])));
    return { times: this.times, rates, p50: worst("p50"), p99: worst("p99") };
  }
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
const most = (values) => values.reduce((top, value) => (value === null || value === undefined ? top : Math.max(top ?? value, value)), null);
const sum = (syncs, which) => syncs.reduce((total, sync) => total + (sync[which] ?? 0), 0);

const past = new Past();
let heard = 0; // when it last answered, in milliseconds
let before = null; // the tokens at the last answer but some, to tell a rate
let lagChart, rateChart, lastLine = 0;

async function ask() {
  try {
    const answer = await fetch(`api/state?since=${past.step}`, { signal: AbortSignal.timeout(8000) });
    if (!answer.ok) throw new Error(String(answer.status));
    const state = await answer.json();
    past.take(state);
    heard = Date.now();
    show(state);
  } catch {
    // It is tried again; what was shown stays, and says how old it is.
  }
  showLive();
}

function show(state) {
  lagChart ??= new Chart(at("lag-chart"), "lag");
  rateChart ??= new Chart(at("rate-chart"), "rate");
  const all = past.all();
  showHeadline(state);
  showNotices(state);
  showTiles(state, all);
  lagChart.show(all.times, all.p99, all.p50);
  rateChart.show(all.times, all.rates);
  showSyncs(state.syncs, past, state.now);
  offer(state.syncs.filter((sync) => sync.table).map((sync) => sync.name), state.shows_rows);
  showLog(state);
  say(at("footer"), `freshvec ${state.version}`);
}

function showHeadline(state) {
  const worst = [...state.syncs].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state))[0]?.state ?? "unknown";
  const with_ = (...states) => state.syncs.filter((sync) => states.includes(sync.state)).length;
  const trouble = with_("trouble");
  const backlog = sum(state.syncs, "backlog");
  const eta = most(state.syncs.map((sync) => sync.eta_seconds));
  const left = `${number(backlog)} ${backlog === 1 ? "row waits" : "rows wait"}${eta >= 1 ? `, about ${duration(eta)} left` : ""}`;
  const headline = {
    trouble: trouble === 1 ? "One sync needs you" : `${trouble} syncs need you`,
    unknown: "The database does not answer",
    paused: "Bulk work is paused",
    starting: "Starting",
    backfilling: "Filling in what is missing",
    "catching up": "Catching up",
    "keeping up": "Every change is on its way",
    fresh: "Every row is fresh",
    "standing by": "Standing by",
  }[worst];
  const fine = with_("fresh", "keeping up");
  const rest = `${fine} of ${state.syncs.length} ${state.syncs.length === 1 ? "sync" : "syncs"} up to date`;
  if (document.title !== `${headline} · freshvec`) document.title = `${headline} · freshvec`;
  if (at("headline").textContent !== headline) at("mark").replaceChildren(mark(worst));
  say(at("headline"), headline);
  say(at("subline"), {
    "standing by": "Another worker keeps these syncs; this one takes over when it ends.",
    unknown: state.status_age === null ? "Nothing is known yet." : `What is shown is as of ${ago(state.status_age)}.`,
  }[worst] ?? (backlog ? `${rest}; ${left}` : rest));
}

function showNotices(state) {
  const found = [];
  if (state.database_error) {
    found.push(["unknown", "The status cannot be read", state.database_error]);
  }
  if (!state.alive) found.push(["trouble", "The worker is stuck", "A pipeline has not moved for two minutes; its supervisor should restart it."]);
  if (state.paused) found.push(["paused", "Bulk work waits", `${state.paused}. Live changes go on.`]);
  for (const sync of state.syncs) {
    if (sync.state !== "trouble") continue;
    const help = sync.rows_failed && sync.why?.includes("could not be encoded") ? ` An edit releases a row; \`freshvec retry ${sync.name}\` tries all of them again.` : "";
    found.push(["trouble", sync.name, (sync.why ?? "") + help]);
  }
  const told = JSON.stringify(found);
  if (told === showNotices.told) return;
  showNotices.told = told;
  const shown = found.slice(0, 6).map(([kind, title, text]) => element("li", `notice ${kind === "trouble" ? "bad" : "wait"}`, mark(kind), element("strong", "", title), element("p", "", ...prose(text))));
  if (found.length > 6) shown.push(element("li", "notice bad", mark("trouble"), element("strong", "", `${found.length - 6} more`), element("p", "", "They stand first among the syncs below.")));
  at("notices").replaceChildren(...shown);
}

function showTiles(state, all) {
  const fresh = sum(state.syncs, "rows_fresh"), failed = sum(state.syncs, "rows_failed"), backlog = sum(state.syncs, "backlog");
  const known = state.syncs.filter((sync) => sync.coverage !== null);
  // Each sync by its rows; one that has none yet still counts for what it lacks.
  const weight = (sync) => Math.max(1, sync.rows_fresh + sync.rows_failed + sync.backlog);
  const share = known.length ? known.reduce((total, sync) => total + weight(sync) * sync.coverage, 0) / known.reduce((total, sync) => total + weight(sync), 0) : null;
  say(at("coverage"), percent(share));
  say(at("coverage-note"), `${number(fresh)} rows${failed ? `, ${number(failed)} failed` : ""}`);
  say(at("waiting"), known.length ? number(backlog) : "–");
  const oldest = most(state.syncs.map((sync) => sync.oldest_unfresh_seconds));
  say(at("waiting-note"), oldest ? `the oldest for ${duration(oldest)}` : known.length ? "nothing waits" : "");
  const now = mean(all.rates.slice(-2));
  at("rate").replaceChildren(rate(now), element("small", "", " rows/s"));
  say(at("rate-note"), `at most ${rate(most(all.rates) ?? 0)} in the last 15 min`);
  const lag = most(all.p99.slice(-RECENT));
  say(at("lag"), lag === null ? "–" : duration(lag / 1000));
  const day = most(state.syncs.map((sync) => sync.lag_p99_ms));
  say(at("lag-note"), lag !== null ? "p99 of the last minute" : day !== null ? `p99 of the last day ${duration(day / 1000)}` : "no small change yet");
  showDevice(state);
}

function showDevice(state) {
  const devices = [...new Set(state.models.map((model) => model.device))];
  say(at("device"), devices.map((device) => (device === "cpu" ? "CPU" : device.toUpperCase())).join(", ") || "–");
  const tokens = sum(state.models, "tokens"), busy = sum(state.models, "busy_seconds");
  before ??= [];
  before.push([state.now, tokens, busy]);
  while (before.length > 6) before.shift();
  const [since, had, was] = before[0];
  const seconds = state.now - since;
  const parts = seconds > 0 ? [`${number((tokens - had) / seconds)} tokens/s`, `${Math.min(100, Math.round((100 * (busy - was)) / seconds / Math.max(1, state.models.length)))}% busy`] : [];
  for (const model of state.models) {
    if (model.memory_total) parts.push(`${gigabytes(model.memory_used)} of ${gigabytes(model.memory_total)}`);
  }
  say(at("device-note"), parts.join(", "));
}

function showLog(state) {
  const lines = at("lines");
  if (!state.shows_rows) at("log-note").replaceChildren(...prose("Off, like the search: write `rows = true` under `[web]`."));
  lines.hidden = !state.shows_rows;
  const last = state.log.at(-1)?.[0] ?? 0;
  if (last === lastLine) return;
  lastLine = last;
  const atEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 8;
  lines.replaceChildren(...state.log.map(([, when, level, text]) => {
    const time = element("time", "", new Date(when * 1000).toLocaleTimeString("en-GB"));
    time.dateTime = new Date(when * 1000).toISOString();
    return element("li", level, time, element("span", "", text));
  }));
  if (atEnd) lines.scrollTop = lines.scrollHeight;
}

function showLive() {
  const seconds = (Date.now() - heard) / 1000;
  const lost = seconds > 7;
  document.body.classList.toggle("lost", lost);
  at("live").className = lost ? "live lost" : "live";
  say(at("live"), !heard ? "no answer yet" : lost ? `no answer for ${duration(seconds)}` : "live");
}

async function turn() {
  if (!document.hidden) await ask();
  setTimeout(turn, EVERY);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
turn();
