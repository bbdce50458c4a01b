"use strict";

// --- the rows that this page holds: filters, a list, copies of it; of rows selected on the map those that it only draws, too ---
const heldRows = (function () {
  const data = JSON.parse(document.getElementById("held-rows").textContent);
  const form = document.getElementById("row-filters"), body = document.getElementById("rows-table").tBodies[0];
  const count = document.getElementById("rows-count"), more = document.getElementById("more-rows");
  const chip = document.getElementById("rows-selected");
  const AT_ONCE = 25;
  const nHeld = data.row.length;
  const lower = data.item.map((item) => item.toLowerCase());
  // Rows before nHeld are held with all that is known of them, those from there on are the map's.
  let selected = null, found = [], listed = 0, points = null;

  function valueOf(name, i) { return i < nHeld ? data[name][i] ?? null : points.value(name, i - nHeld); }
  function kindsOf(i) { return i < nHeld ? data.kinds_of.filter((_, bit) => data.kinds[i] >> bit & 1).join(", ") : "map"; }
  function itemOf(i) { return i < nHeld ? data.item[i] : ""; }
  function hasWords(i, words) {
    return words.every((word) => (i < nHeld && lower[i].includes(word)) || String(valueOf("row", i)) === word);
  }
  function known(value, digits) { return value === null ? "" : value.toFixed(digits); }

  function find() {
    const value = (name) => form.elements[name].value;
    const words = value("words").toLowerCase().split(/\s+/).filter(Boolean);
    const cluster = value("cluster"), kind = value("kind");
    const least = Number(value("least") || 0), most = Number(value("most") || 1);
    const isAny = least <= 0 && most >= 1, held = form.elements.held ? Number(value("held") || 0) : 0;
    found = [];
    for (const i of selected || data.row.keys()) {
      if (cluster !== "" && valueOf("label", i) !== Number(cluster)) continue;
      if (kind !== "" && !(i < nHeld && data.kinds[i] >> Number(kind) & 1)) continue;
      const p = valueOf("probability", i);
      if (!isAny && (p === null || p < least || p > most)) continue;
      if (held > 0 && !(valueOf("stability", i) >= held)) continue;
      if (words.length && !hasWords(i, words)) continue;
      found.push(i);
    }
    const order = value("order"), column = order.replace("-", ""), sign = order[0] === "-" ? -1 : 1;
    // What is not known comes last; ranks are found once, not at each comparison: there may be a million.
    const rank = Float64Array.from(found, (i) => { const each = valueOf(column, i); return each === null ? Infinity : sign * each; });
    const places = Uint32Array.from(found.keys()).sort((i, j) => (rank[i] < rank[j] ? -1 : rank[i] > rank[j] ? 1 : i - j));
    found = Array.from(places, (at) => found[at]);
    body.replaceChildren();
    listed = 0;
    list();
  }
  function list() {
    for (const i of found.slice(listed, listed + AT_ONCE)) {
      const row = body.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.dataset.name = "Row";
      head.textContent = valueOf("row", i);
      row.append(head);
      const cell = (name, text, isNumber) => {
        const made = row.insertCell();
        made.dataset.name = name;
        made.textContent = text; // an item is text, whatever it looks like
        if (isNumber) made.className = "n";
        return made;
      };
      const of = cell("Cluster", " " + valueOf("label", i)), swatch = document.createElement("span");
      swatch.className = "swatch k" + valueOf("label", i);
      of.prepend(swatch);
      cell("Probability", known(valueOf("probability", i), 2), true);
      cell("Stability", known(valueOf("stability", i), 2), true);
      cell("Support", known(valueOf("support", i), 2), true);
      cell("Kind", kindsOf(i));
      cell("Item", itemOf(i));
    }
    listed = Math.min(found.length, listed + AT_ONCE);
    const all = (selected || data.row).length.toLocaleString("en");
    count.textContent = found.length.toLocaleString("en") + " of " + all + " rows" + (listed < found.length ? ", " + listed + " shown" : "");
    more.hidden = listed === found.length;
    chip.hidden = !selected;
    if (selected) {
      const n = selected.length.toLocaleString("en") + (selected.length === 1 ? " row" : " rows");
      chip.firstElementChild.textContent = n + " selected on the map";
    }
  }
  function rounded(value) { return value === null ? null : Number(value.toFixed(3)); } // a step of 0.01 is no binary fraction
  function asText(separator, quoted) {
    const lines = [["row", "cluster", "probability", "stability", "support", "log_density", "kind", "item"]];
    for (const i of found) {
      const values = ["row", "label", "probability", "stability", "support", "log_density"].map((name) => valueOf(name, i));
      lines.push([...values.map(rounded), kindsOf(i), itemOf(i)]);
    }
    return lines.map((line) => line.map((each) => quoted(String(each ?? ""))).join(separator)).join("\r\n") + "\r\n";
  }
  function offer(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  async function copy(text) {
    try { await navigator.clipboard.writeText(text); return true; }
    catch { // a page from a plain server may not
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const isDone = document.execCommand("copy");
      area.remove();
      return isDone;
    }
  }
  function show(cluster) {
    selected = null;
    form.reset();
    form.elements.cluster.value = cluster;
    find();
    document.getElementById("rows").scrollIntoView();
  }
  form.addEventListener("input", find);
  form.addEventListener("submit", (event) => event.preventDefault());
  chip.querySelector("button").addEventListener("click", () => { selected = null; find(); });
  more.addEventListener("click", list);
  document.getElementById("save-rows").addEventListener("click", () => {
    offer("rows.csv", asText(",", (each) => (/[",\r\n]/.test(each) ? '"' + each.replaceAll('"', '""') + '"' : each)));
  });
  document.getElementById("copy-rows").addEventListener("click", async () => {
    const isDone = await copy(asText("\t", (each) => each.replace(/[\t\r\n]+/g, " ")));
    count.textContent = isDone ? found.length.toLocaleString("en") + " rows copied" : "this browser does not let the page copy";
  });
  find();
  return {
    data,
    show,
    value: valueOf,
    add(more) { points = more; }, // the rows that the map draws besides, unpacked
    select(which) { form.reset(); selected = which; find(); document.getElementById("rows").scrollIntoView(); },
  };
})();

// --- addresses: #cluster-12 shows a cluster, #rows-12 its rows, and what is folded opens ---
(function () {
  function follow() {
    const rows = /^#rows-(\d+)$/.exec(location.hash);
    if (rows) { heldRows.show(rows[1]); return; }
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    const folded = target.querySelector(":scope > details");
    if (folded) folded.open = true;
    if (target.hidden) document.getElementById("more-clusters").click();
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", follow);
  window.addEventListener("DOMContentLoaded", follow);
  document.addEventListener("click", (event) => { // the same address once more
    const link = event.target.closest("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) follow();
  });
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
})();
