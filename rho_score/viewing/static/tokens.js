// The vocabulary entries that are kept most and least, or whose scores are highest and lowest.

import { ask } from "./api.js";
import { $, h, number, percent, whole } from "./dom.js";
import { state } from "./state.js";

let store = null;

export function begin() {
  $("token-sort").onchange = refresh;
}

export function showStore(about) {
  store = about;
  const sorts = [["mean 1", `highest mean ${store.label}`], ["mean 0", `lowest mean ${store.label}`], ["count 1", "most frequent"]];
  if (store.masked) sorts.unshift(["share 1", "most kept"], ["share 0", "least kept"]);
  $("token-sort").replaceChildren(...sorts.map(([value, label]) => h("option", { value }, label)));
  return refresh();
}

export async function refresh() {
  const [sort, descending] = $("token-sort").value.split(" ");
  const found = await ask("tokens", { store: state.store, sort, descending, limit: 30 }, "tokens");
  if (found === undefined) return;
  const note = $("tokens").querySelector(".note");
  note.textContent = found ? "All tokens of the store that have a score; entries that occur at least 8 times." : "The tokens are counted while the documents are indexed.";
  const titles = ["token", "count", ...(store.masked ? ["kept"] : []), `mean`];
  $("tokens").querySelector("thead tr").replaceChildren(...(found ? titles : []).map((title) => h("th", {}, title)));
  $("tokens").querySelector("tbody").replaceChildren(...(found ?? []).map(row));
}

function row(token) {
  const text = h("code", {}, h("bdi", {}, token.text.replaceAll("\n", "")));
  const kept = store.masked ? [h("td", {}, percent(token.kept, token.count))] : [];
  return h("tr", { title: `token ${token.id}` }, h("td", {}, text), h("td", {}, whole(token.count)), ...kept, h("td", {}, number(token.mean, 3)));
}
