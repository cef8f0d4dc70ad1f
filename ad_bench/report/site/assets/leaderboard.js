/* The leaderboard of a data set. */
"use strict";

(function () {
  const { h, svg, known, figure, difference, missing, number, field, select, check, plural, metricTitle } = adbench;
  const HEADLINE = ["image.image_auroc", "image.image_aupr", "full.pixel_auroc", "full.pixel_aupr", "full.pixel_aupro"];
  const FLOOR = ["image.image_auroc", "full.pixel_auroc", "paper.pixel_auroc"];
  const COSTS = [
    ["fit_seconds", "fit s", "seconds to fit", 1, "ascending"],
    ["images_per_second", "images/s", "images per second", 1, "descending"],
    ["latency_ms_p50", "latency ms", "milliseconds for one image, median", 1, "ascending"],
    ["memory", "memory MB", "peak memory: the device's, else the host's", 1e6, "ascending"],
    ["model_bytes", "model MB", "the model with its memory bank", 1e6, "ascending"],
    ["parameters", "params M", "millions of parameters", 1e6, "ascending"],
  ];
  const BEST = 1;
  const SECOND = 2;

  adbench.costs = COSTS;

  /** One cost of a row; `memory` is the device's peak, else the host's. */
  adbench.costOf = function (row, name) {
    const at = (column) => row.costs[adbench.index.costs.indexOf(column)];
    if (name === "memory") return known(at("device_peak_bytes")) ? at("device_peak_bytes") : at("host_peak_bytes");
    return at(name);
  };

  const complete = (row) => row.done === row.total;
  const valueOf = (row, metric) => (row.metrics[metric] || [])[0];

  /** The metric to show: the one asked for, else the first of the usual ones that the data set has. */
  adbench.metricFor = function (set, asked) {
    return set.metrics.includes(asked) ? asked : FLOOR.find((name) => set.metrics.includes(name)) || set.metrics[0];
  };

  /** Protocols with their number of rows; the one with most complete rows comes first. */
  function protocolsOf(set) {
    const counts = new Map();
    for (const row of set.rows) {
      const held = counts.get(row.protocol) || { rows: 0, whole: 0 };
      held.rows += 1;
      held.whole += complete(row) ? 1 : 0;
      counts.set(row.protocol, held);
    }
    const natural = new Intl.Collator("en", { numeric: true });
    return [...counts].sort((a, b) => (b[0] === "full") - (a[0] === "full") || b[1].whole - a[1].whole || natural.compare(a[0], b[0]));
  }

  /** As the tables do it: by printed value among complete rows of one protocol, and certain within the bounds. */
  function marks(rows, metric) {
    const found = new Map();
    const ends = [];
    for (const row of rows) {
      const [mean, , , , bound] = row.metrics[metric] || [];
      if (!complete(row) || !known(mean)) continue;
      const reach = known(bound) ? bound : 0;
      ends.push([row, Number(Math.max(0, mean - reach).toFixed(3)), Number(Math.min(1, mean + reach).toFixed(3))]);
    }
    if (ends.length < 2) return found;
    const tops = ends.map((end) => end[2]).sort((a, b) => b - a);
    for (const [row, low, high] of ends) {
      const above = ends.filter((other) => other[0] !== row && other[2] > low);
      if (!above.length) found.set(row, BEST);
      else if (tops.length > above.length && above.every((other) => other[1] > high)) {
        const alike = above.length === 1 || new Set(above.flatMap((other) => [other[1], other[2]])).size === 1;
        if (alike) found.set(row, SECOND);
      }
    }
    return found;
  }

  /** Places by printed value among complete rows; equal values share one. */
  function ranks(rows, metric) {
    const whole = rows.filter((row) => complete(row) && known(valueOf(row, metric)));
    const printed = whole.map((row) => Number(valueOf(row, metric).toFixed(3))).sort((a, b) => b - a);
    return new Map(whole.map((row) => [row, printed.indexOf(Number(valueOf(row, metric).toFixed(3))) + 1]));
  }

  function metricCell(row, metric, rank, deviation) {
    const [mean, spread, low, high, bound] = row.metrics[metric] || [];
    if (!known(mean)) return missing(row.done ? "not defined in every category, or not computed" : "no finished cell");
    const hints = [];
    if (known(spread)) hints.push(`± ${figure(spread)} over ${plural(row.seeds, "seed")}`);
    if (known(low)) hints.push(`interval ${figure(low)} to ${figure(high)}`);
    if (known(bound)) hints.push(`bounded, not exact: within ± ${bound.toExponential(1)}`);
    if (!complete(row)) hints.push(`over ${row.done} of ${row.total} categories`);
    let text = figure(mean) + (known(bound) ? "~" : "");
    if (!complete(row)) text = `(${text})`;
    const tag = rank === BEST ? "strong" : rank === SECOND ? "u" : "span";
    const parts = [h(tag, { class: rank === BEST ? "best" : rank === SECOND ? "second" : null, title: hints.join("; ") || null }, text)];
    if (deviation && known(spread)) parts.push(h("span", { class: "spread" }, ` ±${figure(spread).replace(/^0/, "")}`));
    return parts;
  }

  /** A line from low to high with a dot at the mean, on one scale for the whole column. */
  function intervalBar(value, from, to) {
    const [mean, , low, high] = value || [];
    if (!known(mean)) return "";
    const width = 84;
    const x = (number) => (to > from ? 3 + ((Math.min(to, Math.max(from, number)) - from) / (to - from)) * (width - 6) : width / 2);
    const label = known(low) ? `interval ${figure(low)} to ${figure(high)}` : "no interval";
    const bar = svg("svg", { class: "bar", width, height: 14, viewBox: `0 0 ${width} 14`, role: "img", "aria-label": label });
    bar.append(svg("title", null, label), svg("path", { class: "track", d: `M3 7H${width - 3}` }));
    if (known(low)) bar.append(svg("path", { class: "reach", d: `M${x(low)} 7H${x(high)}M${x(low)} 4v6M${x(high)} 4v6` }));
    bar.append(svg("circle", { class: "mean", cx: x(mean), cy: 7, r: 2.6 }));
    return bar;
  }

  function methodCell(row, withProtocol) {
    if (row.only) {
      return [h("span", { class: "name" }, row.title), row.protocol === "full" ? "" : h("span", { class: "chip" }, row.protocol), h("span", { class: "variant" }, "not run here")];
    }
    const notes = row.notes.concat(row.failed ? [`${plural(row.failed, "cell")} failed`] : [], row.skipped ? [`${plural(row.skipped, "cell")} skipped`] : []);
    const list = h("ul", { class: "notes", hidden: true }, notes.map((text) => h("li", null, text)));
    const open = () => {
      list.hidden = !list.hidden;
      button.setAttribute("aria-expanded", String(!list.hidden));
    };
    const button = h("button", { type: "button", class: "link", "aria-expanded": "false", on: { click: open } }, plural(notes.length, "note"), h("span", { class: "hidden" }, ` on ${adbench.rowTitle(row)}`));
    return [
      h("a", { class: "name", href: `#/method/${row.method}` }, row.title),
      withProtocol && row.protocol !== "full" ? h("span", { class: "chip" }, row.protocol) : "",
      notes.length ? button : "",
      row.variant ? h("span", { class: "variant" }, row.variant.replace(/,(?! )/g, ", ")) : "",
      notes.length ? list : "",
    ];
  }

  adbench.standing = function (text) {
    const kind = String(text).split(":")[0];
    const words = { survey: "survey", paper: "paper", suspect: "suspect", other: "other" };
    return h("span", { class: `standing ${words[kind] || "other"}`, title: adbench.index.standings[kind] || text }, words[kind] || kind);
  };

  function publishedCell(row, metric) {
    const [value, standing, note] = row.published[adbench.familyOf(metric)] || [];
    if (!known(value)) return missing("nothing published that is known here");
    return h("span", { title: note || null }, h("span", { class: "theirs" }, figure(value)), " ", adbench.standing(standing));
  }

  function gap(row, metric) {
    const [value, standing] = row.published[adbench.familyOf(metric)] || [];
    const mean = valueOf(row, metric);
    if (adbench.sectionOf(metric) === "full" || !complete(row) || !known(value) || !known(mean) || standing === "suspect") return null;
    return mean - value;
  }

  function why(row, metric) {
    if (adbench.sectionOf(metric) === "full") return "papers measure in a geometry of their own: choose that metric to compare";
    if (!complete(row)) return "ours is not over all categories";
    return (row.published[adbench.familyOf(metric)] || [])[1] === "suspect" ? "a suspect value is no target" : "nothing to compare";
  }

  function columnsOf(set, state, rows, categories) {
    const metric = state.metric;
    const title = adbench.metricLong(metric);
    const places = state.protocol ? ranks(rows, metric) : new Map();
    const marked = (name) => (state.protocol ? marks(rows, name) : new Map());
    const focus = marked(metric);
    const whole = rows.filter((row) => complete(row));
    const ends = (whole.length ? whole : rows).flatMap((row) => [valueOf(row, metric), ...(row.metrics[metric] || []).slice(2, 4)]).filter(known).sort((a, b) => a - b);
    const from = ends.length ? Math.max(ends[0], ends[Math.floor(ends.length * 0.3)] - 0.02) : 0;
    const columns = [
      { id: "rank", label: "place", title: "#", class: "rank", numeric: true, cell: (row) => (places.has(row) ? String(places.get(row)) : "") },
      { id: "method", title: "Method", class: "method", header: true, value: (row) => adbench.rowTitle(row), cell: (row) => methodCell(row, !state.protocol) },
      {
        id: "family", title: "Family", class: "family", value: (row) => adbench.taxonomy(row.taxonomy),
        cell: (row) => [adbench.taxonomy(row.taxonomy), row.fidelity ? h("span", { class: "fidelity" }, row.fidelity) : ""],
      },
      {
        id: "cells", title: "Cells", class: "cells", hint: "categories done, of all", numeric: true, value: (row) => (row.only ? null : row.done),
        cell: (row) => (row.only ? missing("not run here") : h("a", { href: `#/row/${row.key}`, class: complete(row) ? null : "short", "aria-label": `${row.done} of ${row.total} categories: all cells of ${adbench.rowTitle(row)}` }, `${row.done}/${row.total}`)),
      },
      { id: metric, title, class: "focus", numeric: true, value: (row) => valueOf(row, metric), cell: (row) => metricCell(row, metric, focus.get(row), true) },
      { id: "interval", label: "interval of the test set", title: "interval", class: "interval", hint: `bootstrap over the test images, on a scale from ${figure(from)} to ${figure(ends[ends.length - 1])}`, cell: (row) => intervalBar(row.metrics[metric], from, ends[ends.length - 1]) },
    ];
    if (state.columns.has("published")) {
      columns.push(
        { id: "published", title: "published", class: "published", numeric: true, hint: "the published average, with how far it can be trusted", value: (row) => (row.published[adbench.familyOf(metric)] || [])[0], cell: (row) => publishedCell(row, metric) },
        { id: "difference", title: "difference", numeric: true, hint: "ours minus published", value: (row) => gap(row, metric), cell: (row) => (gap(row, metric) === null ? missing(why(row, metric)) : difference(gap(row, metric))) }
      );
    }
    if (state.columns.has("categories") && categories) {
      set.categories.forEach(([slug, name], at) => {
        const read = (row) => (((categories[row.key] || {}).metrics || {})[metric] || [])[at];
        columns.push({
          id: `category ${slug}`, title: name, class: "category", numeric: true, hint: `${title} on ${name}`,
          value: (row) => (known(read(row)) ? read(row) : null),
          cell: (row) => {
            const value = row.only ? null : read(row);
            if (row.only || value === null || value === undefined) return adbench.state(null);
            const inside = known(value) ? figure(value) : adbench.state(value);
            return h("a", { href: `#/cell/${row.key}/${slug}` }, inside);
          },
        });
      });
    }
    const others = state.columns.has("all") ? set.metrics : HEADLINE.filter((name) => set.metrics.includes(name));
    if (state.columns.has("metrics") || state.columns.has("all")) {
      for (const name of others.filter((name) => name !== metric)) {
        const best = marked(name);
        columns.push({ id: name, title: adbench.metricLong(name), class: "other", numeric: true, hint: adbench.index.sections[adbench.sectionOf(name)], value: (row) => valueOf(row, name), cell: (row) => metricCell(row, name, best.get(row), false) });
      }
    }
    if (state.columns.has("costs")) {
      COSTS.forEach(([name, short, long, unit, first], at) =>
        columns.push({ id: name, title: short, class: at ? "cost" : "cost start", numeric: true, hint: long, first, value: (row) => (row.only ? null : adbench.costOf(row, name)), cell: (row) => (row.only ? missing("not run here") : number(adbench.costOf(row, name), unit)) })
      );
    }
    return columns;
  }

  /** The heading and the tabs of a data set. */
  adbench.datasetHead = function (set, slug, tab) {
    const entry = adbench.index.datasets.find((one) => one.slug === slug);
    const troubles = entry.failed + entry.skipped;
    const tabs = [["", "Leaderboard"], ["costs", "Accuracy and costs"], ["gallery", "Gallery"], ["problems", troubles ? `Failed and skipped (${troubles})` : "Failed and skipped"]];
    const go = (value) => (location.hash = `#/dataset/${value}${tab ? `/${tab}` : ""}`);
    const chooser = select(adbench.index.datasets.map((one) => [one.slug, one.title]), slug, go);
    return h(
      "div", { class: "head" },
      h("div", { class: "title" }, h("h1", { tabindex: "-1" }, set.title), h("p", { class: "lead" }, `${plural(entry.rows, "row")}, ${entry.categories === 1 ? "1 category" : `${entry.categories} categories`}`)),
      field("Data set", chooser, "set"),
      h("nav", { class: "tabs", "aria-label": "Views of the data set" }, tabs.map(([name, title]) => h("a", { href: `#/dataset/${slug}${name ? `/${name}` : ""}`, "aria-current": name === tab ? "page" : null }, title)))
    );
  };

  adbench.views.dataset = async function (page) {
    const slug = page.parts[0];
    if (page.parts[1] === "costs") return adbench.costsView(page);
    if (page.parts[1] === "gallery") return adbench.galleryView(page);
    if (page.parts[1] === "problems") return adbench.problemsView(page);
    const set = await adbench.load(`sets/${slug}`);
    const protocols = protocolsOf(set);
    const narrow = window.innerWidth < 760;
    const usual = narrow ? "published" : "published,metrics,costs";
    const query = page.query;
    const named = new Set(protocols.map(([name]) => name));
    const asked = query.get("protocol");
    const state = {
      metric: adbench.metricFor(set, query.get("metric")),
      protocol: asked === "all" ? "" : named.has(asked) ? asked : protocols[0] && protocols[0][1].whole ? protocols[0][0] : "",
      family: query.get("family") || "",
      fidelity: query.get("fidelity") || "",
      text: query.get("q") || "",
      columns: new Set((query.get("columns") || usual).split(",")),
      sort: { id: query.get("sort") || "", way: query.get("way") === "ascending" ? "ascending" : "descending" },
    };
    if (!state.sort.id) state.sort = { id: state.metric, way: "descending" };
    const count = h("p", { class: "count" });
    const place = h("div");
    let table = null;
    let categories = state.columns.has("categories") ? await adbench.load(`categories/${slug}`) : null;

    function remember() {
      const chosen = [...state.columns].join(",");
      page.remember({
        metric: state.metric === adbench.metricFor(set, "") ? "" : state.metric,
        protocol: asked || state.touched ? state.protocol || "all" : "",
        family: state.family, fidelity: state.fidelity, q: state.text,
        columns: chosen === usual ? "" : chosen || "none",
        sort: state.sort.id === state.metric && state.sort.way === "descending" ? "" : state.sort.id,
        way: state.sort.id === state.metric && state.sort.way === "descending" ? "" : state.sort.way,
      });
    }

    function visible(rows) {
      const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
      return rows.filter((row) => {
        if (state.protocol && row.protocol !== state.protocol) return false;
        if (state.family && row.taxonomy !== state.family) return false;
        if (state.fidelity && row.fidelity !== state.fidelity) return false;
        const text = [row.title, row.id, row.variant, row.protocol, adbench.taxonomy(row.taxonomy), row.fidelity].join(" ").toLowerCase();
        return words.every((word) => text.includes(word));
      });
    }

    const notRun = set.published.map((row) => ({ ...row, key: `published ${row.id} ${row.protocol}`, only: true, variant: "", metrics: {}, costs: [], done: 0, total: set.categories.length, notes: [], fidelity: "" }));

    function shown() {
      const rows = visible(set.rows);
      return state.columns.has("unrun") ? rows.concat(visible(notRun).filter((row) => row.published[adbench.familyOf(state.metric)])) : rows;
    }

    function tell(rows) {
      const run = rows.filter((row) => !row.only).length;
      const text = `${run} of ${plural(set.rows.length, "row")}`;
      count.textContent = text + (rows.length > run ? `, and ${rows.length - run} published that were not run here` : "");
      return text;
    }

    /** Other columns or other marks: the whole table anew. */
    function build() {
      const rows = shown();
      const columns = columnsOf(set, state, visible(set.rows.filter(() => true)), categories);
      if (!columns.some((column) => column.id === state.sort.id)) state.sort = { id: state.metric, way: "descending" };
      const dividers = { 1: `Not over all ${set.categories.length} categories: these means are no average of the data set`, 2: "Published, not run here" };
      table = adbench.table({
        caption: `${set.title}: ${metricTitle(state.metric)} of every row`,
        columns, rows, sort: state.sort, dividers,
        groupOf: (row) => (row.only ? 2 : complete(row) ? 0 : 1),
        empty: "No row fits these filters.",
        onSort: (sort) => {
          state.sort = sort;
          remember();
        },
      });
      place.replaceChildren(adbench.scroller(`${set.title}, leaderboard`, table.node, "long"));
      tell(rows);
    }

    function changed(key, value) {
      if (key === "metric" && state.sort.id === state.metric) state.sort = { id: value, way: "descending" };
      if (key === "protocol") state.touched = true;
      state[key] = value;
      remember();
      build();
      adbench.say(tell(shown()));
    }

    async function toggled(name, on) {
      if (on) state.columns.add(name);
      else state.columns.delete(name);
      state.columns.delete("none");
      if (name === "categories" && on) categories = await adbench.load(`categories/${slug}`);
      remember();
      build();
      adbench.say(tell(shown()));
    }

    const families = adbench.index.taxonomies.filter(([ident]) => set.rows.some((row) => row.taxonomy === ident));
    const fidelities = [...new Set(set.rows.map((row) => row.fidelity).filter(Boolean))].sort();
    const search = h("input", { type: "search", placeholder: "name, variant, …", autocomplete: "off", spellcheck: "false", on: { input: () => changed("text", search.value) } });
    search.value = state.text;
    const rarer = [
      field("Family", select([["", "all"], ...families], state.family, (value) => changed("family", value))),
      field("Fidelity", select([["", "all"], ...fidelities.map((name) => [name, name])], state.fidelity, (value) => changed("fidelity", value))),
    ];
    const tools = h(
      "div", { class: "tools", role: "search", "aria-label": "Filters of the leaderboard" },
      field("Metric", select(adbench.metricGroups(set.metrics), state.metric, (value) => changed("metric", value)), "metric"),
      field("Protocol", select([...protocols.map(([name, held]) => [name, `${name} (${held.rows})`]), ["", `all (${set.rows.length})`]], state.protocol, (value) => changed("protocol", value))),
      field("Find", search, "find"),
      narrow ? "" : rarer
    );
    const shows = [["published", "published"], ["metrics", "usual metrics"], ["all", "all metrics"], ["categories", set.categories.length > 1 ? `${set.categories.length} categories` : "category"], ["costs", "costs"]];
    if (notRun.length) shows.push(["unrun", "methods not run here"]);
    const columns = h("fieldset", { class: "checks" }, h("legend", null, "Show"), shows.map(([name, text]) => check(text, state.columns.has(name), (on) => toggled(name, on), { "data-columns": name })));
    build();
    const legend = [
      "Means over the categories within a seed, then over seeds (± sample standard deviation). Best in bold, second underlined: as printed, among complete rows of one protocol; under “all” protocols nothing is ranked.",
      "Pixel metrics on the original masks count what a crop never showed as missed; those in the geometry of a paper compare with its published value.",
    ];
    return {
      title: `${set.title}, leaderboard`,
      node: [
        adbench.datasetHead(set, slug, ""), tools,
        narrow ? adbench.fold("More filters and columns", state.family || state.fidelity, h("div", { class: "tools" }, rarer), columns) : "",
        h("div", { class: "bar-line" }, narrow ? "" : columns, count), place,
        h("div", { class: "legend" }, legend.map((text) => h("p", null, text)), set.remarks.map((text) => h("p", { class: "remark" }, text))),
      ],
    };
  };
})();
