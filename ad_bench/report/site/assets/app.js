/* Addresses after the #, the menu, the colours. */
"use strict";

(function () {
  const { h } = adbench;
  const main = document.getElementById("main");
  let shown = null;
  let turn = 0;
  let opened = false;

  function parse() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const parts = path.split("/").filter(Boolean).map((part) => { try { return decodeURIComponent(part); } catch (error) { return part; } });
    return { name: parts.shift() || "", parts, query: new URLSearchParams(query || "") };
  }

  /** Keep a view's choices in the address, so that it can be shared; the history gets no entry. */
  function remember(path, choices) {
    if (parse().name !== path.name || parse().parts.join("/") !== path.parts.join("/")) return;
    const query = new URLSearchParams(Object.entries(choices).filter(([, value]) => value));
    const text = query.toString();
    history.replaceState(null, "", `${location.hash.split("?")[0]}${text ? `?${text}` : ""}`);
    shown = location.hash;
  }

  function menu(current) {
    const first = adbench.index.datasets[0];
    const items = [["dataset", `#/dataset/${(current.name === "dataset" && current.parts[0]) || first.slug}`, "Leaderboard"], ["methods", "#/methods", "Methods"]];
    if (adbench.index.extras.length) items.push(["more", `#/more/${adbench.index.extras[0][0]}`, "Analyses"]);
    items.push(["about", "#/about", "How to read it"]);
    document.getElementById("menu").replaceChildren(...items.map(([name, target, title]) => h("li", null, h("a", { href: target, "aria-current": name === current.name ? "page" : null }, title))));
  }

  async function route() {
    if (location.hash === "#main") return;
    if (location.hash === shown) return;
    shown = location.hash;
    const mine = (turn += 1);
    const path = parse();
    if (!path.name) {
      location.replace(`#/dataset/${adbench.index.datasets[0].slug}`);
      return;
    }
    menu(path);
    main.setAttribute("aria-busy", "true");
    let view;
    try {
      const draw = adbench.views[path.name];
      if (!draw) throw new Error(`There is no page “${path.name}”.`);
      view = await draw({ ...path, remember: (choices) => remember(path, choices) });
    } catch (error) {
      view = { title: "Not found", node: [h("h1", { tabindex: "-1" }, "This page cannot be shown"), h("p", { class: "note" }, error.message), h("p", null, h("a", { href: "#/" }, "To the leaderboard"))] };
    }
    if (mine !== turn) return; // the reader has gone on
    main.replaceChildren(...[view.node].flat(4).filter((node) => node instanceof Node));
    main.removeAttribute("aria-busy");
    document.title = `${view.title} · adbench`;
    if (opened) {
      // The reader came here from another view: to its heading, as a browser does with a new page.
      window.scrollTo(0, 0);
      const heading = main.querySelector("h1");
      if (heading) heading.focus({ preventScroll: true });
    }
    opened = true;
  }

  const button = document.getElementById("theme");
  const themes = ["", "light", "dark"];
  const words = { "": "as the system", light: "light", dark: "dark" };
  function paint() {
    const chosen = document.documentElement.dataset.theme || "";
    button.textContent = { "": "Auto", light: "Light", dark: "Dark" }[chosen];
    button.setAttribute("aria-label", `Colours: ${words[chosen]}`);
  }
  button.addEventListener("click", () => {
    const chosen = themes[(themes.indexOf(document.documentElement.dataset.theme || "") + 1) % themes.length];
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem("adbench-theme", chosen);
    } catch (error) {
      // Not kept, then.
    }
    paint();
    adbench.say(`Colours: ${words[chosen]}`);
  });
  paint();

  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address after the # names a view
    main.focus();
  });

  adbench
    .load("index")
    .then((index) => {
      adbench.index = index;
      document.getElementById("colophon").textContent = `adbench ${index.version}. Made from records alone; no figure is typed by hand.`;
      window.addEventListener("hashchange", route);
      return route();
    })
    .catch((error) => main.replaceChildren(h("p", { class: "note" }, error.message)));
})();
