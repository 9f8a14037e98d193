// The slider, the distribution, and what is kept of each group.

import { ask } from "./api.js";
import { draw } from "./chart.js";
import { $, h, number, percent, whole } from "./dom.js";
import { change, state } from "./state.js";

const STEPS = 1000;
let store = null;
let chart = null;
let cut = null;
let listeners = [];
let order = { name: "tokens", descending: true };
let busy = false;
let waiting = null;

export const onThreshold = (listener) => listeners.push(listener);
export const threshold = () => (state.t === "" ? stored() : Number(state.t));

// The stored threshold of the ranking and, if it has its own, of the group.
function stored() {
  if (!store) return null;
  const mine = store.thresholds.filter((row) => row.ranking === Number(state.ranking));
  const group = mine.find((row) => state.group !== "" && row.group === Number(state.group));
  return (group ?? (mine.length === 1 ? mine[0] : null))?.threshold ?? null;
}

export async function showStore(about) {
  store = about;
  chart = cut = null;
  $("cut-title").textContent = `Threshold of ${store.ranked}`;
  const ranking = $("ranking");
  ranking.hidden = store.rankings.length < 2;
  ranking.replaceChildren(...store.rankings.map((name, i) => h("option", { value: i }, name)));
  ranking.value = state.ranking;
  $("reset").hidden = !store.masked;
  const notes = [];
  if (!store.exact) notes.push("These scores have 32 bits and are counted in detail near the stored cut only. Elsewhere, counts are exact to about 1 % of the score.");
  if (store.masked && !store.thresholds.length) notes.push("Parts of the corpus were ranked by themselves. The slider shows what one threshold for all would keep.");
  if (store.thresholds.length > 1) notes.push("The stored selection has a threshold for each ranking. The slider is one cut for all groups.");
  $("cut-note").textContent = notes.join(" ");
  await refresh();
}

export async function refresh() {
  const found = await ask("histogram", { store: state.store, ranking: state.ranking, group: state.group }, "histogram");
  if (found === undefined) return;
  chart = found;
  if (threshold() !== null && chart) await askCut({ threshold: threshold() });
  else if (store.masked) showStored();
  else if (chart) await askCut({ share: 0.6 });
  else $("kept").textContent = store.progress.ready ? "There are no scores." : "The scores are being counted.";
}

// What a selection keeps that no one threshold made: each group, document or batch was ranked by itself, or there are rules
// beside the threshold (--drop-top, --min-run, some of those that are equal to it). alone: the tokens that its threshold keeps.
function showStored(alone = null) {
  const at = threshold();
  if (chart) draw($("chart"), chart, at);
  if (chart && at !== null) place(at);
  cut = { groups: store.stored.map((row) => ({ ...row, items: row.documents, items_kept: row.documents_kept, tokens_kept: row.kept })) };
  $("threshold").value = at === null ? "" : number(at, 6);
  $("share").value = "";
  const others = alone === null ? "" : `; its threshold alone would keep ${whole(alone)}`;
  $("kept").textContent = `${whole(store.totals.kept)} of ${whole(store.totals.tokens)} tokens kept (${percent(store.totals.kept, store.totals.tokens, 2)}), as it is stored${others}`;
  showGroups();
}

// One question at a time; of those that come meanwhile, the last one is asked next.
async function askCut(fields) {
  if (busy) {
    waiting = fields;
    return;
  }
  busy = true;
  const found = await ask("cut", { store: state.store, ranking: state.ranking, ...fields });
  busy = false;
  if (found) {
    cut = found;
    if (fields.share !== undefined) change({ t: String(found.threshold ?? (store.high ? Infinity : -Infinity)) });
    show();
  }
  if (waiting) {
    const next = waiting;
    waiting = null;
    await askCut(next);
  }
}

function show() {
  const at = threshold();
  const alone = cut.total.tokens_kept;
  if (state.t === "" && store.thresholds.length === 1 && alone !== store.totals.kept) {
    showStored(alone);
    for (const listener of listeners) listener(at);
    return;
  }
  draw($("chart"), chart, at);
  if (at !== null) place(at);
  if (document.activeElement !== $("threshold")) $("threshold").value = at === null ? "" : number(at, 6);
  if (document.activeElement !== $("share")) $("share").value = ((100 * cut.total.items_kept) / cut.total.items).toFixed(3);
  const documents = store.level === "document" ? `${whole(cut.total.items_kept)} of ${whole(cut.total.items)} documents, ` : "";
  const tokens = store.level === "document" ? "tokens" : "scored tokens";
  $("kept").textContent = `${documents}${whole(alone)} of ${whole(cut.total.tokens)} ${tokens} kept (${percent(alone, cut.total.tokens, 2)})`;
  showGroups();
  for (const listener of listeners) listener(at);
}

