/* Charts: Observable Plot, loaded when the first one is drawn; curves of a ranking. */
"use strict";

(function () {
  const { h } = adbench;

  /** A figure with a caption. `draw(width)` gives the options of Plot; it is drawn anew where the width changes. */
  adbench.chart = function (title, label, draw, limit) {
    const host = h("div", { class: "plot-host" });
    const node = h("figure", { class: "chart" }, h("figcaption", null, title), host);
    let width = 0;
    const render = () => {
      const space = Math.min(Math.floor(host.clientWidth), limit || 460);
      if (space < 40 || space === width) return;
      width = space;
      const drawn = Plot.plot({ className: "plot", width, ...draw(width) });
      drawn.setAttribute("role", "img");
      drawn.setAttribute("aria-label", label);
      host.replaceChildren(drawn);
    };
    adbench
      .library("assets/vendor/d3.min.js")
      .then(() => adbench.library("assets/vendor/plot.umd.min.js"))
      .then(() => new ResizeObserver(() => requestAnimationFrame(render)).observe(host))
      .catch((error) => host.replaceChildren(h("p", { class: "note" }, error.message)));
    return node;
  };

  /** `0.5 1e-3` -> numbers. */
  adbench.numbers = (text) => (text ? text.split(" ").map(Number) : []);

  /** ROC and precision-recall points of a ranking, one for each distinct score, the highest first. */
  adbench.curves = function (normal, anomalous) {
    const all = normal.map((score) => [score, 0]).concat(anomalous.map((score) => [score, 1]));
    all.sort((a, b) => b[0] - a[0]);
    const roc = [[0, 0, Infinity]];
    const pr = [];
    let found = 0;
    let wrong = 0;
    all.forEach(([score, label], at) => {
      if (label) found += 1;
      else wrong += 1;
      if (at + 1 < all.length && all[at + 1][0] === score) return;
      roc.push([normal.length ? wrong / normal.length : 0, anomalous.length ? found / anomalous.length : 0, score]);
      pr.push([anomalous.length ? found / anomalous.length : 0, found / (found + wrong), score]);
    });
    if (pr.length) pr.unshift([0, pr[0][1], Infinity]);
    return { roc, pr };
  };

  const square = (width) => ({ height: Math.min(width, 340), marginLeft: 44, marginBottom: 38, marginTop: 24, marginRight: 16, grid: true });

  /** A curve within the unit square; `at` is the point of a threshold. */
  adbench.unitCurve = function (title, label, points, names, at, steps) {
    const draw = (width) => ({
      ...square(width),
      x: { domain: [0, 1], label: names[0], ticks: 5 },
      y: { domain: [0, 1], label: names[1], ticks: 5 },
      marks: [
        Plot.ruleY([0], { stroke: "var(--line-strong)" }),
        Plot.ruleX([0], { stroke: "var(--line-strong)" }),
        names[2] ? Plot.line([[0, 0], [1, 1]], { stroke: "var(--line-strong)", strokeDasharray: "3 4" }) : null,
        Plot.line(points, { x: "0", y: "1", stroke: "var(--accent)", strokeWidth: 2, curve: steps || "linear" }),
        at ? Plot.dot([at], { x: "0", y: "1", r: 4.5, fill: "var(--surface)", stroke: "var(--anomalous)", strokeWidth: 2 }) : null,
      ],
    });
    return adbench.chart(title, label, draw);
  };
})();
