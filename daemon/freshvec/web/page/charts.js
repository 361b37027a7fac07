// The charts of the last quarter of an hour: uPlot, in the colours of the page.
import { element, duration, rate, say } from "./show.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const KINDS = {
  lag: { colours: ["--good", "--busy"], names: ["p99", "p50"], show: (value) => duration(value / 1000), least: 10 },
  rate: { colours: ["--busy"], names: ["rows/s"], show: rate, least: 1 },
};

/** One chart; `show` takes times in seconds and as many rows of values as the kind has names. */
export class Chart {
  constructor(place, kind) {
    this.place = place;
    this.kind = KINDS[kind];
    this.data = [[], ...this.kind.names.map(() => [])];
    this.empty = element("p", "empty", "");
    this.tip = element("p", "tip");
    this.tip.hidden = true;
    this.make();
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(place);
    this.onTheme = () => this.make();
    this.theme = matchMedia("(prefers-color-scheme: dark)");
    this.theme.addEventListener("change", this.onTheme);
  }

  close() {
    this.observer.disconnect();
    this.theme.removeEventListener("change", this.onTheme);
    this.plot.destroy();
  }

  make() {
    this.plot?.destroy();
    const { colours, names, show, least } = this.kind;
    const axis = { stroke: colour("--faint"), font: "12px system-ui, sans-serif", ticks: { show: false } };
    const series = names.map((label, i) => ({
      label, stroke: colour(colours[i]), width: 1.6, spanGaps: true, points: { show: false, size: 5 },
      fill: i === 0 ? colour(colours[0]) + "1c" : undefined,
    }));
    this.plot = new uPlot({
      width: this.place.clientWidth || 300, height: this.place.clientHeight || 140,
      legend: { show: false }, padding: [8, 6, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { y: { range: (plot, low, high) => [0, Math.max(least, (high || 0) * 1.12)] } },
      series: [{}, ...series],
      axes: [
        { ...axis, grid: { show: false }, size: 26, incrs: [60, 120, 300, 600], values: (plot, ticks) => ticks.map(clock) },
        { ...axis, grid: { stroke: colour("--grid"), width: 1 }, size: 58, space: 34, values: (plot, ticks) => ticks.map((tick) => (tick ? show(tick) : "0")) },
      ],
      hooks: { setCursor: [(plot) => this.point(plot)] },
    }, this.data, this.place);
    this.place.append(this.empty, this.tip);
  }

  resize() {
    const width = this.place.clientWidth, height = this.place.clientHeight;
    if (width && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({ width, height });
  }

  point(plot) {
    const at = plot.cursor.idx;
    this.tip.hidden = at === null || at === undefined || plot.cursor.left < 0;
    if (this.tip.hidden) return;
    const told = this.kind.names.map((name, i) => [name, this.data[i + 1][at]]).filter(([, value]) => value !== null && value !== undefined);
    say(this.tip, [clock(this.data[0][at]), ...told.map(([name, value]) => `${name} ${this.kind.show(value)}`)].join("  ·  "));
    const left = plot.bbox.left / devicePixelRatio + plot.cursor.left;
    this.tip.style.left = `${Math.max(0, Math.min(left + 8, this.place.clientWidth - this.tip.offsetWidth))}px`;
  }

  show(times, ...rows) {
    this.data = [times, ...rows];
    const is_empty = !rows[0].some((value) => value);
    say(this.empty, is_empty ? "Nothing was written in this time" : "");
    this.plot.setData(this.data);
  }
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}
