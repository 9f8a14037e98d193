// What the page shows, kept in the fragment of its address.

export const DEFAULTS = {
  store: "0", doc: "", layer: "", fade: "mask", t: "", ranking: "0", group: "", sort: "order", descending: "0", offset: "0",
  text: "", id: "", tokens_min: "", tokens_max: "", mean_min: "", mean_max: "", share_min: "", share_max: "", score_min: "",
  score_max: "",
};

export const state = { ...DEFAULTS, ...read() };

function read() {
  const found = {};
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) if (name in DEFAULTS) found[name] = value;
  return found;
}

export function reread() {
  Object.assign(state, DEFAULTS, read());
}

let timer = 0;
export function change(fields) {
  Object.assign(state, fields);
  clearTimeout(timer);
  timer = setTimeout(write, 150); // a slider changes it many times a second
}

export function write() {
  clearTimeout(timer);
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== DEFAULTS[name]) query.set(name, value);
  history.replaceState(null, "", `#${query}`);
}
