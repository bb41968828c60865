"use strict";
// What the theme leaves out: a name for the landmark of each block of code, and tables that the keyboard can scroll.
new MutationObserver(() => {
  document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((nav) => {
    nav.setAttribute("aria-label", `Block ${nav.closest("[id]").id}`);
  });
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((table) => { table.tabIndex = 0; });
}).observe(document.documentElement, { childList: true, subtree: true });
