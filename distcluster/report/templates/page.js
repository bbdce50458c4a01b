// --- the cluster table: sort, search, some at a time ---
(function () {
  const table = document.getElementById("cluster-table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => { const v = Number(row.cells[column].dataset.value); return Number.isNaN(v) ? -Infinity : v; };
      [...body.rows].sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b))).forEach((row) => body.append(row));
      show();
    });
  });
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const more = document.getElementById("more-clusters");
  let most = Number(table.dataset.page);
  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      const isFound = words.every((word) => text.includes(word));
      if (isFound) count += 1;
      row.hidden = !isFound || (!words.length && count > most);
    }
    shown.textContent = words.length ? count + " of " + body.rows.length : "";
    more.hidden = words.length > 0 || count <= most;
    more.textContent = "Show all " + body.rows.length + " clusters";
  }
  search.addEventListener("input", show);
  more.addEventListener("click", () => { most = Infinity; show(); });
  window.addEventListener("beforeprint", () => { most = Infinity; show(); });
  show();
})();
