/* The ground of the page: elements, data, figures. Strings of records go in as text, never as markup. */
"use strict";

const adbench = (function () {
  const held = new Map();
  const coming = new Map();

  /** Called by the data files. */
  function put(key, value) {
    held.set(key, value);
  }

  const address = (path) => path.split("/").map(encodeURIComponent).join("/");

  function script(path) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = address(path);
      element.onload = () => resolve();
      element.onerror = () => reject(new Error(`${path} is not in this folder; run adbench report again`));
      document.head.append(element);
    });
  }

  /** The data that `data/<key>.js` holds; each file is loaded once, when it is first needed. */
  function load(key) {
    if (!coming.has(key)) {
      coming.set(key, script(`data/${key}.js`).then(() => held.get(key)));
    }
    return coming.get(key);
  }

  /** All cells of a row, with the figures of their metrics and intervals by geometry and name. */
  const row = async (key) => {
    const page = await load(`rows/${key}`);
    for (const category of Object.values(page.cells)) Object.values(category.seeds).forEach((cell) => unpack(cell, page.layout));
    return page;
  };

  function unpack(cell, layout) {
    if (!cell.figures || cell.metrics) return;
    const bytes = Uint8Array.from(atob(cell.figures), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const at = (place) => view.getFloat64(place * 8, true); // NaN: there is none
    cell.metrics = {};
    cell.intervals = {};
    layout.forEach(([section, name], place) => {
      (cell.metrics[section] = cell.metrics[section] || {})[name] = at(3 * place);
      (cell.intervals[section] = cell.intervals[section] || {})[name] = { low: at(3 * place + 1), high: at(3 * place + 2) };
    });
  }

  function library(path) {
    if (!coming.has(path)) coming.set(path, script(path));
    return coming.get(path);
  }

  const safe = (target) => /^(#|https:\/\/)/.test(target);

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "on") {
        for (const [event, call] of Object.entries(value)) element.addEventListener(event, call);
      } else if (name === "style") {
        for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
      } else if (name === "href" && !safe(value)) {
        continue;
      } else {
        element.setAttribute(name, value === true ? "" : String(value));
      }
    }
    for (const child of children.flat(3)) {
      if (child !== null && child !== undefined && child !== false) {
        element.append(child instanceof Node ? child : String(child));
      }
    }
    return element;
  }

  /** An element; children are nodes or text. */
  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

  const svg = (tag, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  const known = (value) => typeof value === "number" && Number.isFinite(value);

  /** `0.987`; zero has no sign. */
  function figure(value, digits = 3) {
    return known(value) ? value.toFixed(digits).replace(/^-(?=[0.]*$)/, "") : "–";
  }

  /** `+0.003`, `−0.012`. */
  function difference(value, digits = 3) {
    if (!known(value)) return "–";
    const text = Math.abs(value).toFixed(digits);
    return /[1-9]/.test(text) ? (value < 0 ? "−" : "+") + text : text;
  }

  /** Three significant digits, in plain notation. */
  function amount(value, unit = 1) {
    if (!known(value)) return "–";
    const scaled = value / unit;
    if (scaled > 0 && scaled < 0.01) return "<0.01";
    return Math.abs(scaled) >= 100 ? scaled.toFixed(0) : String(Number(scaled.toPrecision(3)));
  }

  /** A score, however large or small. */
  function score(value) {
    if (!known(value)) return "–";
    const size = Math.abs(value);
    return size !== 0 && (size < 0.001 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
  }

  const missing = (why) =>
    h("span", { class: "missing", title: why || "missing" }, h("span", { "aria-hidden": "true" }, "–"), h("span", { class: "hidden" }, why || "missing"));

  /** What a cell without a figure says. */
  function state(name) {
    if (name === "failed" || name === "skipped") return h("span", { class: `state ${name}` }, name);
    return missing(name === "undefined" ? "not defined" : "missing");
  }

  const number = (value, unit) => (known(value) ? amount(value, unit) : missing());

  let serial = 0;
  /** A labelled control. */
  function field(label, control, kind) {
    if (!control.id) control.id = `control-${(serial += 1)}`;
    return h("div", { class: `field ${kind || ""}` }, h("label", { for: control.id }, label), control);
  }

  /** A select; `groups` is a list of [value, text] or of {label, options}. */
  function select(groups, value, change) {
    const option = ([held, text]) => h("option", { value: held, selected: held === value }, text);
    const control = h(
      "select",
      { on: { change: () => change(control.value) } },
      groups.map((group) => (Array.isArray(group) ? option(group) : h("optgroup", { label: group.label }, group.options.map(option))))
    );
    return control;
  }

  function check(label, value, change, attributes) {
    const box = h("input", { type: "checkbox", on: { change: () => change(box.checked) }, ...attributes });
    box.checked = value;
    return h("label", { class: "check" }, box, h("span", null, label));
  }

  let speaking = 0;
  /** Tell a screen reader, once the typing has stopped. */
  function say(text) {
    clearTimeout(speaking);
    speaking = setTimeout(() => (document.getElementById("status").textContent = text), 250);
  }

  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

  /** A region that scrolls by itself, by keyboard too. */
  const scroller = (label, child, kind) => h("div", { class: `scroller ${kind || ""}`, tabindex: "0", role: "region", "aria-label": label }, child);

  const metricTitle = (name) => adbench.index.metrics[name] || name;
  /** With its geometry, where another metric has the same name. */
  const metricLong = (name) => metricTitle(name) + (name.startsWith("paper.") ? " (paper)" : "");
  const sectionOf = (name) => name.slice(0, name.indexOf("."));
  const familyOf = (name) => name.slice(name.indexOf(".") + 1);
  const taxonomy = (ident) => (adbench.index.taxonomies.find(([known]) => known === ident) || [ident, ident || "Other"])[1];

  /** The metrics of a data set as groups of a select. */
  function metricGroups(names) {
    return Object.entries(adbench.index.sections)
      .map(([section, label]) => ({
        label,
        options: names.filter((name) => sectionOf(name) === section).map((name) => [name, metricLong(name)]),
      }))
      .filter((group) => group.options.length);
  }

  /** `PatchCore` with its variant and protocol, as a row is called in text. */
  function rowTitle(row) {
    const setting = [row.variant, row.protocol === "full" ? "" : row.protocol].filter(Boolean).join(", ");
    return setting ? `${row.title} (${setting})` : row.title;
  }

  return {
    put, load, row, library, h, svg, known, figure, difference, amount, score, missing, state, number, field, select, check,
    say, plural, scroller, metricTitle, metricLong, sectionOf, familyOf, taxonomy, metricGroups, rowTitle, address,
    views: {}, index: null,
  };
})();