function place(at) {
  const [low, high] = [chart.edges[0], chart.edges[chart.edges.length - 1]];
  const slider = $("slider");
  if (document.activeElement !== slider || state.t === "") slider.value = Math.round(Math.min(Math.max((at - low) / (high - low), 0), 1) * STEPS);
  slider.setAttribute("aria-valuetext", number(at));
}

function showGroups() {
  $("groups").hidden = !store.grouped;
  if (!store.grouped) return;
  const columns = [["name", "group"], ["tokens", "tokens"], ["share", "kept"]];
  const head = columns.map(([name, label]) => {
    const mark = order.name === name ? (order.descending ? " ↓" : " ↑") : "";
    const button = h("button", { type: "button", class: "plain" }, `${label}${mark}`);
    button.onclick = () => {
      order = { name, descending: order.name === name ? !order.descending : name !== "name" };
      showGroups();
    };
    return h("th", {}, button);
  });
  $("groups").querySelector("thead tr").replaceChildren(...head);
  const wanted = $("group-search").value.toLowerCase();
  const rows = cut.groups.map((group) => ({ ...group, share: group.tokens ? group.tokens_kept / group.tokens : 0 }));
  const shown = rows.filter((row) => row.name.toLowerCase().includes(wanted));
  const by = (row) => row[order.name];
  shown.sort((a, b) => (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : 0) * (order.descending ? -1 : 1));
  const none = h("tr", {}, h("td", { colspan: 3 }, "There are too many groups to count each of them."));
  $("groups").querySelector("tbody").replaceChildren(...(rows.length ? shown.map(groupRow) : [none]));
}

function groupRow(row) {
  const bar = h("span", { class: "bar" }, h("span", {}));
  bar.firstChild.style.width = `${100 * row.share}%`;
  const kept = store.level === "document" ? `${whole(row.items_kept)} of ${whole(row.items)} documents` : `${whole(row.tokens_kept)} tokens`;
  const chosen = row.group !== null && state.group === String(row.group);
  const name = h("button", { type: "button", class: "plain", disabled: row.group === null, title: row.name }, h("bdi", {}, row.name));
  name.onclick = () => choose(chosen ? "" : String(row.group));
  return h("tr", { class: chosen ? "chosen" : "" }, h("td", {}, name), h("td", {}, whole(row.tokens)), h("td", { title: `${kept} kept` }, bar, percent(row.tokens_kept, row.tokens)));
}

function choose(group) {
  const select = $("group");
  select.value = group;
  select.dispatchEvent(new Event("change", { bubbles: true }));
}

function moveTo(value) {
  change({ t: String(value) });
  if (chart) draw($("chart"), chart, value);
  askCut({ threshold: value });
}

export function step(steps) {
  if (!chart) return;
  const slider = $("slider");
  slider.value = Number(slider.value) + steps;
  slider.dispatchEvent(new Event("input"));
}

export function begin() {
  $("slider").oninput = () => {
    if (!chart) return;
    const [low, high] = [chart.edges[0], chart.edges[chart.edges.length - 1]];
    moveTo(Number((low + (Number($("slider").value) / STEPS) * (high - low)).toPrecision(7)));
  };
  $("threshold").onchange = () => {
    const value = Number($("threshold").value.trim().replace(",", "."));
    if ($("threshold").value.trim() && Number.isFinite(value)) moveTo(value);
  };
  $("share").onchange = () => {
    const value = Number($("share").value.trim().replace(",", "."));
    if ($("share").value.trim() && value >= 0 && value <= 100) askCut({ share: value / 100 });
  };
  $("ranking").onchange = () => {
    change({ ranking: $("ranking").value, t: "" });
    refresh();
  };
  $("reset").onclick = () => {
    change({ t: "" });
    refresh();
  };
  $("group-search").oninput = () => cut && showGroups();
  new ResizeObserver(() => chart && draw($("chart"), chart, threshold())).observe($("chart"));
}

export const redraw = () => chart && draw($("chart"), chart, threshold());
