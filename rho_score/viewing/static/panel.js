// A document of one store: its facts, the number that colours it, and its heat map.

import { ask } from "./api.js";
import { $, h, number, percent, whole } from "./dom.js";
import { HeatMap, scale, tip } from "./heat.js";
import { state } from "./state.js";

const FADES = { mask: "fade by the mask", threshold: "fade by the threshold", none: "fade nothing" };

export class Panel {
  constructor(about, number_, payload, { layer, onLayer, threshold, linked }) {
    this.about = about;
    this.number = number_;
    this.payload = payload;
    this.threshold = threshold;
    this.linked = linked;
    this.layers = about.layers.filter((l) => l.key in payload.values);
    this.layer = this.layers.find((l) => l.key === layer) ?? this.layers[0];
    this.map = new HeatMap(payload);
    this.legend = h("span", { class: "legend" });
    this.choice = h("select", { "aria-label": "Coloured by", class: "layer" }, ...this.layers.map((l) => h("option", { value: l.key }, l.label)));
    this.choice.onchange = () => {
      onLayer?.(this.choice.value);
      this.setLayer(this.choice.value);
    };
    this.element = h("article", { class: "card panel" }, this.head(), h("div", { class: "row" }, this.choice, this.legend), this.body());
    if (this.layer) this.setLayer(this.layer.key);
  }

  head() {
    const p = this.payload;
    const facts = [];
    if (p.group !== null) facts.push(h("bdi", { class: "tag" }, p.group));
    const mean = this.mean(this.about.score);
    const parts = [`${whole(p.tokens)} tokens`, `mean ${this.about.label} ${number(mean)}`];
    if (p.values.mask) parts.push(`${percent(p.values.mask.reduce((sum, x) => sum + x, 0), p.values.mask.length)} kept`);
    for (const [name, value] of Object.entries(p.about)) if (value !== null) parts.push(`${name.replaceAll("_", " ")} ${typeof value === "boolean" ? (value ? "yes" : "no") : number(value)}`);
    return h("h3", {}, h("bdi", {}, p.doc_id), h("small", { title: p.place }, ...facts, parts.join(" · ")));
  }

  mean(key) {
    const known = (this.payload.values[key] ?? []).filter((x) => typeof x === "number");
    return known.length ? known.reduce((sum, x) => sum + x, 0) / known.length : null;
  }

  body() {
    if (!this.payload.ids.length) return h("p", { class: "empty" }, "This document has no tokens.");
    const more = this.payload.tokens - this.payload.ids.length;
    this.map.element.onmouseover = (event) => this.hover(event);
    this.map.element.onmouseleave = () => this.leave();
    if (more <= 0) return this.map.element;
    return h("div", {}, this.map.element, h("p", { class: "note" }, `${whole(more)} more tokens are not shown.`));
  }

  async setLayer(key) {
    this.layer = this.layers.find((l) => l.key === key) ?? this.layer;
    this.choice.value = this.layer.key;
    const fixed = { share: [0, 0.5, 1], mask: [0, 0, 1], category: [0, 0, 1] }[this.layer.kind];
    const ends = fixed ?? (await ask("scale", { store: this.number, layer: this.layer.key, unit: this.payload.unit, row: this.payload.row }));
    if (!ends) return;
    const stored = this.about.thresholds.length === 1 ? this.about.thresholds[0].threshold : null;
    const middle = this.about.comparable && this.layer.key === this.about.score ? stored : null;
    this.scale = scale(this.layer, ends, middle);
    this.map.colour = (i) => this.scale.level(this.map.value(i, this.layer.key));
    this.showLegend();
    this.fade();
  }

  showLegend() {
    const kinds = { mask: [["dropped", "left out"], ["kept", "kept"]], category: this.layer.unit.split(", ").map((t, i) => [`c${i}`, t.slice(2)]) }[this.layer.kind];
    const swatch = ([name, label]) => h("span", { class: `swatch ${name}` }, label);
    if (kinds) {
      this.legend.replaceChildren(...kinds.map(swatch));
      return;
    }
    const [low, middle, high] = this.scale.ends;
    const ramp = Array.from({ length: 11 }, (_, i) => h("span", { class: `swatch h${i}` }, i === 0 ? low : i === 5 ? middle : i === 10 ? high : " "));
    this.legend.replaceChildren(h("span", { class: "ramp" }, ...ramp), this.layer.unit);
  }

  fade() {
    const { mask } = this.payload.values;
    const scores = this.about.score;
    const t = this.threshold();
    let faded = () => false;
    if (state.fade === "threshold" && this.about.comparable && this.number === Number(state.store) && t !== null) {
      faded = (i) => {
        const value = this.map.value(i, scores);
        return value === null || (this.about.high ? !(value >= t) : !(value <= t));
      };
    } else if (state.fade !== "none" && mask) {
      faded = (i) => {
        const [start, stop] = this.map.tokens(i);
        return !mask.slice(start, stop).some(Boolean);
      };
    }
    this.map.faded = faded;
    this.map.repaint();
    if (state.text) this.map.find(state.text);
  }

  hover(event) {
    const span = event.target.closest("span[data-i]");
    if (!span) return this.leave();
    const i = Number(span.dataset.i);
    const box = $("tip");
    box.replaceChildren(...tip(this.map, i, this.layers).map((line) => h("div", {}, line)));
    box.hidden = false;
    const place = span.getClientRects()[0] ?? span.getBoundingClientRect();
    const size = box.getBoundingClientRect();
    const below = place.bottom + 6 + size.height <= window.innerHeight;
    box.style.left = `${Math.max(4, Math.min(place.left, window.innerWidth - size.width - 8))}px`;
    box.style.top = `${Math.max(4, below ? place.bottom + 6 : place.top - size.height - 6)}px`;
    this.linked?.(this, i);
    clearTimeout(this.timer);
    if (this.payload.candidates.length) this.timer = setTimeout(() => this.candidates(i), 250);
    return undefined;
  }

  async candidates(i) {
    const [start] = this.map.tokens(i);
    const found = await ask("candidates", { store: this.number, unit: this.payload.unit, row: this.payload.row, token: start }, "candidates");
    for (const [name, rows] of Object.entries(found ?? {})) {
      $("tip").append(h("div", {}, `likeliest by ${name}:`), ...rows.map(([text, logp]) => h("div", {}, `  ${percent(Math.exp(logp), 1)}  `, h("bdi", {}, JSON.stringify(text)))));
    }
  }

  leave() {
    clearTimeout(this.timer);
    $("tip").hidden = true;
    this.linked?.(this, null);
  }

  point(start) {
    this.pointed?.classList.remove("pointed");
    const i = start === null ? -1 : this.payload.starts.indexOf(start);
    this.pointed = this.map.spans[i];
    this.pointed?.classList.add("pointed");
  }

  close() {
    this.map.cancelled = true;
    this.leave();
  }
}

export function fadeChoice(onChange) {
  const select = h("select", { id: "fade", "aria-label": "Fade" }, ...Object.entries(FADES).map(([value, label]) => h("option", { value }, label)));
  select.value = state.fade;
  select.onchange = () => onChange(select.value);
  return select;
}

export const nextFade = (fade) => {
  const names = Object.keys(FADES);
  return names[(names.indexOf(fade) + 1) % names.length];
};
