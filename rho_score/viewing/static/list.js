// The list of documents: sorted, filtered, searched and paged by the server.

import { ask } from "./api.js";
import { $, h, number, percent, whole } from "./dom.js";
import { change, state } from "./state.js";

const PAGE = 50;
const BOUNDS = ["tokens", "mean", "share", "score"];
let store = null;
let shown = [];
let total = 0;
let open = () => {};
let regroup = () => {};
let poll = 0;

export function begin(openDocument, groupChanged) {
  open = openDocument;
  regroup = groupChanged;
  $("filters").onsubmit = (event) => {
    event.preventDefault();
    for (const name of ["text", "id"]) change({ [name]: $(name).value });
    restart();
  };
  for (const name of ["text", "id"]) $(name).onchange = () => $("filters").requestSubmit();
  $("group").onchange = () => {
    change({ group: $("group").value });
    restart();
    regroup();
  };
  $("sort").onchange = () => {
    const worthDescending = !["order", "id", "group"].includes($("sort").value);
    change({ sort: $("sort").value, descending: worthDescending ? "1" : "0" });
    restart();
  };
  $("descending").onclick = () => {
    change({ descending: state.descending === "1" ? "0" : "1" });
    restart();
  };
  $("before").onclick = () => turn(-PAGE);
  $("after").onclick = () => turn(PAGE);
}

export function showStore(about) {
  store = about;
  const sorts = [["order", "corpus order"], ["mean", `mean ${store.label}`], ["tokens", "tokens"], ["id", "id"]];
  if (store.grouped) sorts.push(["group", "group"]);
  if (store.masked) sorts.splice(2, 0, ["share", "share kept"]);
  if (store.level === "document") sorts.splice(2, 0, ["score", "document score"]);
  $("sort").replaceChildren(...sorts.map(([value, label]) => h("option", { value }, label)));
  const names = { tokens: "tokens", mean: `mean ${store.label}` };
  if (store.masked) names.share = "share kept (0 to 1)";
  if (store.level === "document") names.score = "document score";
  $("bounds").querySelector("div").replaceChildren(...BOUNDS.filter((name) => names[name]).map((name) => bound(name, names[name])));
  for (const name of ["text", "id", "sort"]) $(name).value = state[name];
  return refresh();
}

function bound(name, label) {
  const field = (end) => {
    const input = h("input", { type: "text", size: 7, value: state[`${name}_${end}`], "aria-label": `${label}, ${end}` });
    input.onchange = () => {
      change({ [`${name}_${end}`]: input.value.trim() });
      restart();
    };
    return input;
  };
  return h("label", {}, `${label} `, field("min"), " to ", field("max"));
}

export function showGroups(groups) {
  const select = $("group");
  select.hidden = !store.grouped;
  groups.sort((a, b) => a.name.localeCompare(b.name));
  select.replaceChildren(h("option", { value: "" }, "all groups"), ...groups.map((group) => h("option", { value: group.group }, group.name)));
  select.value = state.group;
}

export function restart() {
  change({ offset: "0" });
  return refresh();
}

function turn(by) {
  change({ offset: String(Math.max(0, Number(state.offset) + by)) });
  return refresh();
}

export async function refresh() {
  clearTimeout(poll);
  const fields = { store: state.store, group: state.group, text: state.text, id: state.id, sort: state.sort, descending: state.descending, offset: state.offset, limit: PAGE };
  for (const name of BOUNDS) for (const end of ["min", "max"]) fields[`${name}_${end}`] = state[`${name}_${end}`];
  const found = await ask("documents", fields, "documents");
  if (!found) return;
  shown = found.documents;
  total = found.n;
  $("descending").textContent = state.descending === "1" ? "↓" : "↑";
  $("count").textContent = whole(total);
  $("documents").start = Number(state.offset) + 1;
  $("documents").replaceChildren(...shown.map(item));
  const last = Number(state.offset) + shown.length;
  $("pages").querySelector("span").textContent = total ? `${whole(Number(state.offset) + 1)} to ${whole(last)} of ${whole(total)}` : "none";
  $("before").disabled = state.offset === "0";
  $("after").disabled = last >= total;
  tellSearch(found.search);
  if (found.search && !found.search.done) poll = setTimeout(refresh, 400);
}

function tellSearch(search) {
  $("search-note").hidden = !search;
  if (!search) return;
  if (search.error) $("search-note").textContent = `The search has ended: ${search.error}`;
  else if (search.full) $("search-note").textContent = `The first ${whole(total)} documents with this text. Narrow the filters to see others.`;
  else if (search.done) $("search-note").textContent = `All ${whole(search.of)} documents ${search.whole ? "were searched" : "that are indexed so far were searched"}.`;
  else $("search-note").textContent = `Searching: ${whole(search.searched)} of ${whole(search.of)} documents …`;
}

const key = (row) => `${row.unit}.${row.row}`;

function item(row) {
  const facts = [`${whole(row.tokens)} tokens`, `mean ${number(row.mean, 3)}`];
  if (store.masked) facts.push(`${percent(row.kept, row.tokens, 0)} kept`);
  if (store.level === "document") facts.push(`score ${number(row.doc_score, 3)}`);
  const group = row.group === null ? [] : [h("bdi", { class: "tag" }, row.group)];
  const button = h("button", { type: "button", class: "plain", title: row.doc_id }, h("bdi", { class: "id" }, row.doc_id), h("small", {}, ...group, facts.join(" · ")));
  button.onclick = () => open(key(row));
  const element = h("li", { "data-doc": key(row) }, button);
  element.classList.toggle("chosen", key(row) === state.doc);
  return element;
}

export function mark(doc) {
  for (const element of $("documents").children) {
    const chosen = element.dataset.doc === doc;
    element.classList.toggle("chosen", chosen);
    if (chosen) element.scrollIntoView({ block: "nearest" });
  }
}

// The next document of the list, or the one before; turns the page where that is needed.
export async function neighbour(by) {
  const at = shown.findIndex((row) => key(row) === state.doc);
  let next = at < 0 ? (by > 0 ? 0 : shown.length - 1) : at + by;
  if (next >= shown.length && Number(state.offset) + shown.length < total) {
    await turn(PAGE);
    next = 0;
  } else if (next < 0 && state.offset !== "0") {
    await turn(-PAGE);
    next = shown.length - 1;
  }
  if (shown[next]) open(key(shown[next]));
}
