// One document as a heat map: pieces of text that are coloured by a number of their tokens.

import { h, number } from "./dom.js";

export const LEVELS = 11;
const CHUNK = 400; // pieces whose layout is skipped together while they are out of sight
const LONGEST_LINE = 1500;
const AT_ONCE = 2000;

// The scale of a layer: turns a value into a level from 0 to 10; null for none.
export function scale(layer, [low, middle, high], threshold = null) {
  const log = layer.kind === "rank" ? Math.log1p : (x) => x;
  if (layer.kind === "mask") return { level: (x) => (x === null ? null : x ? "kept" : "dropped"), ends: [] };
  if (layer.kind === "category") return { level: (x) => (x === null ? null : `c${x}`), ends: [] };
  const centre = threshold ?? middle;
  const [below, above] = [Math.max(log(centre) - log(low), 1e-6), Math.max(log(high) - log(centre), 1e-6)];
  const level = (x) => {
    if (x === null) return null;
    const away = log(x === "inf" ? Infinity : x === "-inf" ? -Infinity : x) - log(centre);
    const place = Math.min(Math.max(away / (away < 0 ? below : above), -1), 1);
    return Math.round(((place + 1) / 2) * (LEVELS - 1));
  };
  return { level, ends: [low, centre, high].map((x) => number(x, 3)) };
}

export class HeatMap {
  constructor(payload) {
    this.payload = payload;
    this.spans = [];
    this.element = h("div", { class: "doc" });
    this.stops = [...payload.starts.slice(1), payload.ids.length];
    this.cancelled = false;
    this.colour = () => null;
    this.faded = () => false;
    this.rendered = this.render();
  }

  async render() {
    const { text } = this.payload;
    let chunk = null;
    let line = null;
    let inChunk = 0;
    let inLine = 0;
    for (let i = 0; i < text.length; i += 1) {
      if (!chunk || (inChunk >= CHUNK && !line)) {
        chunk = this.element.appendChild(h("div", { class: "chunk" }));
        inChunk = 0;
      }
      if (!line) line = chunk.appendChild(h("div", { class: "line", dir: "auto" }));
      const span = h("span", {}, text[i]);
      span.dataset.i = i;
      this.spans.push(span);
      this.paint(i);
      line.append(span);
      inChunk += 1;
      inLine += 1;
      if (text[i].endsWith("\n") || (inLine >= LONGEST_LINE && /\s$/.test(text[i])) || (inLine >= LONGEST_LINE && /^\s/.test(text[i + 1] ?? ""))) {
        line = null;
        inLine = 0;
      }
      if ((i + 1) % AT_ONCE === 0) {
        await new Promise((done) => setTimeout(done));
        if (this.cancelled) return;
      }
    }
  }

  tokens(i) {
    return [this.payload.starts[i], this.stops[i]];
  }

  // The mean of a layer over the tokens of a piece; null if none has a value.
  value(i, key) {
    const values = this.payload.values[key];
    const [start, stop] = this.tokens(i);
    if (stop - start === 1) return values[start];
    const known = values.slice(start, stop).filter((x) => typeof x === "number");
    return known.length ? known.reduce((sum, x) => sum + x, 0) / known.length : (values[start] ?? null);
  }

  paint(i) {
    const level = this.colour(i);
    const name = level === null ? "none" : typeof level === "number" ? `h${level}` : level;
    this.spans[i].className = this.faded(i) ? `${name} off` : name;
  }

  repaint() {
    for (let i = 0; i < this.spans.length; i += 1) this.paint(i);
  }

  // Marks the pieces that hold a text; returns the first of them.
  find(text) {
    const plain = this.payload.text.map((piece) => piece.replaceAll("↵\n", "\n").replaceAll("⇥\t", "\t"));
    const lower = (s) => s.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
    const whole = lower(plain.join(""));
    const wanted = lower(text);
    const ends = [];
    let end = 0;
    for (const piece of plain) ends.push((end += piece.length));
    let first = null;
    let i = 0;
    for (let at = whole.indexOf(wanted); wanted && at >= 0; at = whole.indexOf(wanted, at + wanted.length)) {
      while (ends[i] <= at) i += 1;
      for (let j = i; j < ends.length && (j === i || ends[j - 1] < at + wanted.length); j += 1) {
        this.spans[j]?.classList.add("hit");
        first ??= this.spans[j] ?? null;
      }
    }
    return first;
  }
}

// The lines of the tip of a piece.
export function tip(map, i, layers) {
  const { payload } = map;
  const [start, stop] = map.tokens(i);
  const lines = [JSON.stringify(payload.text[i].replaceAll("↵\n", "\n").replaceAll("⇥\t", "\t"))];
  for (let t = start; t < stop; t += 1) {
    lines.push(`token ${payload.ids[t]}, position ${t.toLocaleString("en-US")}${stop - start > 1 ? ` (${t - start + 1} of ${stop - start})` : ""}`);
    for (const layer of layers) {
      const value = payload.values[layer.key]?.[t];
      if (value === undefined) continue;
      if (layer.kind === "mask") lines.push(`  ${layer.key === "mask" ? "" : `${layer.label}: `}${value ? "kept" : "left out"}`);
      else if (value === null) lines.push(`  ${layer.label}: none`);
      else if (layer.kind === "category") lines.push(`  ${layer.label}: ${layer.unit.split(", ")[value]?.slice(2) ?? value}`);
      else lines.push(`  ${layer.label} ${number(value)}${layer.unit ? ` ${layer.unit}` : ""}`);
    }
  }
  return lines;
}
