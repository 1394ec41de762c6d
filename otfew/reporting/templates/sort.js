"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const text = row => row.cells[column].textContent.trim();
      const number = row => parseFloat(text(row).replace(/,/g, ""));
      const rows = Array.from(body.rows);
      const numeric = !head.classList.contains("text") && rows.some(row => !Number.isNaN(number(row)));
      // Figures begin with the largest, names with A.
      const before = head.getAttribute("aria-sort");
      const down = numeric ? before !== "descending" : before === "ascending";
      const last = row => numeric && Number.isNaN(number(row));
      const order = (a, b) => numeric ? number(b) - number(a) : text(b).localeCompare(text(a));
      // Rows without a figure stay at the end, whichever way the others go.
      rows.sort((a, b) => last(a) || last(b) ? last(a) - last(b) : down ? order(a, b) : order(b, a));
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
