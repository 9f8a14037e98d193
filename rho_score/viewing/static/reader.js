// The document that is read, in every store of the page side by side.

import { ask } from "./api.js";
import { $, h } from "./dom.js";
import { mark, neighbour } from "./list.js";
import { Panel, fadeChoice, nextFade } from "./panel.js";
import { change, state, write } from "./state.js";
import { onThreshold, threshold } from "./threshold.js";

let stores = [];
let panels = [];
let asked = 0;

export function begin(every) {
  stores = every;
  let frame = 0;
  onThreshold(() => {
    if (state.fade !== "threshold") return;
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => panels.forEach((panel) => panel.fade()));
  });
}

export async function open(doc) {
  change({ doc });
  write();
  mark(doc);
  const turn = (asked += 1);
  const [unit, row] = doc.split(".");
  const payload = await ask("document", { store: state.store, unit, row }, "document");
  if (!payload || turn !== asked) return;
  for (const panel of panels) panel.close();
  panels = [new Panel(stores[Number(state.store)], Number(state.store), payload, options(true))];
  const columns = h("div", { class: "columns" }, titled(panels[0]));
  $("document").replaceChildren(tools(), columns);
  $("document").scrollTop = 0;
  stores.forEach((about, number) => number !== Number(state.store) && beside(about, number, { unit, row }, columns, turn));
  await panels[0].map.rendered;
  if (turn === asked && state.text) panels[0].map.find(state.text)?.scrollIntoView({ block: "center" });
}

function options(main) {
  return { layer: state.layer, onLayer: main ? (layer) => change({ layer }) : null, threshold, linked: link };
}

async function beside(about, number, place, columns, turn) {
  const slot = columns.appendChild(h("div", {}, h("p", { class: "empty" }, "Looking for the same document …")));
  const payload = await ask("beside", { store: state.store, ...place, other: number });
  if (turn !== asked) return;
  if (payload) {
    const panel = new Panel(about, number, payload, options(false));
    panels.push(panel);
    slot.replaceWith(titled(panel));
    panel.map.rendered.then(() => state.text && panel.map.find(state.text));
  } else {
    const more = about.progress.ready ? "" : " yet; its documents are still being indexed";
    slot.replaceChildren(h("p", { class: "empty" }, `${about.name} has no document of this id${more}.`));
  }
}

function titled(panel) {
  if (stores.length > 1) panel.element.prepend(h("p", { class: "from" }, panel.about.place));
  return panel.element;
}

// Points at the same token in the other panels, if they have the same tokens.
function link(from, i) {
  const start = i === null ? null : from.payload.starts[i];
  for (const panel of panels) {
    if (panel !== from) panel.point(start !== null && panel.payload.ids[start] === from.payload.ids[start] ? start : null);
  }
}

function tools() {
  const button = (label, title, act) => {
    const made = h("button", { type: "button", title }, label);
    made.onclick = act;
    return made;
  };
  const copy = button("copy link", "A link to this document with these settings", async () => {
    write();
    await navigator.clipboard.writeText(location.href).then(() => (copy.textContent = "copied"), () => (copy.textContent = "see the address"));
    setTimeout(() => (copy.textContent = "copy link"), 1500);
  });
  return h("div", { class: "row tools" }, button("‹ k", "Previous document", () => neighbour(-1)), button("j ›", "Next document", () => neighbour(1)), fadeChoice(setFade), copy);
}

function setFade(fade) {
  change({ fade });
  for (const panel of panels) panel.fade();
}

export function turnFade() {
  setFade(nextFade(state.fade));
  if ($("fade")) $("fade").value = state.fade;
}

export function chooseLayer(i) {
  const layer = panels[0]?.layers[i];
  if (!layer) return;
  change({ layer: layer.key });
  panels[0].setLayer(layer.key);
}

export function clear() {
  asked += 1;
  for (const panel of panels) panel.close();
  panels = [];
  $("document").replaceChildren(h("p", { class: "empty" }, "Choose a document, or press j."));
}
