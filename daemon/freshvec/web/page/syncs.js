// The list of syncs: one row each, its details below it when opened.
import { Chart } from "./charts.js";
import { ago, duration, element, drawn, kindOf, mark, number, ORDER, percent, prose, rate, say, Spark } from "./show.js";

const list = document.getElementById("list");
const filter = document.getElementById("filter");
const count = document.getElementById("count");
const rows = new Map();
const SPARKS = 60; // steps that a small line shows
filter.addEventListener("input", () => narrow());

/** Show these syncs; `past` gives the steps of each. */
export function showSyncs(syncs, past, now) {
  const names = new Set(syncs.map((sync) => sync.name));
  for (const [name, row] of rows) {
    if (!names.has(name)) { row.close(); row.node.remove(); rows.delete(name); }
  }
  for (const sync of syncs) {
    if (!rows.has(sync.name)) rows.set(sync.name, new Row(sync.name));
    rows.get(sync.name).show(sync, past.of(sync.name), now);
  }
  const ordered = [...rows.values()].sort((a, b) => a.rank - b.rank || a.name.localeCompare(b.name));
  const nodes = ordered.map((row) => row.node);
  if (nodes.some((node, i) => list.children[i] !== node)) {
    const focused = document.activeElement;
    list.replaceChildren(...nodes);
    if (list.contains(focused)) focused.focus();
  }
  say(count, String(syncs.length));
  filter.hidden = syncs.length < 8;
  narrow();
}

function narrow() {
  const wanted = filter.hidden ? "" : filter.value.trim().toLowerCase();
  for (const row of rows.values()) row.node.hidden = !row.words.includes(wanted);
}

/** The index on the vectors, in a few words. */
function indexOf(sync) {
  if (sync.index_trouble) return sync.index_trouble.replaceAll("`", "");
  if (!sync.index_name) return "none";
  if (!sync.index_phase) return sync.index_valid ? `${sync.index_name}, ${number(Math.ceil(sync.index_bytes / 1e6))} MB` : "not finished";
  return sync.index_share === null ? sync.index_phase : `${sync.index_phase}, ${percent(sync.index_share)}`;
}

