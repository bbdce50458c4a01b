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

// --- the map: the picture of all rows, and under the pointer the rows that can be read ---
(function () {
  const source = document.getElementById("map-data");
  if (!source) return;
  const map = JSON.parse(source.textContent), data = heldRows.data;
  const stage = document.getElementById("stage");
  const image = document.getElementById("map-image");
  const canvas = document.getElementById("map-canvas");
  const note = document.getElementById("map-note");
  const only = document.getElementById("map-only");
  const lasso = document.getElementById("lasso"), colour = document.getElementById("map-colour");
  const legend = document.getElementById("map-legend");
  const [low, high] = map.extent;
  const span = [Math.max(high[0] - low[0], 1e-6), Math.max(high[1] - low[1], 1e-6)];
  // Places from 0 to 1, y downwards as on the screen.
  const u = data.x.map((x) => (x === null ? NaN : (x - low[0]) / span[0]));
  const v = data.y.map((y) => (y === null ? NaN : 1 - (y - low[1]) / span[1]));
  let scale = 1, left = 0, top = 0, alone = -1, pointed = -1, outline = [], fills = [];

  // Viridis at five places; the last ones are dark enough for light paper.
  const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [64, 170, 90], [190, 170, 20]];
  function onRamp(share) {
    const at = Math.min(0.9999, Math.max(0, share)) * (RAMP.length - 1), i = Math.floor(at);
    return "rgb(" + RAMP[i].map((from, c) => Math.round(from + (RAMP[i + 1][c] - from) * (at - i))) + ")";
  }
  const NONE = "#8b939c";
  function paint() {
    const of = colour.value;
    legend.replaceChildren();
    const key = (text, fill) => {
      const each = document.createElement("span"), swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = fill;
      each.append(swatch, text);
      legend.append(each);
    };
    if (of === "cluster") fills = data.label.map((label) => data.colours[label]);
    else if (/^\d+$/.test(of)) {
      const classes = data.classes[Number(of)];
      fills = classes.of.map((place) => (place < 0 ? NONE : classes.colours[place]));
      classes.names.slice(0, 10).forEach((name, place) => key(name, classes.colours[place]));
      key(classes.names.length > 10 ? "others have colours of their own, or are grey" : "no class", NONE);
    } else {
      const values = of === "cluster-stability" ? data.label.map((label) => data.clusters[label].stability) : data[of];
      const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
      const least = sorted[Math.floor(0.02 * sorted.length)], most = sorted[Math.floor(0.98 * (sorted.length - 1))];
      fills = values.map((value) => (value === null ? NONE : onRamp((value - least) / (most - least || 1))));
      [0, 0.25, 0.5, 0.75, 1].forEach((share) => key((least + share * (most - least)).toFixed(2), onRamp(share)));
    }
    draw();
  }

  function draw() {
    const size = stage.clientWidth, ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(size * ratio);
    image.style.transform = "translate(" + left * size + "px," + top * size + "px) scale(" + scale + ")";
    image.style.opacity = colour.value !== "cluster" ? 0 : alone >= 0 ? 0.12 : Math.max(0.25, 1 - Math.log2(scale) / 5);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const radius = Math.min(6, 1 + scale / 2);
    // Zoomed in, the picture's pixels grow coarse: points of their own take over.
    if (scale > 1.4 || alone >= 0 || colour.value !== "cluster") {
      for (let i = 0; i < u.length; i++) {
        if (Number.isNaN(u[i]) || (alone >= 0 && data.label[i] !== alone)) continue;
        const x = (u[i] * scale + left) * size, y = (v[i] * scale + top) * size;
        if (x < -9 || y < -9 || x > size + 9 || y > size + 9) continue;
        pen.fillStyle = fills[i];
        pen.beginPath();
        pen.arc(x, y, radius, 0, 7);
        pen.fill();
      }
    }
    pen.font = "600 13px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineWidth = 3;
    pen.lineJoin = "round";
    pen.strokeStyle = paper();
    pen.fillStyle = getComputedStyle(stage).color;
    const taken = [];
    for (const [label, mx, my] of map.middle) {
      if (alone >= 0 && label !== alone) continue;
      const [x, y] = onStage(mx, my);
      const name = data.clusters[label].name;
      let text = String(label);
      // Words where there is room for them, which zooming makes.
      if (name && !overlaps(taken, pen.measureText(text + " " + name).width, x, y)) text += " " + name;
      const width = pen.measureText(text).width, whole = Math.min(size - width / 2 - 4, Math.max(width / 2 + 4, x));
      taken.push([x, y, width]);
      pen.strokeText(text, x > 0 && x < size ? whole : x, y);
      pen.fillText(text, x > 0 && x < size ? whole : x, y);
    }
    if (outline.length > 1) {
      pen.strokeStyle = getComputedStyle(stage).color;
      pen.lineWidth = 2;
      pen.beginPath();
      outline.forEach(([x, y]) => pen.lineTo(x * size, y * size));
      pen.closePath();
      pen.stroke();
    }
    if (pointed >= 0) {
      pen.strokeStyle = getComputedStyle(stage).color;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc((u[pointed] * scale + left) * size, (v[pointed] * scale + top) * size, radius + 4, 0, 7);
      pen.stroke();
    }
  }
  function onStage(x, y) {
    const size = stage.clientWidth;
    return [((x - low[0]) / span[0] * scale + left) * size, ((1 - (y - low[1]) / span[1]) * scale + top) * size];
  }
  function overlaps(taken, width, x, y) {
    const near = (other, otherWidth) => Math.abs(other[1] - y) < 16 && Math.abs(other[0] - x) < (width + otherWidth) / 2 + 6;
    if (taken.some((other) => near(other, other[2]))) return true;
    return map.middle.some(([, mx, my]) => {
      const other = onStage(mx, my);
      return (other[0] !== x || other[1] !== y) && near(other, 20);
    });
  }
  function inside(px, py) { // an odd number of the outline's edges to the right (Shimrat 1962)
    let isIn = false;
    outline.forEach(([x, y], k) => {
      const [x2, y2] = outline[(k + 1) % outline.length];
      if ((y > py) !== (y2 > py) && px < (x2 - x) * (py - y) / (y2 - y) + x) isIn = !isIn;
    });
    return isIn;
  }
  function finish() {
    const rows = [...u.keys()].filter((i) => (alone < 0 || data.label[i] === alone) && inside(u[i] * scale + left, v[i] * scale + top));
    outline = [];
    setLasso(false);
    draw();
    if (rows.length) heldRows.select(rows);
  }
  function setLasso(isOn) {
    lasso.setAttribute("aria-pressed", String(isOn));
    stage.style.touchAction = isOn ? "none" : "";
  }
  lasso.addEventListener("click", () => setLasso(lasso.getAttribute("aria-pressed") !== "true"));
  function paper() { return getComputedStyle(document.body).backgroundColor; }
  function zoom(factor, x, y) {
    const next = Math.min(64, Math.max(1, scale * factor));
    left = x - (x - left) * (next / scale);
    top = y - (y - top) * (next / scale);
    scale = next;
    clamp();
  }
  function clamp() {
    left = Math.min(0, Math.max(1 - scale, left));
    top = Math.min(0, Math.max(1 - scale, top));
    draw();
  }
  function place(event) {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }
  function point(event) {
    const [x, y] = place(event);
    let best = -1, nearest = (14 / stage.clientWidth) ** 2;
    for (let i = 0; i < u.length; i++) {
      if (Number.isNaN(u[i]) || (alone >= 0 && data.label[i] !== alone)) continue;
      const distance = (u[i] * scale + left - x) ** 2 + (v[i] * scale + top - y) ** 2;
      if (distance < nearest) { nearest = distance; best = i; }
    }
    pointed = best;
    note.hidden = best < 0;
    // textContent: an item is text, whatever it looks like.
    if (best >= 0) note.textContent = data.item[best] + " · cluster " + data.label[best] + ", probability " + data.probability[best].toFixed(2);
    draw();
  }
  let from = null;
  stage.addEventListener("pointerdown", (event) => {
    from = place(event);
    if (lasso.getAttribute("aria-pressed") === "true") outline = [from];
  });
  window.addEventListener("pointerup", () => { from = null; if (outline.length) finish(); });
  stage.addEventListener("pointerleave", () => { pointed = -1; note.hidden = true; draw(); });
  stage.addEventListener("pointermove", (event) => {
    if (outline.length) { outline.push(place(event)); draw(); }
    else if (from && event.buttons && scale > 1) {
      const here = place(event);
      left += here[0] - from[0]; top += here[1] - from[1]; from = here;
      clamp();
    } else point(event);
  });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && scale === 1 && event.deltaY > 0) return; // let the page scroll on
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, ...place(event));
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const step = 0.1;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key === "+" || event.key === "=") zoom(1.5, 0.5, 0.5);
    else if (event.key === "-") zoom(1 / 1.5, 0.5, 0.5);
    else if (event.key === "0") { scale = 1; clamp(); }
    else if (moves[event.key] && scale > 1) { left += moves[event.key][0]; top += moves[event.key][1]; clamp(); }
    else return;
    event.preventDefault();
  });
  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    if (button.dataset.zoom === "all") { alone = -1; show(); scale = 1; clamp(); }
    else zoom(button.dataset.zoom === "in" ? 2 : 0.5, 0.5, 0.5);
  }));
  function show() {
    document.querySelectorAll("[data-only]").forEach((button) => {
      button.setAttribute("aria-pressed", String(Number(button.dataset.only) === alone));
    });
    only.textContent = alone < 0 ? "" : "Cluster " + alone + " alone";
  }
  document.querySelectorAll("[data-only]").forEach((button) => button.addEventListener("click", () => {
    const label = Number(button.dataset.only);
    alone = alone === label ? -1 : label;
    show();
    draw();
    if (alone >= 0) document.getElementById("map").scrollIntoView();
  }));
  colour.addEventListener("input", paint);
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  paint();
})();
