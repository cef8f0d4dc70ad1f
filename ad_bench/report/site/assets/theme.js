/* The reader's choice of colours, taken before anything is painted. */
"use strict";
(function () {
  let chosen = null;
  try {
    chosen = localStorage.getItem("adbench-theme");
  } catch (error) {
    // A browser may keep nothing for pages of a folder: the system's colours, then.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