class Row {
  constructor(name) {
    this.name = name;
    this.state = "";
    this.charts = [];
    this.table = element("span", "", document.createElement("i"), element("em", "model"));
    this.mark = element("span");
    this.word = element("span");
    this.state_ = element("span", "word", this.mark, this.word);
    this.percent = element("span");
    this.bar = drawn("rect", { height: 4, width: 0 });
    const meter = drawn("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none" });
    meter.append(this.bar);
    this.meter = element("span", "meter", this.percent, element("i", "", meter));
    this.backlog = element("span");
    this.eta = element("span", "eta");
    this.rateSpark = new Spark("rate");
    this.rate = element("span");
    this.lagSpark = new Spark("lag");
    this.lag = element("span");
    this.button = element("button", "row",
      element("span", "name", element("b", "", name), this.table), this.state_, this.meter,
      element("span", "cell", this.backlog, element("span", "unit", " waiting"), this.eta),
      element("span", "spark", this.rateSpark.node, element("span", "", this.rate, element("span", "unit", " rows/s"))),
      element("span", "spark", this.lagSpark.node, element("span", "", this.lag, element("span", "unit", " lag"))));
    this.button.type = "button";
    this.button.setAttribute("aria-expanded", "false");
    this.button.addEventListener("click", () => this.toggle());
    this.node = element("li", "", this.button);
  }

  show(sync, past, now) {
    this.sync = sync; this.past = past; this.now = now;
    this.rank = ORDER.indexOf(sync.state);
    this.words = `${sync.name} ${sync.table ?? ""} ${sync.model ?? ""} ${sync.state}`.toLowerCase();
    say(this.table.firstChild, sync.table ?? "");
    say(this.table.lastChild, sync.model ? ` · ${sync.model}` : "");
    if (sync.state !== this.state) {
      this.state = sync.state;
      this.mark.replaceChildren(mark(sync.state));
      this.state_.className = `word ${kindOf(sync.state)}`;
      this.meter.setAttribute("class", `meter ${kindOf(sync.state)}`);
      say(this.word, sync.state);
    }
    say(this.percent, percent(sync.coverage));
    this.bar.setAttribute("width", 100 * (sync.coverage ?? 0));
    say(this.backlog, number(sync.backlog));
    say(this.eta, sync.backlog && sync.eta_seconds >= 1 ? `about ${duration(sync.eta_seconds)}` : "");
    this.rateSpark.show(past.rates.slice(-SPARKS));
    say(this.rate, rate(past.rate));
    this.lagSpark.show(past.p99.slice(-SPARKS));
    const lag = past.lag ?? sync.lag_p99_ms;
    say(this.lag, lag === null || lag === undefined ? "–" : duration(lag / 1000));
    if (this.detail) this.fill();
  }

  toggle() {
    const open = !this.detail;
    this.button.setAttribute("aria-expanded", String(open));
    if (!open) return this.close();
    const lag = element("div", "chart"), rates = element("div", "chart");
    this.why = element("p", "");
    this.facts = element("dl", "facts");
    this.failed = element("ul", "failed");
    this.detail = element("div", "detail", this.why,
      element("div", "charts",
        element("figure", "", element("figcaption", "", "How long changes wait ", element("small", "", element("b", "good", "p99"), " and ", element("b", "busy", "p50"))), lag),
        element("figure", "", element("figcaption", "", "Rows per second"), rates)),
      this.facts, this.failed);
    this.node.append(this.detail);
    this.charts = [new Chart(lag, "lag"), new Chart(rates, "rate")];
    this.fill();
  }

  close() {
    this.charts.forEach((chart) => chart.close());
    this.charts = [];
    this.detail?.remove();
    this.detail = null;
  }

  fill() {
    const { sync, past } = this;
    this.charts[0].show(past.times, past.p99, past.p50);
    this.charts[1].show(past.times, past.rates);
    if (this.why.textContent !== (sync.why ?? "").replaceAll("`", "")) this.why.replaceChildren(...prose(sync.why ?? ""));
    this.why.className = kindOf(sync.state);
    this.why.hidden = !sync.why;
    const facts = {
      "Vectors in": sync.target ?? "–",
      "Rows with a vector": sync.rows_total === null ? number(sync.rows_fresh) : `${number(sync.rows_fresh)} of ${number(sync.rows_total)}`,
      "Could not be encoded": number(sync.rows_failed),
      "Longer than the model reads": `${number(sync.truncated)} since the start`,
      "Lag over a day, p50 / p99": sync.lag_p50_ms === null ? "–" : `${duration(sync.lag_p50_ms / 1000)} / ${duration(sync.lag_p99_ms / 1000)}`,
      "Last proven fresh": sync.proven_at === null ? "not yet" : `${ago(this.now - sync.proven_at)}, ${number(sync.proven_found)} mended`,
      "Index": indexOf(sync),
      "Doing": sync.phase ?? "–",
    };
    const told = Object.entries(facts).map((pair) => pair.join("\n")).join("\n");
    if (told !== this.told) {
      this.told = told;
      this.facts.replaceChildren(...Object.entries(facts).map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value))));
    }
    const failed = JSON.stringify(sync.failures);
    if (failed !== this.toldFailed) {
      this.toldFailed = failed;
      const help = prose(`An edit releases a row; \`freshvec retry ${sync.name}\` tries all of them again.`);
      this.failed.replaceChildren(...sync.failures.map((row) => element("li", "", element("b", "", row.key.join(" / ")), element("span", "", row.error))),
        ...(sync.failures.length ? [element("li", "", element("b"), element("span", "", ...help))] : []));
    }
  }
}
