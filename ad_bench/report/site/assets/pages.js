/* Failed and skipped cells, how to read the page, and what other parts of the report add. */
"use strict";

(function () {
  const { h, plural } = adbench;

  adbench.problemsView = async function (page) {
    const slug = page.parts[0];
    const [set, problems] = await Promise.all([adbench.load(`sets/${slug}`), adbench.load(`problems/${slug}`)]);
    const names = new Map(set.rows.map((row) => [row.key, row]));
    const columns = [
      { id: "status", title: "status", value: (one) => one.status, cell: (one) => adbench.state(one.status) },
      { id: "row", title: "Method", header: true, class: "method", value: (one) => adbench.rowTitle(names.get(one.key)), cell: (one) => [h("a", { class: "name", href: `#/row/${one.key}` }, names.get(one.key).title), h("span", { class: "variant" }, [names.get(one.key).variant, names.get(one.key).protocol].filter(Boolean).join(", "))] },
      { id: "text", title: "Why", class: "why", value: (one) => one.text, cell: (one) => h("p", { class: "cause" }, one.text) },
      { id: "cells", title: "Cells", class: "wide", value: (one) => one.cells.length, cell: (one) => one.cells.flatMap(([category, name, seed], at) => [at ? ", " : "", h("a", { href: `#/cell/${one.key}/${category}/${seed}` }, seed ? `${name} (seed ${seed})` : name)]) },
    ];
    const rows = problems.map((one) => ({ ...one }));
    const body = rows.length ? adbench.scroller("Failed and skipped cells", adbench.table({ caption: "Failed and skipped cells", columns, rows: rows.map((one, at) => ({ ...one, place: at })), sort: { id: "status", way: "ascending" } }).node) : h("p", { class: "note" }, "No cell of this data set failed or was skipped.");
    const cells = (status) => problems.filter((one) => one.status === status).reduce((sum, one) => sum + one.cells.length, 0);
    return { title: `${set.title}, failed and skipped`, node: [adbench.datasetHead(set, slug, "problems"), h("p", { class: "count" }, `${plural(cells("failed"), "cell")} failed, ${cells("skipped")} skipped`), body] };
  };

  adbench.views.methods = async function () {
    const titles = new Map(adbench.index.datasets.map((one) => [one.slug, one.title]));
    const rows = Object.entries(adbench.index.methods).map(([key, method]) => ({ key, ...method }));
    const order = adbench.index.taxonomies.map(([ident]) => ident);
    const columns = [
      { id: "title", title: "Method", header: true, class: "method", value: (row) => row.title, cell: (row) => h("a", { class: "name", href: `#/method/${row.key}` }, row.title) },
      { id: "family", title: "Family", value: (row) => order.indexOf(row.taxonomy), cell: (row) => adbench.taxonomy(row.taxonomy) },
      { id: "sets", title: "Data sets", class: "wide", value: (row) => row.datasets.length, cell: (row) => row.datasets.flatMap((slug, at) => [at ? ", " : "", h("a", { href: `#/dataset/${slug}?q=${encodeURIComponent(row.id)}&protocol=all` }, titles.get(slug) || slug)]) },
    ];
    return { title: "Methods", node: [h("div", { class: "head" }, h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "Methods"), h("p", { class: "lead" }, `${plural(rows.length, "method")} with records`))), adbench.scroller("Methods", adbench.table({ caption: "Methods with records", columns, rows, sort: { id: "family", way: "ascending" } }).node)] };
  };

  adbench.views.about = async function () {
    const text = [
      ["Two geometries", "Papers crop and shrink the masks, each its own way, and that moves pixel metrics. “Original masks” brings every map back to the original image and its untouched mask: defect pixels that a crop never showed count as missed, normal ones are left out. “Geometry of each paper” scores as the method’s paper did; published values compare with that one."],
      ["Averages", "Categories are averaged within a seed first, then seeds; ± is the seeds’ sample standard deviation. A row that misses categories stands in brackets, below the others, and is never ranked: its mean is no average of the data set. Missing, failed and skipped cells are shown as what they are."],
      ["Intervals", "A bootstrap over the test images: what another draw of them would move. Seeds share the test images, so more seeds do not narrow it."],
      ["Published values", "survey: as printed in the survey. paper: from the paper or a source that quotes it. suspect: not confirmed or contradictory, no target to aim at, so no difference is given. other: from another benchmark, repository or paper."],
      ["Fidelity", "reference: agrees with the authors’ code. paper: built from the paper’s text, no reference code. reinterpretation: the paper leaves essential parts open; our choices are listed on the method’s page."],
      ["Costs", "Seconds and images per second are means over cells, on the hardware that the cell’s page names; memory is the peak, of the device where there is one, else of the host; the model’s size holds its memory bank."],
      ["Thresholds", "The threshold of F1-max is tuned on the test set itself: an upper end. A given threshold comes from the settings."],
      ["Bounds", "A figure with ~ is bounded, not exact; best and second are marked only where no exact value within the bounds would change them."],
      ["This folder", "The page is made from records alone, needs no network and no server, and the same records give the same bytes."],
    ];
    const remarks = adbench.index.remarks;
    return { title: "How to read it", node: [h("div", { class: "head" }, h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "How to read it"))), h("dl", { class: "prose about" }, text.map(([name, words]) => [h("dt", null, name), h("dd", null, words)])), remarks.length ? [h("h2", null, "Left out"), h("ul", { class: "prose" }, remarks.map((one) => h("li", null, one)))] : ""] };
  };

  adbench.views.more = async function (page) {
    const extra = await adbench.load(`more/${page.parts[0]}`);
    const table = extra.rows.length
      ? adbench.scroller(extra.title, h("table", { class: "data" }, h("caption", { class: "hidden" }, extra.title), h("thead", null, h("tr", null, extra.head.map((text) => h("th", { scope: "col" }, text)))), h("tbody", null, extra.rows.map((row) => h("tr", null, row.map((text, at) => (at ? h("td", null, text) : h("th", { scope: "row" }, text))))))))
      : "";
    const text = extra.paragraphs.map((one) => h("p", { class: "prose" }, one));
    return { title: extra.title, node: [h("div", { class: "head" }, h("div", { class: "title" }, h("h1", { tabindex: "-1" }, extra.title)), h("nav", { class: "tabs", "aria-label": "Analyses" }, adbench.index.extras.map(([slug, title]) => h("a", { href: `#/more/${slug}`, "aria-current": slug === page.parts[0] ? "page" : null }, title)))), text.slice(0, 1), extra.picture ? h("img", { class: "extra", src: adbench.address(extra.picture), alt: extra.alt }) : "", table, text.slice(1)] };
  };
})();
