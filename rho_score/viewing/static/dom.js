// Makes elements. Text is always a text node, never markup.

export const $ = (id) => document.getElementById(id);

export function h(tag, fields = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (name === "class") element.className = value;
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

export const whole = (n) => (n === null || n === undefined ? "–" : Math.round(n).toLocaleString("en-US"));
export const percent = (part, of, digits = 1) => (of ? `${((100 * part) / of).toFixed(digits)} %` : "–");

export function number(x, digits = 4) {
  if (x === null || x === undefined) return "–";
  if (typeof x === "string") return x; // inf, -inf
  return Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-4) ? x.toExponential(2) : String(Number(x.toPrecision(digits)));
}
