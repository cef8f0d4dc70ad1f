/* A table that sorts by its headings. Missing figures stay last, whichever way it is sorted. */
"use strict";

adbench.table = function ({ caption, columns, rows, sort, onSort, groupOf, dividers, empty }) {
  const { h } = adbench;
  const order = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const group = groupOf || (() => 0);
  const made = new Map();
  const head = h("tr");
  const body = h("tbody");
  const node = h("table", { class: "data" }, h("caption", { class: "hidden" }, caption), h("thead", null, head), body);
  let current = sort;

  const buttons = columns.map((column) => {
    const names = [column.class, column.numeric && "numeric"].filter(Boolean).join(" ");
    const cell = h("th", { scope: "col", class: names, title: column.hint });
    if (!column.value) {
      cell.append(column.title ? h("span", { class: "plain" }, column.title) : h("span", { class: "hidden" }, column.label));
    } else {
      const click = () => {
        const first = column.first || (column.numeric ? "descending" : "ascending");
        const other = first === "descending" ? "ascending" : "descending";
        current = { id: column.id, way: current.id === column.id && current.way === first ? other : first };
        draw();
        if (onSort) onSort(current);
        adbench.say(`Sorted by ${column.label || column.title}, ${current.way}`);
      };
      const sign = h("span", { class: "arrow", "aria-hidden": "true" });
      cell.append(h("button", { type: "button", class: "sort", on: { click } }, h("span", null, column.title), sign));
    }
    head.append(cell);
    return cell;
  });

  function line(row) {
    if (!made.has(row)) {
      const cells = columns.map((column) => {
        const names = [column.class, column.numeric && "numeric"].filter(Boolean).join(" ");
        return h(column.header ? "th" : "td", { class: names || null, scope: column.header ? "row" : null }, column.cell(row));
      });
      made.set(row, h("tr", { "data-key": row.key }, cells));
    }
    return made.get(row);
  }

  function draw() {
    const column = columns.find((one) => one.id === current.id && one.value) || columns.find((one) => one.value);
    const sign = current.way === "descending" ? -1 : 1;
    const keyed = rows.map((row, place) => ({ row, place, group: group(row), value: column.value(row) }));
    const none = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);
    keyed.sort((a, b) => {
      if (a.group !== b.group) return a.group - b.group;
      if (none(a.value) || none(b.value)) return none(a.value) - none(b.value) || a.place - b.place;
      const by = typeof a.value === "number" ? a.value - b.value : order.compare(a.value, b.value);
      return sign * by || a.place - b.place;
    });
    columns.forEach((one, place) => {
      if (!one.value) return;
      buttons[place].setAttribute("aria-sort", one === column ? current.way : "none");
    });
    const lines = [];
    let last = null;
    for (const { row, group: of } of keyed) {
      if (of !== last && dividers && dividers[of]) {
        lines.push(h("tr", { class: "divider" }, h("td", { colspan: columns.length }, h("span", null, dividers[of]))));
      }
      last = of;
      lines.push(line(row));
    }
    if (!lines.length) lines.push(h("tr", { class: "divider" }, h("td", { colspan: columns.length }, h("span", null, empty || "No rows."))));
    body.replaceChildren(...lines);
  }

  draw();
  return {
    node,
    /** Show other rows with the same columns. */
    show(others) {
      rows = others;
      draw();
    },
    /** Rows look different now. */
    refresh() {
      made.clear();
      draw();
    },
  };
};
