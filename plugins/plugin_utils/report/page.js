/*
 * Copyright (c) 2026 cgl.livepatch contributors
 * GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Adds to longer tables what makes them easier to search: a filter, and headings that sort. Everything can be read
 * without it. Text is only ever set as text.
 */
"use strict";
const LEAST_ROWS = 8;
const byText = new Intl.Collator(undefined, { numeric: true });

function addFilter(table, rows, number) {
  const box = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const said = document.createElement("output");
  box.className = "tool";
  input.type = "search";
  input.id = "filter-" + number;
  label.htmlFor = said.htmlFor = input.id;
  label.textContent = "Show only rows with";
  let texts = null;
  let waiting = 0;
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      texts = texts || new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
      const wanted = input.value.toLowerCase().trim();
      let shown = 0;
      for (const row of rows) {
        row.hidden = !texts.get(row).includes(wanted);
        shown += !row.hidden;
      }
      said.textContent = wanted ? shown + " of " + rows.length + " rows" : "";
    }, 120);
  });
  box.append(label, input, said);
  table.parentNode.before(box);
}

function addSorting(table, rows) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = rows.map((row) => [row.cells[column].dataset.sort || row.cells[column].textContent.trim(), row]);
      keyed.sort((a, b) => (up ? 1 : -1) * byText.compare(a[0], b[0]));
      table.tBodies[0].append(...keyed.map((pair) => pair[1]));
    });
  });
}

document.querySelectorAll("table.long").forEach((table, number) => {
  const rows = Array.from(table.tBodies[0].rows);
  if (rows.length >= LEAST_ROWS) {
    addFilter(table, rows, number);
    addSorting(table, rows);
  }
});
