"use strict";
// Tables can be sorted by a click on a column's name, and long ones searched. Without it they are as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const text = (row, column) => (row.cells[column].firstChild?.textContent ?? "").trim();
  const number = (words) => (words === "–" || words === "" ? NaN : Number(words.replace(/[,%]/g, "")));
  const collator = new Intl.Collator(undefined, { numeric: true });
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    const words = rows.map((row) => text(row, column));
    const numeric = column > 0 && words.every((word) => word === "–" || word === "" || !isNaN(number(word)));
    button.addEventListener("click", () => {
      const down = head.ariaSort ? head.ariaSort === "ascending" : numeric;
      heads.forEach((other) => (other.ariaSort = null));
      head.ariaSort = down ? "descending" : "ascending";
      const sign = down ? -1 : 1;
      const keyed = rows.map((row) => [row, numeric ? number(text(row, column)) : text(row, column)]);
      keyed.sort(([, a], [, b]) => {
        if (!numeric) return sign * collator.compare(a, b);
        if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
        return sign * (a - b);
      });
      body.append(...keyed.map(([row]) => row));
    });
  });
  if (rows.length > 10 && table.parentNode.classList.contains("long")) {
    const search = document.createElement("input"), count = document.createElement("small");
    search.type = "search";
    search.placeholder = `search ${rows.length.toLocaleString("en")} rows`;
    search.addEventListener("input", () => {
      const wanted = search.value.toLowerCase();
      for (const row of rows) row.hidden = !text(row, 0).toLowerCase().includes(wanted);
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = wanted ? `${shown.toLocaleString("en")} found` : "";
    });
    const place = document.createElement("p");
    place.className = "search";
    place.append(search, count);
    table.parentNode.before(place);
  }
}
