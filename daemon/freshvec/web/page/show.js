// From values to what a person reads. Every text goes in as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";

export function element(name, kind = "", ...children) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

export function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Set a text only where it differs: what has not changed is not laid out again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Text whose parts in backquotes are commands or settings. */
export function prose(text) {
  return text.split("`").map((part, i) => (i % 2 ? element("code", "", part) : part));
}

export function number(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
}

export function percent(share) {
  if (share === null || share === undefined) return "–";
  if (share === 1) return "100%";
  const shown = Math.floor(share * 10000) / 100; // never 100% for less
  return `${shown.toFixed(shown >= 99 ? 2 : 1)}%`;
}

export function rate(value) {
  if (!value) return "0";
  return value < 10 ? value.toFixed(1) : number(value);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function ago(seconds) {
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

export function gigabytes(bytes) {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

// Each state has a word, a colour and a shape, so that none of them is needed to tell them apart.
const KINDS = {
  fresh: "good", "keeping up": "good", "catching up": "busy", backfilling: "busy", starting: "busy",
  paused: "wait", trouble: "bad", unknown: "wait", "standing by": "idle",
};
const SHAPES = {
  fresh: [["circle", { cx: 8, cy: 8, r: 7, fill: "currentColor" }], ["path", { d: "M4.8 8.2l2.2 2.2 4.2-4.6", fill: "none", stroke: "var(--surface)", "stroke-width": 1.7, "stroke-linecap": "round", "stroke-linejoin": "round" }]],
  "keeping up": [["circle", { cx: 8, cy: 8, r: 6.2, fill: "none", stroke: "currentColor", "stroke-width": 1.6 }], ["circle", { cx: 8, cy: 8, r: 3, fill: "currentColor" }]],
  "catching up": [["path", { d: "M8 1.5l6.5 12h-13z", fill: "currentColor", "stroke-linejoin": "round" }]],
  backfilling: [["path", { d: "M8 1.5l6.5 12h-13z", fill: "none", stroke: "currentColor", "stroke-width": 1.7, "stroke-linejoin": "round" }]],
  starting: [["circle", { cx: 8, cy: 8, r: 6, fill: "none", stroke: "currentColor", "stroke-width": 1.7, "stroke-dasharray": "3 3" }]],
  paused: [["rect", { x: 2.5, y: 2, width: 4, height: 12, rx: 1, fill: "currentColor" }], ["rect", { x: 9.5, y: 2, width: 4, height: 12, rx: 1, fill: "currentColor" }]],
  trouble: [["path", { d: "M8 .8L15.2 8 8 15.2.8 8z", fill: "currentColor" }], ["path", { d: "M8 4.6v4", stroke: "var(--surface)", "stroke-width": 1.7, "stroke-linecap": "round" }], ["circle", { cx: 8, cy: 11.1, r: 1, fill: "var(--surface)" }]],
  unknown: [["rect", { x: 2, y: 2, width: 12, height: 12, rx: 2, fill: "none", stroke: "currentColor", "stroke-width": 1.7 }], ["path", { d: "M5 8h6", stroke: "currentColor", "stroke-width": 1.7, "stroke-linecap": "round" }]],
  "standing by": [["circle", { cx: 8, cy: 8, r: 6, fill: "none", stroke: "currentColor", "stroke-width": 1.7 }]],
};
/** From what needs somebody to what does not. */
export const ORDER = ["trouble", "unknown", "paused", "starting", "backfilling", "catching up", "keeping up", "fresh", "standing by"];

export function kindOf(state) {
  return KINDS[state] ?? "idle";
}

export function mark(state) {
  const made = drawn("svg", { viewBox: "0 0 16 16", class: `mark ${kindOf(state)}`, "aria-hidden": "true" });
  for (const [name, attributes] of SHAPES[state] ?? SHAPES.unknown) made.append(drawn(name, attributes));
  return made;
}

/** A small line without axes; a gap where there is nothing. */
export class Spark {
  constructor(kind) {
    this.node = drawn("svg", { viewBox: "0 0 60 20", preserveAspectRatio: "none", class: kind, "aria-hidden": "true" });
    this.line = drawn("polyline", {});
    this.area = drawn("path", {});
    this.node.append(this.area, this.line);
    this.drawn = "";
  }

  show(values) {
    const most = Math.max(...values.map((value) => value ?? 0), 1e-9);
    const step = 60 / Math.max(1, values.length - 1);
    const points = values.map((value, i) => `${(i * step).toFixed(1)},${(19 - (18 * (value ?? 0)) / most).toFixed(1)}`);
    const joined = points.join(" ");
    if (joined === this.drawn) return;
    this.drawn = joined;
    this.line.setAttribute("points", joined);
    this.area.setAttribute("d", points.length ? `M0,20 L${points.join(" L")} L60,20 Z` : "");
  }
}
