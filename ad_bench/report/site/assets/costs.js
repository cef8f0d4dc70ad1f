/* What accuracy costs: a scatter with the Pareto front, and the front as a table. */
"use strict";

adbench.costsView = async function (page) {
  const { h, known, figure, amount, field, select, check, plural, metricTitle, rowTitle } = adbench;
  const slug = page.parts[0];
  const set = await adbench.load(`sets/${slug}`);
  const query = page.query;
  const axes = adbench.costs.map(([name, , long]) => [name, long]);
  const devices = [...new Set(set.rows.map((row) => row.devices.join(", ")))].filter(Boolean).sort();
  const protocols = [...new Set(set.rows.map((row) => row.protocol))].sort((a, b) => (b === "full") - (a === "full") || a.localeCompare(b, "en", { numeric: true }));
  const state = {
    metric: adbench.metricFor(set, query.get("metric")),
    cost: axes.some(([name]) => name === query.get("cost")) ? query.get("cost") : "latency_ms_p50",
    protocol: query.get("protocol") === "all" ? "" : protocols.includes(query.get("protocol")) ? query.get("protocol") : protocols[0],
    device: devices.includes(query.get("device")) ? query.get("device") : "",
    log: query.get("log") !== "no",
  };
  const place = h("div", { class: "costs" });
  const count = h("p", { class: "count" });

  /** Rows that no other beats in both; the cheapest first. */
  function front(points, cheap) {
    const sorted = [...points].sort((a, b) => (cheap ? a.x - b.x : b.x - a.x) || b.y - a.y);
    const found = [];
    for (const point of sorted) if (!found.length || point.y > found[found.length - 1].y) found.push(point);
    return found;
  }

  function build() {
    const [, short, long, unit, first] = adbench.costs.find(([name]) => name === state.cost);
    const cheap = first === "ascending";
    const rows = set.rows.filter((row) => (!state.protocol || row.protocol === state.protocol) && (!state.device || row.devices.join(", ") === state.device));
    const points = rows
      .filter((row) => row.done === row.total)
      .map((row) => ({ row, x: adbench.costOf(row, state.cost) / unit, y: (row.metrics[state.metric] || [])[0], name: rowTitle(row), family: adbench.taxonomy(row.taxonomy) }))
      .filter((point) => known(point.x) && known(point.y) && (!state.log || point.x > 0));
    const best = front(points, cheap);
    const chosen = new Set(best);
    const title = metricTitle(state.metric);
    const text = `${plural(points.length, "row")} with both figures, ${best.length} on the Pareto front; ${rows.length - points.length} left out (not complete, or a figure is missing)`;
    count.textContent = text;
    // Labels of the front that do not cover each other, the most accurate first. Up and to the left of a point
    // of the front (to the right where more is better) there is no other.
    const shownLabels = (width, height) => {
      const scaled = (value, all, log) => {
        const of = (one) => (log ? Math.log(one) : one);
        const [low, high] = [Math.min(...all.map(of)), Math.max(...all.map(of))];
        return high > low ? (of(value) - low) / (high - low) : 0.5;
      };
      const taken = [];
      return [...best].reverse().filter((point) => {
        const x = scaled(point.x, points.map((one) => one.x), state.log) * (width - 110);
        const y = scaled(point.y, points.map((one) => one.y), false) * (height - 90);
        const wide = 7 * point.row.title.length + 8;
        const box = cheap ? [x - wide, x] : [x, x + wide];
        if (taken.some(([from, to, at]) => box[0] < to && from < box[1] && Math.abs(at - y) < 15)) return false;
        taken.push([...box, y]);
        return true;
      });
    };
    const arrow = cheap ? "← cheaper" : "faster →";
    const draw = (width) => ({
      height: Math.max(300, Math.min(480, width * 0.52)),
      marginLeft: 52, marginBottom: 42, marginTop: 24, marginRight: 24, grid: true,
      x: { type: state.log ? "log" : "linear", label: `${long}${unit === 1e6 && !short.includes("params") ? ", MB" : ""} (${arrow})`, nice: true, tickFormat: (value) => amount(value) },
      y: { label: `↑ ${title}`, nice: true, tickFormat: (value) => figure(value, 2) },
      marks: [
        Plot.line(best, { x: "x", y: "y", stroke: "var(--accent)", strokeWidth: 1.5, curve: cheap ? "step-after" : "step-before", strokeDasharray: "4 3" }),
        Plot.dot(points.filter((point) => !chosen.has(point)), { x: "x", y: "y", r: 4, stroke: "var(--muted)", strokeWidth: 1.4, fill: "var(--surface)" }),
        Plot.dot(best, { x: "x", y: "y", r: 5.5, fill: "var(--accent)", stroke: "var(--surface)" }),
        Plot.text(shownLabels(width, Math.max(300, Math.min(480, width * 0.52))), { x: "x", y: "y", text: (point) => point.row.title, dy: -9, dx: cheap ? -7 : 7, fontSize: 11.5, fontWeight: 600, fill: "currentColor", stroke: "var(--paper)", strokeWidth: 4, textAnchor: cheap ? "end" : "start" }),
        Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: (point) => `${point.name}\n${point.family}\n${title} ${figure(point.y)}\n${short} ${amount(point.x)}`, lineWidth: 34, fontSize: 12 })),
      ],
    });
    const label = `${title} against ${long}. On the Pareto front: ${best.map((point) => `${point.name}, ${figure(point.y)} at ${amount(point.x)}`).join("; ")}.`;
    const inMethod = (point) => [h("a", { class: "name", href: `#/method/${point.row.method}` }, point.row.title), point.row.variant ? h("span", { class: "variant" }, point.row.variant) : "", point.row.protocol === "full" ? "" : h("span", { class: "chip" }, point.row.protocol)];
    const table = adbench.table({
      caption: "Rows with both figures", rows: points,
      columns: [
        { id: "front", title: "front", class: "mark", value: (point) => (chosen.has(point) ? 0 : 1), cell: (point) => (chosen.has(point) ? h("span", { class: "on-front" }, "on the front") : "") },
        { id: "method", title: "Method", header: true, class: "method", value: (point) => point.name, cell: inMethod },
        { id: "family", title: "Family", class: "family", value: (point) => point.family, cell: (point) => point.family },
        { id: "y", title, numeric: true, value: (point) => point.y, cell: (point) => h("a", { href: `#/row/${point.row.key}` }, figure(point.y)) },
        { id: "x", title: short, numeric: true, first, value: (point) => point.x, cell: (point) => amount(point.x) },
        { id: "device", title: "hardware", class: "wide", value: (point) => point.row.devices.join(", "), cell: (point) => point.row.devices.join(", ") || adbench.missing() },
      ],
      sort: { id: "y", way: "descending" },
    });
    const mixed = !state.device && devices.length > 1 ? h("p", { class: "note" }, `These figures come from ${devices.length} kinds of hardware: choose one to compare seconds.`) : "";
    place.replaceChildren(
      mixed || "",
      points.length ? adbench.chart(`${title} against ${long}`, label, draw, 1060) : h("p", { class: "note" }, "No row has both figures."),
      adbench.scroller("Rows with both figures", table.node)
    );
    page.remember({ metric: state.metric === adbench.metricFor(set, "") ? "" : state.metric, cost: state.cost === "latency_ms_p50" ? "" : state.cost, protocol: state.protocol === protocols[0] ? "" : state.protocol || "all", device: state.device, log: state.log ? "" : "no" });
    return text;
  }

  const changed = (key, value) => {
    state[key] = value;
    adbench.say(build());
  };
  const tools = h(
    "div", { class: "tools" },
    field("Metric", select(adbench.metricGroups(set.metrics), state.metric, (value) => changed("metric", value)), "metric"),
    field("Cost", select(axes, state.cost, (value) => changed("cost", value))),
    field("Protocol", select([...protocols.map((name) => [name, name]), ["", "all"]], state.protocol, (value) => changed("protocol", value))),
    devices.length > 1 ? field("Hardware", select([["", "all"], ...devices.map((name) => [name, name])], state.device, (value) => changed("device", value))) : "",
    h("div", { class: "field" }, check("logarithmic", state.log, (on) => changed("log", on)))
  );
  build();
  return { title: `${set.title}, accuracy and costs`, node: [adbench.datasetHead(set, slug, "costs"), tools, count, place] };
};
