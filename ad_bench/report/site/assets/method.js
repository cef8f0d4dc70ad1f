/* A method: where it comes from, its settings, all its cells. And one row with all its cells. */
"use strict";

(function () {
  const { h, known, figure, difference, field, select, plural, metricTitle, rowTitle } = adbench;

  const facts = (pairs) => h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== "" && value !== undefined).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
  adbench.facts = facts;

  const code = (text, label) => h("pre", { tabindex: "0", role: "region", "aria-label": label }, h("code", null, text));
  adbench.code = code;

  const fold = (title, open, ...children) => h("details", { class: "fold", open: open || null }, h("summary", null, title), children);
  adbench.fold = fold;

  /** One data set: every row of the method, ours, published and the difference, by category. */
  function matrix(set, slug, categories, rows, metric) {
    const family = adbench.familyOf(metric);
    const comparable = adbench.sectionOf(metric) !== "full";
    const lines = [];
    const natural = new Intl.Collator("en", { numeric: true });
    const beside = new Set();
    const sorted = [...rows].sort((a, b) => (b.protocol === "full") - (a.protocol === "full") || natural.compare(a.protocol, b.protocol) || natural.compare(a.variant, b.variant));
    for (const row of sorted) {
      const held = categories[row.key] || { metrics: {}, published: {}, states: [] };
      const ours = held.metrics[metric] || held.states.map((state) => (state === "done" ? "undefined" : state));
      const [mean] = row.metrics[metric] || [];
      const published = held.published[family];
      const [average, standing] = row.published[family] || [];
      const cell = (value, at) => h("td", { class: "numeric" }, value === null || value === undefined ? adbench.state(null) : h("a", { href: `#/cell/${row.key}/${set.categories[at][0]}` }, known(value) ? figure(value) : adbench.state(value)));
      const whole = row.done === row.total;
      const name = [h("a", { class: "name", href: `#/row/${row.key}` }, row.variant || "as in its YAML"), row.protocol === "full" ? "" : h("span", { class: "chip" }, row.protocol)];
      lines.push(h("tr", null, h("th", { scope: "row", class: "method" }, name), h("td", null, "ours"), set.categories.map((_, at) => cell(ours[at], at)), h("td", { class: "numeric focus" }, known(mean) ? (whole ? figure(mean) : `(${figure(mean)})`) : adbench.missing())));
      if (published || known(average)) {
        const values = published || [];
        const same = JSON.stringify([published, average, standing]);
        if (!beside.has(same)) lines.push(h("tr", { class: "theirs" }, h("th", { scope: "row", class: "method" }, h("span", { class: "hidden" }, rowTitle(row))), h("td", null, "published ", adbench.standing(standing || "other")), set.categories.map((_, at) => h("td", { class: "numeric" }, known(values[at]) ? figure(values[at]) : adbench.missing())), h("td", { class: "numeric focus" }, known(average) ? figure(average) : adbench.missing())));
        beside.add(same);
        if (comparable && standing !== "suspect") {
          const gaps = set.categories.map((_, at) => (known(ours[at]) && known(values[at]) ? ours[at] - values[at] : null));
          const gap = whole && known(mean) && known(average) ? mean - average : null;
          lines.push(h("tr", { class: "gap" }, h("th", { scope: "row", class: "method" }, h("span", { class: "hidden" }, rowTitle(row))), h("td", null, "difference"), gaps.map((value) => h("td", { class: "numeric" }, known(value) ? difference(value) : adbench.missing())), h("td", { class: "numeric focus" }, known(gap) ? difference(gap) : adbench.missing())));
        }
      }
    }
    return adbench.scroller(
      `Cells on ${set.title}`,
      h("table", { class: "data matrix" }, h("caption", { class: "hidden" }, `${metricTitle(metric)} on ${set.title} by category`), h("thead", null, h("tr", null, h("th", { scope: "col", class: "method" }, "Row"), h("th", { scope: "col" }, ""), set.categories.map(([, name]) => h("th", { scope: "col", class: "numeric" }, name)), h("th", { scope: "col", class: "numeric focus" }, "average"))), h("tbody", null, lines)),
      "fit"
    );
  }

  /** What the method's file says of itself: paragraphs, and its numbered deviations as a list. */
  function prose(text) {
    const parts = [];
    let list = null;
    for (const line of text.split("\n")) {
      const item = /^\s+\d+\.\s+(.*)/.exec(line);
      if (item) {
        if (!list) parts.push((list = h("ol")));
        list.append(h("li", null, item[1]));
      } else if (list && /^\s+\S/.test(line)) list.lastChild.append(` ${line.trim()}`);
      else if (line.trim()) {
        list = null;
        parts.push(h("p", null, line.trim()));
      }
    }
    return h("div", { class: "prose about-method" }, parts);
  }

  /** `image AUROC` of `image_auroc`, whatever its geometry. */
  const named = (metric) => {
    const known = Object.keys(adbench.index.metrics).find((name) => name === metric || adbench.familyOf(name) === metric);
    return known ? metricTitle(known) : metric;
  };

  function verdictTable(verdicts) {
    const columns = [
      { id: "dataset", title: "Data set", header: true, value: (v) => v.dataset, cell: (v) => v.dataset },
      { id: "row", title: "Row", value: (v) => v.variant || "", cell: (v) => [v.variant || "as in its YAML", v.protocol && v.protocol !== "full" ? h("span", { class: "chip" }, v.protocol) : ""] },
      { id: "category", title: "Category", value: (v) => v.category || "", cell: (v) => v.category || "average" },
      { id: "metric", title: "Metric", value: (v) => v.metric, cell: (v) => named(v.metric) },
      { id: "ours", title: "ours", numeric: true, value: (v) => v.ours, cell: (v) => (known(v.ours) ? figure(v.ours) : adbench.missing()) },
      { id: "published", title: "published", numeric: true, value: (v) => v.published, cell: (v) => (known(v.published) ? figure(v.published) : adbench.missing()) },
      { id: "difference", title: "difference", numeric: true, value: (v) => v.difference, cell: (v) => (known(v.difference) ? difference(v.difference) : adbench.missing()) },
      { id: "standing", title: "standing", value: (v) => v.standing || "", cell: (v) => (v.standing ? adbench.standing(v.standing) : adbench.missing()) },
      { id: "verdict", title: "Verdict", class: "verdict", value: (v) => v.verdict || "", cell: (v) => h("span", { class: `verdict-text ${/^(reproduced|within)/.test(v.verdict || "") ? "good" : /^off/.test(v.verdict || "") ? "bad" : "open"}` }, v.verdict || "–") },
      { id: "why", title: "Why", class: "reason", value: (v) => v.why || "", cell: (v) => v.why || "" },
    ];
    return adbench.scroller("Reproduction verdicts", adbench.table({ caption: "Reproduction verdicts", columns, rows: verdicts, sort: { id: "dataset", way: "ascending" } }).node);
  }

  adbench.views.method = async function (page) {
    const slug = page.parts[0];
    const method = await adbench.load(`methods/${slug}`);
    const slugs = adbench.index.datasets.map((one) => one.slug).filter((name) => method.rows.some((row) => row.dataset === name));
    const chosen = slugs.includes(page.query.get("dataset")) ? [page.query.get("dataset")] : slugs;
    const place = h("div");
    const sets = await Promise.all(slugs.map((name) => adbench.load(`sets/${name}`)));
    const metrics = [...new Set(sets.flatMap((set) => set.metrics))];
    const order = Object.keys(adbench.index.sections);
    metrics.sort((a, b) => order.indexOf(adbench.sectionOf(a)) - order.indexOf(adbench.sectionOf(b)));
    const state = { metric: metrics.includes(page.query.get("metric")) ? page.query.get("metric") : metrics[0], dataset: chosen.length === 1 && slugs.length > 1 ? chosen[0] : "" };

    async function draw() {
      const wanted = state.dataset ? [state.dataset] : slugs;
      const parts = await Promise.all(
        wanted.map(async (name) => {
          const set = await adbench.load(`sets/${name}`);
          const categories = await adbench.load(`categories/${name}`);
          const rows = set.rows.filter((row) => row.method === slug);
          return [h("h3", null, h("a", { href: `#/dataset/${name}` }, set.title)), set.metrics.includes(state.metric) ? matrix(set, name, categories, rows, state.metric) : h("p", { class: "note" }, "This metric is in no record of this data set.")];
        })
      );
      place.replaceChildren(...parts.flat());
    }

    const change = async (key, value) => {
      state[key] = value;
      page.remember({ metric: state.metric === metrics[0] ? "" : state.metric, dataset: state.dataset });
      await draw();
      adbench.say(`${metricTitle(state.metric)} shown`);
    };
    const average = (one) => !one.category || one.category === "average";
    const open = (one) => one.verdict === "not comparable";
    const judged = method.verdicts.filter((one) => average(one) && !open(one));
    const folds = [
      ["Averages that are not comparable, and why", method.verdicts.filter((one) => average(one) && open(one))],
      ["Single categories", method.verdicts.filter((one) => !average(one) && !open(one))],
      ["Single categories that are not comparable, and why", method.verdicts.filter((one) => !average(one) && open(one))],
    ];
    const links = method.links.map(([text, target]) => h("a", { href: target, rel: "noopener noreferrer", class: "out" }, text));
    if (metrics.length) await draw();
    const title = (name) => (adbench.index.datasets.find((one) => one.slug === name) || { title: name }).title;
    return {
      title: method.title,
      node: [
        h("div", { class: "head" }, h("div", { class: "title" }, h("p", { class: "kicker" }, "Method"), h("h1", { tabindex: "-1" }, method.title), method.paper_title ? h("p", { class: "lead" }, method.paper_title, method.venue ? `, ${method.venue}` : "") : "")),
        facts([
          ["Family", adbench.taxonomy(method.taxonomy)],
          ["Paper", links.length ? links.flatMap((link, at) => (at ? [", ", link] : [link])) : null],
          ["Fidelity", method.fidelity ? [method.fidelity, method.about_fidelity ? h("span", { class: "aside" }, ` ${method.about_fidelity}`) : ""] : null],
          ["Epoch", method.selection === "best_test_epoch" ? "the paper reports its best test epoch, ours is the last" : null],
          ["Id", h("code", null, method.id)],
        ]),
        method.verdicts.length ? h("h2", null, "Is the paper reproduced?") : "",
        judged.length ? verdictTable(judged) : "",
        method.verdicts.length && !judged.length ? h("p", { class: "note" }, "No row of this method can be compared with a published average: the reasons are below.") : "",
        ...folds.map(([name, held]) => (held.length ? fold(`${name} (${held.length})`, false, verdictTable(held)) : "")),
        h("h2", null, "All cells"),
        metrics.length
          ? h("div", { class: "tools" }, field("Metric", select(adbench.metricGroups(metrics), state.metric, (value) => change("metric", value)), "metric"), slugs.length > 1 ? field("Data set", select([["", "all"], ...slugs.map((name) => [name, title(name)])], state.dataset, (value) => change("dataset", value))) : "")
          : h("p", { class: "note" }, "No cell is done."),
        place,
        method.about ? [h("h2", null, "Source and deviations"), prose(method.about)] : "",
        method.yaml || method.composed ? h("h2", null, "Settings") : "",
        method.yaml ? fold(`conf/method/${method.id}.yaml, with the source of every number`, false, code(method.yaml, "The YAML of the method")) : "",
        method.composed ? fold(`All settings of the newest record (${method.composed_of})`, false, code(method.composed, "The composed settings")) : "",
      ],
    };
  };

  adbench.views.row = async function (page) {
    const key = page.parts.slice(0, 3).join("/");
    const row = await adbench.row(key);
    const slug = page.parts[0];
    const set = await adbench.load(`sets/${slug}`);
    const lines = [];
    for (const [category, held] of Object.entries(row.cells)) {
      for (const [seed, cell] of Object.entries(held.seeds)) lines.push({ key: `${category} ${seed}`, category, name: held.name, seed: Number(seed), cell });
    }
    const present = set.metrics.filter((name) => lines.some(({ cell }) => known(((cell.metrics || {})[adbench.sectionOf(name)] || {})[adbench.familyOf(name)])));
    const read = (line, name) => ((line.cell.metrics || {})[adbench.sectionOf(name)] || {})[adbench.familyOf(name)];
    const several = new Set(lines.map((line) => line.seed)).size > 1;
    const order = set.categories.map(([one]) => one);
    const columns = [
      { id: "category", title: "Category", header: true, class: "method", value: (line) => order.indexOf(line.category), cell: (line) => h("a", { class: "name", href: `#/cell/${key}/${line.category}/${line.seed}` }, line.name) },
      several ? { id: "seed", title: "seed", numeric: true, first: "ascending", value: (line) => line.seed, cell: (line) => String(line.seed) } : null,
      { id: "status", title: "status", value: (line) => line.cell.status, cell: (line) => (line.cell.status === "done" ? "done" : [adbench.state(line.cell.status), h("span", { class: "variant" }, line.cell.cause)]) },
      ...present.map((name) => ({ id: name, title: adbench.metricLong(name), numeric: true, hint: adbench.index.sections[adbench.sectionOf(name)], value: (line) => read(line, name), cell: (line) => (known(read(line, name)) ? figure(read(line, name)) : adbench.missing()) })),
      { id: "fit", title: "fit s", numeric: true, first: "ascending", value: (line) => (line.cell.timing || {}).fit_seconds, cell: (line) => adbench.number((line.cell.timing || {}).fit_seconds) },
    ].filter(Boolean);
    const gone = order.filter((one) => !row.cells[one]);
    const table = adbench.table({ caption: `All cells of ${rowTitle(row)}`, columns, rows: lines, sort: { id: "category", way: "ascending" } });
    return {
      title: `${rowTitle(row)} on ${set.title}`,
      node: [
        h("div", { class: "head" }, h("div", { class: "title" }, h("p", { class: "kicker" }, h("a", { href: `#/dataset/${slug}` }, set.title)), h("h1", { tabindex: "-1" }, h("a", { href: `#/method/${row.method}` }, row.title)), h("p", { class: "lead" }, [row.variant || "as in its YAML", row.protocol].join(", ")))),
        h("p", { class: "count" }, `${plural(lines.length, "cell")}${gone.length ? `; missing: ${gone.map((one) => (set.categories.find(([name]) => name === one) || [])[1]).join(", ")}` : ""}`),
        adbench.scroller("All cells of the row", table.node),
      ],
    };
  };
})();
