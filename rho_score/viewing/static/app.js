// Begins the page, and ties its parts together.

import { ask } from "./api.js";
import { $, h, number, whole } from "./dom.js";
import * as list from "./list.js";
import * as reader from "./reader.js";
import { DEFAULTS, change, reread, state } from "./state.js";
import * as cut from "./threshold.js";
import * as tokens from "./tokens.js";

let stores = [];

const night = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => document.documentElement.classList.contains("dark-colours");

// Light or dark: as was chosen here, else as the system wants it.
function theme(choice = null) {
  if (choice) sessionStorage.setItem("theme", choice);
  const wanted = sessionStorage.getItem("theme") ?? (night.matches ? "dark" : "light");
  document.documentElement.classList.toggle("dark-colours", wanted === "dark");
  cut.redraw();
}

const turnTheme = () => theme(isDark() ? "light" : "dark");

async function showStore() {
  const about = stores[Number(state.store)] ?? stores[0];
  document.title = `${about.name} · rho-score view`;
  $("title").textContent = about.kind === "selection" ? "Selection" : "Score set";
  const totals = about.totals;
  const facts = [`${whole(totals.documents)} documents`, `${whole(totals.tokens)} tokens`];
  if (totals.kept !== undefined) facts.push(`${whole(totals.kept)} kept`);
  if (totals.quarantined) facts.push(`${whole(totals.quarantined)} quarantined`);
  if (totals.mean) facts.push(`mean ${about.label} ${number(totals.mean)}`);
  $("place").replaceChildren(h("bdi", {}, about.place), ` · ${facts.join(" · ")}`);
  $("place").title = `fingerprint ${about.fingerprint}`;
  await Promise.all([cut.showStore(about), list.showStore(about), tokens.showStore(about), groups()]);
  if (state.doc) await reader.open(state.doc);
}

async function groups() {
  list.showGroups((await ask("groups", { store: state.store })) ?? []);
}

async function watch() {
  const every = await ask("progress");
  if (!every) return setTimeout(watch, 3000);
  const mine = every[Number(state.store)];
  const finished = mine.ready && !stores[Number(state.store)].progress.ready;
  every.forEach((now, i) => {
    stores[i].progress = now;
  });
  const box = $("progress");
  box.hidden = mine.ready;
  box.querySelector("progress").max = mine.of;
  box.querySelector("progress").value = mine.units;
  box.querySelector("span").textContent = mine.error || `${whole(mine.units)} of ${whole(mine.of)} units are indexed, in random order: ${whole(mine.documents)} documents so far`;
  if (!mine.ready || finished) {
    if (state.offset === "0" && (!state.text || finished)) await list.refresh();
    if (stores[Number(state.store)].kind === "score set") {
      await cut.refresh();
      await groups();
    }
  }
  if (finished) await tokens.refresh();
  if (every.some((now) => !now.ready && !now.error)) setTimeout(watch, 1000);
  return undefined;
}

const KEYS = {
  j: () => list.neighbour(1),
  k: () => list.neighbour(-1),
  "/": () => $("text").focus(),
  ArrowLeft: (event) => cut.step(event.shiftKey ? -10 : -1),
  ArrowRight: (event) => cut.step(event.shiftKey ? 10 : 1),
  t: turnTheme,
  m: () => reader.turnFade(),
  "?": () => $("help").showModal(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest?.("input, select, textarea, dialog[open]");
  if (event.key === "Escape" && field) event.target.blur();
  if (field) return;
  const act = /^[1-9]$/.test(event.key) ? () => reader.chooseLayer(Number(event.key) - 1) : KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act(event);
}

async function begin() {
  theme();
  cut.begin();
  tokens.begin();
  list.begin(reader.open, cut.refresh);
  night.addEventListener("change", () => theme());
  $("theme").onclick = turnTheme;
  $("help-button").onclick = () => $("help").showModal();
  document.addEventListener("keydown", onKey);
  stores = (await ask("stores")) ?? [];
  if (!stores.length) return;
  reader.begin(stores);
  const choice = $("store");
  choice.hidden = stores.length < 2;
  choice.replaceChildren(...stores.map((about, i) => h("option", { value: i }, about.name)));
  choice.value = state.store;
  choice.onchange = () => {
    change({ ...DEFAULTS, store: choice.value, fade: state.fade, text: state.text, id: state.id });
    reader.clear();
    showStore();
  };
  window.addEventListener("hashchange", () => {
    reread();
    choice.value = state.store;
    showStore();
  });
  await showStore();
  document.body.dataset.ready = "yes";
  watch();
}

begin();
