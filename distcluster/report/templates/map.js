// --- the map: a picture of all rows, and over it the rows that this page draws and those that it can read out ---
(function () {
  const source = document.getElementById("map-data");
  if (!source) return;
  const map = JSON.parse(source.textContent), data = heldRows.data, nHeld = data.row.length;
  const element = (name) => document.getElementById(name);
  const stage = element("stage"), image = element("map-image"), canvas = element("map-canvas");
  const note = element("map-note"), only = element("map-only"), inView = element("map-in-view"), legend = element("map-legend");
  const lasso = element("lasso"), colour = element("map-colour"), drawn = element("map-drawn");
  const [low, high] = map.extent;
  const span = [Math.max(high[0] - low[0], 1e-6), Math.max(high[1] - low[1], 1e-6)];
  // Places from 0 to 1, y downwards as on the screen; first the rows that can be read, then the further ones.
  let u = Float32Array.from(data.x, (x) => (x === null ? NaN : (x - low[0]) / span[0]));
  let v = Float32Array.from(data.y, (y) => (y === null ? NaN : 1 - (y - low[1]) / span[1]));
  let labels = Uint16Array.from(data.label), fills = null, points = null, scatter = null, order = null;
  // Where clusters' names stand; zoomed in, a cluster whose middle is elsewhere has its name among its rows in view, too.
  const middles = map.middle.map(([label, x, y]) => [label, (x - low[0]) / span[0], 1 - (y - low[1]) / span[1]]);
  let closer = [];
  let scale = 1, left = 0, top = 0, alone = -1, pointed = -1, pinned = -1, outline = [];

  // --- the further rows come when the map is near, for a million of them take a second ---
  async function begin() {
    const packed = element("map-points"), made = window.DecompressionStream && makeScatter(element("map-scatter"));
    if (!made) {
      drawn.textContent = "This browser has no WebGL 2: the map draws only the rows that can be read.";
      stage.dataset.drawn = 0;
      return;
    }
    element("map-scatter").addEventListener("webglcontextlost", () => draw()); // by other means
    points = await unpackPoints(data.points, packed.textContent);
    scatter = made; // not before: there is nothing to draw
    packed.remove();
    heldRows.add(points);
    const n = nHeld + points.n, MOST = 65535;
    const places = [new Float32Array(n), new Float32Array(n)], all = new Uint16Array(n);
    places[0].set(u);
    places[1].set(v);
    all.set(labels);
    all.set(points.column.label, nHeld);
    for (let i = 0; i < points.n; i++) {
      places[0][nHeld + i] = points.column.x[i] / MOST;
      places[1][nHeld + i] = 1 - points.column.y[i] / MOST;
    }
    [u, v] = places;
    labels = all;
    shuffle(n);
    paint();
    stage.dataset.drawn = n;
  }
  // Drawn in steps of the golden section, so that whatever part is there is spread evenly; those that can be read last.
  function shuffle(n) {
    const gcd = (a, b) => (b ? gcd(b, a % b) : a);
    let step = Math.max(1, Math.floor(points.n * 0.618034));
    while (points.n > 1 && gcd(step, points.n) > 1) step += 1;
    order = new Uint32Array(n);
    for (let k = 0; k < points.n; k++) order[k] = nHeld + (k * step) % points.n;
    for (let k = 0; k < nHeld; k++) order[points.n + k] = k;
    const bytes = new Uint16Array(2 * n);
    order.forEach((i, k) => {
      const isKnown = !Number.isNaN(u[i]);
      bytes[2 * k] = isKnown ? Math.round(u[i] * 65535) : 0;
      bytes[2 * k + 1] = isKnown ? Math.round(v[i] * 65535) : 0;
    });
    scatter.setPlaces(bytes);
  }
  new IntersectionObserver((seen, observer) => {
    if (seen.some((each) => each.isIntersecting)) { observer.disconnect(); begin(); }
  }, { rootMargin: "800px" }).observe(stage);

  // --- colours ---
  function paint() {
    legend.replaceChildren();
    const fill = mapColours(colour.value, data, labels, points, legend);
    fills = new Uint8Array(4 * labels.length);
    for (let i = 0; i < labels.length; i++) {
      const part = fill(i);
      fills[4 * i] = part[0]; fills[4 * i + 1] = part[1]; fills[4 * i + 2] = part[2];
    }
    show();
  }
  function show() { // what is seen of the rows: all, or those of one cluster
    for (let i = 0; i < labels.length; i++) fills[4 * i + 3] = isSeen(i) ? 255 : 0;
    if (scatter) {
      const from = new Uint32Array(fills.buffer), ordered = new Uint32Array(order.length);
      for (let k = 0; k < order.length; k++) ordered[k] = from[order[k]];
      scatter.setColours(ordered);
    }
    draw();
  }
  function isSeen(i) { return !Number.isNaN(u[i]) && (alone < 0 || labels[i] === alone); }

  // --- drawing ---
  function draw(isMoved = true) { // not moved: what lies over the rows has changed, and they have not
    const size = stage.clientWidth, ratio = window.devicePixelRatio || 1;
    const pen = canvas.getContext("2d");
    canvas.width = canvas.height = Math.round(size * ratio);
    pen.scale(ratio, ratio);
    if (isMoved) image.style.transform = "translate(" + left * size + "px," + top * size + "px) scale(" + scale + ")";
    if (isMoved) image.style.opacity = backdrop(!scatter || scatter.isSlow);
    const hasRows = scale > 1.4 || alone >= 0 || colour.value !== "cluster";
    if (!scatter || scatter.isLost) { if (hasRows) drawDiscs(pen, size); }
    else if (isMoved && hasRows) drawScatter(size, ratio);
    else if (isMoved) scatter.clear(); // the picture shows all
    const shown = [...middles, ...closer].filter(([label]) => alone < 0 || label === alone);
    drawNames(pen, size, shown.map(([label, x, y]) => [label, (x * scale + left) * size, (y * scale + top) * size]));
    if (outline.length > 1) {
      pen.strokeStyle = getComputedStyle(stage).color;
      pen.lineWidth = 2;
      pen.beginPath();
      outline.forEach(([x, y]) => pen.lineTo(x * size, y * size));
      pen.closePath();
      pen.stroke();
    }
    const ringed = pinned >= 0 ? pinned : pointed;
    if (ringed >= 0) {
      pen.strokeStyle = getComputedStyle(stage).color;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc((u[ringed] * scale + left) * size, (v[ringed] * scale + top) * size, radius(size) + 4, 0, 7);
      pen.stroke();
    }
  }
  // Zoomed in, the picture's pixels grow coarse: points take over. Where they are all of its rows it goes, once they are there.
  function backdrop(isNeeded) {
    if (colour.value !== "cluster") return 0;
    if (alone >= 0) return 0.12;
    if (isNeeded || labels.length < map.n_pictured) return Math.max(0.25, 1 - Math.log2(scale) / 5);
    return Math.max(0, 1 - Math.log2(scale));
  }
  function apart(size) { return size / Math.sqrt(labels.length) * scale; } // rows, in pixels, were they spread evenly
  function radius(size) { return Math.min(6, Math.max(scatter ? 0.6 : 1 + scale / 2, 0.2 * apart(size))); }
  function drawScatter(size, ratio) {
    const paperColour = paper().match(/[\d.]+/g).slice(0, 3).map((part) => part / 255);
    delete stage.dataset.complete;
    scatter.draw({
      left, top, scale, pixels: Math.round(size * ratio), ratio, radius: radius(size), paperColour, nPlain: points.n,
      opacity: Math.min(1, Math.max(0.3, apart(size))), // where rows lie in heaps, colours mix
      done() {
        stage.dataset.complete = "true";
        image.style.opacity = backdrop(false);
      },
    });
  }
  function drawDiscs(pen, size) {
    const disc = radius(size);
    for (let i = 0; i < nHeld; i++) {
      if (!isSeen(i)) continue;
      const x = (u[i] * scale + left) * size, y = (v[i] * scale + top) * size;
      if (x < -9 || y < -9 || x > size + 9 || y > size + 9) continue;
      pen.fillStyle = "rgb(" + fills.subarray(4 * i, 4 * i + 3) + ")";
      pen.beginPath();
      pen.arc(x, y, disc, 0, 7);
      pen.fill();
    }
  }
  function drawNames(pen, size, names) {
    pen.font = "600 13px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineWidth = 3;
    pen.lineJoin = "round";
    pen.strokeStyle = paper();
    pen.fillStyle = getComputedStyle(stage).color;
    const taken = [];
    for (const [label, x, y] of names) {
      const name = data.clusters[label].name;
      let text = String(label);
      // Words where there is room for them, which zooming makes.
      if (name && !overlaps(pen.measureText(text + " " + name).width, x, y)) text += " " + name;
      const width = pen.measureText(text).width, whole = Math.min(size - width / 2 - 4, Math.max(width / 2 + 4, x));
      taken.push([x, y, width]);
      pen.strokeText(text, x > 0 && x < size ? whole : x, y);
      pen.fillText(text, x > 0 && x < size ? whole : x, y);
    }
    function overlaps(width, x, y) {
      const near = (ox, oy, its) => Math.abs(oy - y) < 16 && Math.abs(ox - x) < (width + its) / 2 + 6;
      return taken.some(([ox, oy, its]) => near(ox, oy, its)) || names.some(([, ox, oy]) => (ox !== x || oy !== y) && near(ox, oy, 20));
    }
  }
  function paper() { return getComputedStyle(document.body).backgroundColor; }

  // --- choosing rows: a line around them, or all that are in view ---
  function inside(px, py) { // an odd number of the outline's edges to the right (Shimrat 1962)
    let isIn = false;
    for (let k = 0; k < outline.length; k++) {
      const [x, y] = outline[k], [x2, y2] = outline[(k + 1) % outline.length];
      if ((y > py) !== (y2 > py) && px < (x2 - x) * (py - y) / (y2 - y) + x) isIn = !isIn;
    }
    return isIn;
  }
  function within(isIn) {
    const found = [];
    for (let i = 0; i < labels.length; i++) if (isSeen(i) && isIn(u[i] * scale + left, v[i] * scale + top)) found.push(i);
    return found;
  }
  const seen = (x, y) => x >= 0 && x <= 1 && y >= 0 && y <= 1;
  function finish() {
    const xs = outline.map(([x]) => x), ys = outline.map(([, y]) => y);
    const box = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const rows = within((x, y) => x >= box[0] && x <= box[1] && y >= box[2] && y <= box[3] && inside(x, y));
    outline = [];
    setLasso(false);
    draw(false);
    if (rows.length) heldRows.select(rows);
  }
  function listInView() {
    const rows = within(seen);
    if (rows.length) heldRows.select(rows);
    else inView.textContent = "no rows in view";
  }
  function setLasso(isOn) {
    lasso.setAttribute("aria-pressed", String(isOn));
    touch();
  }
  function touch() { stage.style.touchAction = scale > 1 || isDrawing() ? "none" : "pan-y"; }
  function isDrawing() { return lasso.getAttribute("aria-pressed") === "true"; }
  lasso.addEventListener("click", () => setLasso(!isDrawing()));
  element("list-in-view").addEventListener("click", listInView);

  // --- what is in view, in words: for screen readers too ---
  let saying = 0;
  function say() {
    clearTimeout(saying);
    saying = setTimeout(() => {
      const count = new Map(), all = scatter ? labels.length : nHeld;
      let n = 0;
      for (let i = 0; i < all; i++) {
        if (!isSeen(i) || !seen(u[i] * scale + left, v[i] * scale + top)) continue;
        n += 1;
        if (!count.has(labels[i])) count.set(labels[i], [0, 0, 0]);
        const sums = count.get(labels[i]);
        sums[0] += 1; sums[1] += u[i]; sums[2] += v[i];
      }
      const most = [...count].sort((a, b) => b[1][0] - a[1][0]);
      const named = most.slice(0, 3).map(([label, [rows]]) => {
        return (label + " " + data.clusters[label].name).trim() + ": " + rows.toLocaleString("en");
      });
      inView.textContent = "Zoom " + scale.toFixed(1) + ", " + n.toLocaleString("en") + " drawn rows in view"
        + (n ? "; clusters " + named.join("; ") + (most.length > 3 ? "; " + (most.length - 3) + " more" : "") : "");
      const isAway = ([label]) => !middles.some(([other, mu, mv]) => other === label && seen(mu * scale + left, mv * scale + top));
      closer = most.filter(([, [rows]]) => rows >= 0.1 * n).filter(isAway).map(([label, [rows, us, vs]]) => [label, us / rows, vs / rows]);
      draw(false);
    }, 400);
  }

  // --- moving ---
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
    touch();
    draw();
    say();
  }
  function place(event) {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }
  function nearest(x, y) {
    const n = scatter ? labels.length : nHeld;
    let best = -1, least = (14 / stage.clientWidth) ** 2;
    for (let i = 0; i < n; i++) {
      const dx = u[i] * scale + left - x, dy = v[i] * scale + top - y, distance = dx * dx + dy * dy;
      if (distance < least && isSeen(i)) { least = distance; best = i; }
    }
    return best;
  }
  function told(i) {
    const share = (name) => { const value = heldRows.value(name, i); return value === null ? "" : ", " + name + " " + value.toFixed(2); };
    const what = i < nHeld ? data.item[i] : "Row " + heldRows.value("row", i).toLocaleString("en");
    return what + " · cluster " + labels[i] + share("probability") + share("stability");
  }
  function tell() {
    const i = pinned >= 0 ? pinned : pointed;
    note.hidden = i < 0;
    note.classList.toggle("pinned", pinned >= 0);
    if (i < 0) return;
    note.textContent = told(i); // an item is text, whatever it looks like
    if (pinned < 0) return;
    if (i >= nHeld) note.append(" · this page does not hold its item");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "only";
    button.textContent = "Show in the list";
    button.addEventListener("click", () => heldRows.select([i]));
    note.append(" ", button);
  }
  function point(event) {
    if (pinned >= 0) return;
    pointed = nearest(...place(event));
    tell();
    draw(false);
  }
  followPointers(stage, {
    place,
    isOther: (event) => note.contains(event.target),
    isLine: isDrawing,
    canMove: () => scale > 1,
    point,
    click(at) { pinned = nearest(...at); tell(); draw(false); },
    line(through) { outline = through; draw(false); },
    lineEnd: finish,
    move(dx, dy) { left += dx; top += dy; clamp(); },
    zoom,
  });
  stage.addEventListener("pointerleave", () => {
    if (pinned >= 0) return; // until another click, or Escape
    pointed = -1;
    tell();
    draw(false);
  });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && scale === 1 && event.deltaY > 0) return; // let the page scroll on
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, ...place(event));
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    if (event.target !== stage) return;
    const step = 0.1;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key === "+" || event.key === "=") zoom(1.5, 0.5, 0.5);
    else if (event.key === "-") zoom(1 / 1.5, 0.5, 0.5);
    else if (event.key === "0") { scale = 1; clamp(); }
    else if (event.key === "Enter") listInView();
    else if (event.key === "Escape") { outline = []; pinned = -1; setLasso(false); tell(); draw(false); }
    else if (moves[event.key] && scale > 1) { left += moves[event.key][0]; top += moves[event.key][1]; clamp(); }
    else return;
    event.preventDefault();
  });
  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    if (button.dataset.zoom === "all") { setAlone(-1); scale = 1; clamp(); }
    else zoom(button.dataset.zoom === "in" ? 2 : 0.5, 0.5, 0.5);
  }));
  function setAlone(label) {
    alone = label;
    pinned = -1;
    document.querySelectorAll("[data-only]").forEach((button) => {
      button.setAttribute("aria-pressed", String(Number(button.dataset.only) === alone));
    });
    only.textContent = alone < 0 ? "" : "Cluster " + alone + " alone";
    tell();
    show();
  }
  document.querySelectorAll("[data-only]").forEach((button) => button.addEventListener("click", () => {
    const label = Number(button.dataset.only);
    setAlone(alone === label ? -1 : label);
    if (alone >= 0) element("map").scrollIntoView();
  }));
  colour.addEventListener("input", paint);
  window.addEventListener("resize", () => draw());
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  paint();
})();
