/* Pictures side by side: input, ground truth, and the anomaly maps of the methods that are ticked. */
"use strict";

(function () {
  const { h, known, score, figure, field, select, check, plural, rowTitle } = adbench;

  /** One tile of a sprite: `at` counts tiles of the cell from the left. */
  adbench.tile = function (cell, name, image, zoom, alt) {
    const picture = h("img", { src: adbench.address(`${cell.dir}/${name}`), alt, draggable: "false" });
    const place = () => {
      picture.style.setProperty("width", `${picture.naturalWidth * zoom}px`);
      picture.style.setProperty("height", `${picture.naturalHeight * zoom}px`);
    };
    picture.addEventListener("load", place);
    if (picture.complete) place();
    picture.style.setProperty("left", `${-image.at * cell.tile * zoom}px`);
    return h("span", { class: "tile", style: { width: `${image.width * zoom}px`, height: `${image.height * zoom}px` } }, picture);
  };

  /** The colours of a scale with its ends. */
  adbench.scaleBar = function (scale) {
    return h(
      "span", { class: "scale", title: "this method's one scale for the whole data set: from the median to the 99.9 % quantile of the scores of all its test pixels" },
      h("span", { class: "ramp", "aria-hidden": "true", style: { background: `linear-gradient(to right, ${adbench.index.ramp.join(", ")})` } }),
      h("span", { class: "ends" }, h("span", null, score(scale[0])), h("span", { class: "hidden" }, " to "), h("span", null, score(scale[1])))
    );
  };

  adbench.galleryView = async function (page) {
    const slug = page.parts[0];
    const entry = adbench.index.datasets.find((one) => one.slug === slug);
    const set = await adbench.load(`sets/${slug}`);
    const title = `${set.title}, gallery`;
    const head = adbench.datasetHead(set, slug, "gallery");
    if (!entry.gallery.length) {
      return { title, node: [head, h("p", { class: "note" }, "No run of this data set has left pictures. Runs of this version of adbench keep them; older records have none: run the cells again with rerun=always.")] };
    }
    const query = page.query;
    const names = new Map(set.categories);
    const state = {
      category: entry.gallery.includes(query.get("category")) ? query.get("category") : entry.gallery[0],
      over: query.get("over") === "yes",
      large: query.get("large") === "yes",
    };
    const place = h("div");
    const methods = h("fieldset", { class: "checks methods" });
    const count = h("p", { class: "count" });
    let cells = {};
    let rows = [];
    let ticked = query.get("rows") === null ? null : new Set(query.get("rows").split(" ").filter(Boolean));

    function remember() {
      page.remember({ category: state.category === entry.gallery[0] ? "" : state.category, rows: [...ticked].join(" "), over: state.over ? "yes" : "", large: state.large ? "yes" : "" });
    }

    function imagesOf(chosen) {
      const found = new Map();
      for (const row of chosen) for (const image of cells[row.key].images) if (!found.has(image.name)) found.set(image.name, { image, cell: cells[row.key] });
      return [...found.values()].sort((a, b) => b.image.label - a.image.label || a.image.defect.localeCompare(b.image.defect, "en", { numeric: true }) || a.image.name.localeCompare(b.image.name, "en", { numeric: true }));
    }

    function draw() {
      const chosen = rows.filter((row) => ticked.has(row.key));
      const images = imagesOf(chosen.length ? chosen : rows.slice(0, 1));
      // Pixels of the longer side: what fills the width, within reason.
      const size = state.large ? 256 : window.innerWidth < 600 ? 96 : Math.round(Math.min(188, Math.max(120, (document.getElementById("main").clientWidth - 250) / (2 + chosen.length) - 17)));
      const header = (row) => {
        const cell = cells[row.key];
        return h(
          "th", { scope: "col", class: "map" },
          h("a", { class: "name", href: `#/cell/${row.key}/${state.category}/${cell.seed}` }, row.title),
          h("span", { class: "variant" }, [row.variant, row.protocol === "full" ? "" : row.protocol, `seed ${cell.seed}`].filter(Boolean).join(", ")),
          cell.scale ? adbench.scaleBar(cell.scale) : h("span", { class: "variant" }, "gives no map")
        );
      };
      const mapOf = (row, name) => {
        const cell = cells[row.key];
        const image = cell.images.find((one) => one.name === name);
        if (!image) return h("td", null, adbench.missing("not among the pictures of this row"));
        const caption = h("span", { class: "score" }, known(image.score) ? score(image.score) : "");
        if (!cell.files.includes("maps.png")) return h("td", null, adbench.missing("no map"), caption);
        const map = adbench.tile(cell, "maps.png", image, size / cell.tile, `Anomaly map of ${rowTitle(row)} for ${name}, score ${score(image.score)}`);
        if (!state.over) return h("td", null, map, caption);
        return h("td", null, h("span", { class: "stack" }, adbench.tile(cell, "inputs.jpg", image, size / cell.tile, ""), map), caption);
      };
      const body = images.map(({ image, cell }) =>
        h(
          "tr", { class: image.label ? "anomalous" : "normal" },
          h("th", { scope: "row" }, h("span", { class: `kind ${image.label ? "anomalous" : "normal"}` }, image.label ? image.defect || "anomalous" : "normal"), h("span", { class: "file" }, image.name)),
          h("td", null, adbench.tile(cell, "inputs.jpg", image, size / cell.tile, `Input ${image.name}`)),
          h("td", null, cell.files.includes("truth.png") ? adbench.tile(cell, "truth.png", image, size / cell.tile, image.label ? `Ground truth of ${image.name}` : "Ground truth: nothing is marked") : adbench.missing("no mask")),
          chosen.map((row) => mapOf(row, image.name))
        )
      );
      const table = h(
        "table", { class: "gallery" },
        h("caption", { class: "hidden" }, `Pictures of ${set.title}, ${names.get(state.category) || state.category}`),
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "Image"), h("th", { scope: "col" }, "Input"), h("th", { scope: "col" }, "Ground truth"), chosen.map(header))),
        h("tbody", null, body)
      );
      place.replaceChildren(adbench.scroller("Gallery", table, "fit long"));
      count.textContent = `${plural(images.length, "image")}, maps of ${chosen.length} of ${plural(rows.length, "row")}`;
    }

    async function open() {
      cells = await adbench.load(`gallery/${slug}/${state.category}`);
      rows = set.rows.filter((row) => cells[row.key]);
      if (!ticked) ticked = new Set(rows.filter((row) => cells[row.key].scale).slice(0, window.innerWidth < 600 ? 2 : 4).map((row) => row.key));
      methods.replaceChildren(
        h("legend", null, "Maps of"),
        ...rows.map((row) =>
          check(rowTitle(row), ticked.has(row.key), (on) => {
            if (on) ticked.add(row.key);
            else ticked.delete(row.key);
            remember();
            draw();
            adbench.say(count.textContent);
          }, { "data-row": row.key })
        )
      );
      draw();
    }

    await open();
    const tools = h(
      "div", { class: "tools" },
      field("Category", select(entry.gallery.map((one) => [one, names.get(one) || one]), state.category, async (value) => {
        state.category = value;
        await open();
        remember();
        adbench.say(count.textContent);
      })),
      h("div", { class: "field" }, check("lay the map over the input", state.over, (on) => { state.over = on; remember(); draw(); })),
      h("div", { class: "field" }, check("large", state.large, (on) => { state.large = on; remember(); draw(); }))
    );
    const about = "Each method has one fixed scale of its own for the whole data set, from the median to the 99.9 % quantile of the scores of all its test pixels; it stands below the method’s name. No image is scaled by itself, so a map without bright spots is one that found nothing. The images were chosen by data set and category alone, the same for every method; below each map stands the image’s score.";
    return { title, node: [head, tools, methods, h("div", { class: "legend" }, h("p", null, about)), count, place] };
  };
})();
