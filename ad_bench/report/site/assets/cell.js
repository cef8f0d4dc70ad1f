/* One cell: what came out, with which settings, and what it looks like. */
"use strict";

(function () {
  const { h, known, figure, amount, score, metricTitle, plural, rowTitle, facts, fold, code } = adbench;
  const seconds = (value) => (known(value) ? `${amount(value)} s` : null);
  const bytes = (value) => (known(value) ? `${amount(value, 1e6)} MB` : null);
  const show = (value) => (value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

  function metricsTable(cell) {
    const level = known((cell.bootstrap || {}).level) ? `${Math.round(cell.bootstrap.level * 100)} % interval` : "interval";
    const lines = [];
    for (const [section, title] of Object.entries(adbench.index.sections)) {
      const held = (cell.metrics || {})[section] || {};
      const names = Object.keys(held);
      if (!names.length) continue;
      lines.push(h("tr", { class: "divider" }, h("th", { scope: "colgroup", colspan: 4 }, title)));
      for (const name of names) {
        const ends = ((cell.intervals || {})[section] || {})[name] || {};
        const bound = ((cell.bounds || {})[section] || {})[name];
        const best = (((cell.best_on_test || {}).metrics || {})[section] || {})[name] || {};
        const undefinedWhy = (cell.undefined || {})[`${section}.${name}`];
        const remarks = [known(bound) ? `bounded, not exact: within ± ${bound.toExponential(1)}` : "", undefinedWhy ? `not defined: ${undefinedWhy}` : "", known(best.value) ? `best test epoch ${show(best.epoch)}: ${figure(best.value)}, not ranked` : ""].filter(Boolean).join("; ");
        lines.push(h("tr", null, h("th", { scope: "row" }, metricTitle(`${section}.${name}`)), h("td", { class: "numeric" }, known(held[name]) ? h("span", { title: String(held[name]) }, figure(held[name], 4)) : adbench.missing("not defined")), h("td", { class: "numeric" }, known(ends.low) && known(ends.high) ? `${figure(ends.low)} to ${figure(ends.high)}` : adbench.missing("no interval")), h("td", { class: "wide" }, remarks)));
      }
    }
    if (!lines.length) return h("p", { class: "note" }, "The record holds no metric.");
    return adbench.scroller("All metrics", h("table", { class: "data" }, h("caption", { class: "hidden" }, "All metrics of the cell"), h("thead", null, h("tr", null, h("th", { scope: "col" }, "Metric"), h("th", { scope: "col", class: "numeric" }, "value"), h("th", { scope: "col", class: "numeric" }, level), h("th", { scope: "col" }, "remarks"))), h("tbody", null, lines)), "fit");
  }

  function pointsTable(cell) {
    const lines = [];
    const columns = ["threshold", "precision", "recall", "fpr", "iou", "f1"];
    for (const [section, title] of Object.entries(adbench.index.sections)) {
      for (const [kind, held] of Object.entries((cell.operating_points || {})[section] || {})) {
        const name = kind === "f1max" ? "F1-max, tuned on the test set" : kind === "given" ? "given" : kind;
        lines.push(h("tr", null, h("th", { scope: "row" }, title), h("td", null, name), columns.map((key) => h("td", { class: "numeric" }, known(held[key]) ? (key === "threshold" ? score(held[key]) : figure(held[key])) : adbench.missing()))));
      }
    }
    if (!lines.length) return "";
    return [h("h2", null, "At a threshold"), adbench.scroller("Operating points", h("table", { class: "data" }, h("caption", { class: "hidden" }, "Operating points"), h("thead", null, h("tr", null, h("th", { scope: "col" }, "Counted on"), h("th", { scope: "col" }, "threshold of"), columns.map((key) => h("th", { scope: "col", class: "numeric" }, key === "fpr" ? "FPR" : key === "iou" ? "IoU" : key === "f1" ? "F1" : key)))), h("tbody", null, lines)))];
  }

  /** Curves and histograms of the images' scores. */
  function imageCharts(cell) {
    const [normal, anomalous] = cell.scores.map(adbench.numbers);
    const given = ((cell.operating_points || {}).image || {}).given || {};
    const threshold = known(given.threshold) ? given.threshold : (cell.thresholds || {}).image;
    const charts = [];
    if (normal.length && anomalous.length) {
      const { roc, pr } = adbench.curves(normal, anomalous);
      const at = (points) => (known(threshold) ? points.reduce((found, point) => (point[2] >= threshold ? point : found), null) : null);
      const image = (cell.metrics || {}).image || {};
      charts.push(adbench.unitCurve("Images, ROC", `ROC curve of the images, area ${figure(image.image_auroc)}; the dot is the threshold`, roc, ["false positive rate →", "↑ true positive rate", true], at(roc)));
      charts.push(adbench.unitCurve("Images, precision and recall", `Precision-recall curve of the images, average precision ${figure(image.image_aupr)}; the dot is the threshold`, pr, ["recall →", "↑ precision"], at(pr), "step-before"));
    }
    if (normal.length + anomalous.length) {
      const rows = normal.map((value) => ({ value, kind: "normal" })).concat(anomalous.map((value) => ({ value, kind: "anomalous" })));
      const label = `Histogram of the scores of ${normal.length} normal and ${anomalous.length} anomalous images${known(threshold) ? `, threshold ${score(threshold)}` : ""}`;
      const draw = (width) => ({
        height: Math.min(width, 340), marginLeft: 44, marginBottom: 38, marginTop: 24, marginRight: 16,
        x: { label: "anomaly score →", ticks: 5, tickFormat: score },
        y: { label: "↑ images", grid: true },
        marks: [
          Plot.rectY(rows.filter((row) => row.kind === "normal"), Plot.binX({ y: "count" }, { x: "value", fill: "var(--normal)", fillOpacity: 0.62, thresholds: bins(rows), inset: 0.4 })),
          Plot.rectY(rows.filter((row) => row.kind === "anomalous"), Plot.binX({ y: "count" }, { x: "value", fill: "var(--anomalous)", fillOpacity: 0.62, thresholds: bins(rows), inset: 0.4 })),
          Plot.ruleY([0], { stroke: "var(--line-strong)" }),
          known(threshold) ? Plot.ruleX([threshold], { stroke: "currentColor", strokeDasharray: "4 3" }) : null,
        ],
      });
      const chart = adbench.chart("Images, scores", label, draw);
      const key = (name, count) => h("span", { class: `key ${name}` }, `${name} (${count})`);
      chart.append(h("p", { class: "keys" }, key("normal", normal.length), key("anomalous", anomalous.length), known(threshold) ? h("span", { class: "key threshold" }, `threshold ${score(threshold)}${known(given.threshold) ? "" : ", F1-max"}`) : ""));
      charts.push(chart);
    }
    const [names, kinds] = cell.kinds || [[], []];
    if (names.length > 1) {
      const rows = normal.map((value) => ({ value, kind: "normal", label: 0 })).concat(anomalous.map((value, at) => ({ value, kind: `${names[kinds[at]]}`, label: 1 })));
      const order = ["normal", ...names];
      const draw = (width) => ({
        height: 44 + order.length * 24, marginLeft: Math.min(140, 24 + 7 * Math.max(...order.map((name) => name.length))), marginBottom: 38, marginTop: 8, marginRight: 16,
        x: { label: "anomaly score →", ticks: 5, tickFormat: score },
        y: { domain: order, label: null, tickFormat: (name) => (name.length > 18 ? `${name.slice(0, 17)}…` : name) },
        marks: [
          Plot.ruleY(order, { stroke: "var(--line)" }),
          Plot.tickX(rows, { x: "value", y: "kind", stroke: (row) => (row.label ? "var(--anomalous)" : "var(--normal)"), strokeOpacity: 0.6, inset: 3 }),
          known(threshold) ? Plot.ruleX([threshold], { stroke: "currentColor", strokeDasharray: "4 3" }) : null,
        ],
        color: { type: "identity" },
      });
      charts.push(adbench.chart("Images, by kind of defect", `Scores of the images by kind of defect: ${order.join(", ")}`, draw));
    }
    return charts;
  }

  function bins(rows) {
    const values = rows.map((row) => row.value);
    const low = Math.min(...values);
    const high = Math.max(...values);
    const step = (high - low || 1) / 36;
    return Array.from({ length: 37 }, (_, at) => low + at * step);
  }

  function pixelCharts(cell) {
    const full = (cell.metrics || {}).full || {};
    const drawn = { roc: ["Pixels, ROC", "pixel_auroc", ["false positive rate →", "↑ true positive rate", true]], pr: ["Pixels, precision and recall", "pixel_aupr", ["recall →", "↑ precision"]], pro: ["Pixels, per-region overlap", "pixel_aupro", ["false positive rate →", "↑ mean overlap of the regions"]] };
    return Object.entries(drawn)
      .filter(([name]) => (cell.curves || {})[name])
      .map(([name, [title, metric, axes]]) => {
        const [x, y] = cell.curves[name];
        return adbench.unitCurve(title, `${title}: ${metricTitle(`full.${metric}`)} ${figure(full[metric])}, on the original masks`, x.map((value, at) => [value, y[at]]), axes, null);
      });
  }

  /** Worst and best images of the cell. */
  function extremes(cell, kind) {
    const held = cell.pictures;
    const threshold = (cell.thresholds || {}).image;
    const images = held.images.filter((image) => image.why.includes(kind));
    if (!images.length) return "";
    const verdict = (image) => {
      if (!known(threshold) || !known(image.score)) return "";
      const flagged = image.score >= threshold;
      return image.label ? (flagged ? "found" : "missed") : flagged ? "false alarm" : "passed";
    };
    return [
      h("h3", null, kind === "worst" ? "What it gets most wrong" : "What it gets most right"),
      h("ul", { class: "extremes" }, images.map((image) => h("li", null,
        h("div", { class: "tiles" }, held.files.map((name) => adbench.tile(held, name, image, (window.innerWidth < 600 ? 98 : 120) / held.tile, name === "inputs.jpg" ? `Input ${image.name}` : name === "truth.png" ? `Ground truth of ${image.name}` : `Anomaly map of ${image.name}`))),
        h("p", null, h("span", { class: `kind ${image.label ? "anomalous" : "normal"}` }, image.label ? image.defect || "anomalous" : "normal"), h("span", { class: "score" }, ` ${score(image.score)}`), verdict(image) ? h("span", { class: "outcome" }, verdict(image)) : ""),
        h("p", { class: "file" }, image.name)
      ))),
    ];
  }

  function setting(cell) {
    const { timing = {}, memory = {}, model = {}, counts = {}, hardware = {}, versions = {}, weights = [] } = cell;
    const list = (values) => (values && values.length ? h("ul", null, values.map((text) => h("li", null, show(text)))) : null);
    const pairs = (held) => (held && Object.keys(held).length ? Object.entries(held).map(([name, value]) => `${name} ${show(value)}`).join(", ") : null);
    return h(
      "div", { class: "columns" },
      h("section", null, h("h3", null, "Run"), facts([
        ["Date", cell.date], ["Hardware", [hardware.cpu, hardware.device === "cpu" ? "" : hardware.device, known(hardware.threads) ? plural(hardware.threads, "thread") : ""].filter(Boolean).join(", ")],
        ["Images", known(counts.train) || known(counts.test_normal) ? `${show(counts.train)} to train, ${show(counts.test_normal)} normal and ${show(counts.test_anomalous)} anomalous to test` : null],
        ["Fit", seconds(timing.fit_seconds)], ["Predict", seconds(timing.predict_seconds)], ["Evaluate", seconds(timing.evaluate_seconds)],
        ["Speed", known(timing.images_per_second) ? `${amount(timing.images_per_second)} images per second` : null],
        ["Latency", known(timing.latency_ms_p50) ? `${amount(timing.latency_ms_p50)} ms median, ${amount(timing.latency_ms_p95)} ms at 95 %` : null],
        ["Memory", [known(memory.device_peak_bytes) ? `device ${bytes(memory.device_peak_bytes)}` : "", known(memory.host_peak_bytes) ? `host ${bytes(memory.host_peak_bytes)}` : ""].filter(Boolean).join(", ")],
        ["Model", [bytes(model.bytes), known(model.parameters) ? `${amount(model.parameters, 1e6)} M parameters` : "", known(model.flops) ? `${amount(model.flops, 1e9)} GFLOPs an image` : ""].filter(Boolean).join(", ")],
        ["Pixels seen", known(cell.pixels_seen) ? `${amount(cell.pixels_seen * 100)} %` : null],
      ])),
      h("section", null, h("h3", null, "What it was made with"), facts([
        ["Weights", list(weights.map((one) => `${show(one.name)}, from ${show(one.source)}${one.as_paper === false ? ", not the paper's" : ""}${one.sha256 ? `, SHA-256 ${String(one.sha256).slice(0, 12)}` : ""}`))],
        ["Changed settings", list(cell.settings)],
        ["Geometry", pairs(cell.geometry)], ["Paper’s geometry", pairs(cell.paper_eval)],
        ["Versions", pairs(versions)], ["Commit", cell.commit ? h("code", null, show(cell.commit)) : null],
        ["Intervals", cell.bootstrap ? `${show(cell.bootstrap.replicates)} bootstrap replicates of the test images` : null],
      ]))
    );
  }

  const remarks = (title, texts, kind) => (texts && texts.length ? h("div", { class: `note ${kind || ""}` }, h("h2", null, title), h("ul", null, texts.map((text) => h("li", null, show(text))))) : "");

  /** Figures that only some records have, as text. */
  function more(cell) {
    const parts = [["compat", "As other projects compute it"], ["by_defect", "By kind of defect"], ["forgetting", "Forgetting"], ["history", "After each task"], ["best_on_test", "Best test epochs"]];
    return parts.filter(([name]) => cell[name] && Object.keys(cell[name]).length).map(([name, title]) => fold(title, false, code(JSON.stringify(cell[name], null, 1), title)));
  }

  adbench.views.cell = async function (page) {
    const key = page.parts.slice(0, 3).join("/");
    const [, , , category] = page.parts;
    const row = await adbench.row(key);
    const held = row.cells[category];
    if (!held) {
      return { title: "Missing", node: [h("h1", { tabindex: "-1" }, "This cell has no record"), h("p", null, `${rowTitle(row)} was not run on ${category}. `, h("a", { href: `#/row/${key}` }, "All cells of the row"))] };
    }
    const seeds = Object.keys(held.seeds);
    const seed = seeds.includes(page.parts[4]) ? page.parts[4] : seeds[0];
    const cell = { ...row.setups[held.seeds[seed].setup], ...held.seeds[seed] };
    const entry = adbench.index.datasets.find((one) => one.slug === page.parts[0]);
    const config = row.configs[cell.config];
    const head = h(
      "div", { class: "head" },
      h("div", { class: "title" },
        h("p", { class: "kicker" }, h("a", { href: `#/dataset/${page.parts[0]}` }, entry ? entry.title : row.dataset), " / ", h("a", { href: `#/row/${key}` }, row.variant ? `${row.title}, ${row.variant}` : row.title)),
        h("h1", { tabindex: "-1" }, held.name),
        h("p", { class: "lead" }, h("a", { href: `#/method/${row.method}` }, row.title), `, ${row.protocol}, seed ${seed}`)),
      seeds.length > 1 ? h("nav", { class: "tabs", "aria-label": "Seeds" }, seeds.map((one) => h("a", { href: `#/cell/${key}/${category}/${one}`, "aria-current": one === seed ? "page" : null }, `seed ${one}`))) : ""
    );
    const title = `${held.name}, ${rowTitle(row)}, seed ${seed}`;
    const settings = config ? fold("All settings (config.yaml)", false, code(config, "config.yaml")) : h("p", { class: "note" }, "The run’s config.yaml is not in its folder.");
    if (cell.status !== "done") {
      return { title, node: [head, h("div", { class: `note ${cell.status}` }, h("h2", null, cell.status === "failed" ? "This cell failed" : "This cell was skipped"), h("p", { class: "cause" }, cell.cause)), cell.traceback ? fold("Traceback", true, code(cell.traceback, "Traceback")) : "", h("h2", null, "Settings"), setting(cell), settings] };
    }
    const pixels = pixelCharts(cell);
    return {
      title,
      node: [
        head,
        remarks("Marks", cell.marks), remarks("Warnings", cell.warnings, "warning"), remarks("Files that cannot be read", cell.unreadable, "warning"),
        h("div", { class: "split" },
          h("section", null, h("h2", null, "Metrics"), metricsTable(cell)),
          h("section", null, h("h2", null, "Images"), cell.scores ? h("div", { class: "charts" }, imageCharts(cell)) : h("p", { class: "note" }, "No samples.csv in the run’s folder: no curves of the images."))
        ),
        h("h2", null, "Pixels"), pixels.length ? h("div", { class: "charts" }, pixels) : h("p", { class: "note" }, "This record has no curves of the pixels: it is older than they are, or nothing localises here."),
        cell.pictures ? [h("h2", null, "Worst and best images"), cell.pictures.scale ? h("div", { class: "legend" }, h("p", null, "Maps on the method’s one scale for the whole data set: "), adbench.scaleBar(cell.pictures.scale)) : "", extremes(cell, "worst"), extremes(cell, "best")] : "",
        pointsTable(cell),
        h("h2", null, "Run and settings"), setting(cell), settings,
        cell.notes ? fold("What the fit said of itself", false, code(cell.notes, "Notes")) : "",
        more(cell),
      ],
    };
  };
})();
