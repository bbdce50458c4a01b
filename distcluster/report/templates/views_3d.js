"use strict";

// --- three dimensions: drag or arrow keys turn, plus and minus zoom ---
(function () {
  const source = document.getElementById("views-3d-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const canvas = document.getElementById("views-3d-canvas");
  const note = document.getElementById("views-3d-note");
  const choice = { spaces: 0, colourings: 0 };
  let yaw = 0.6, pitch = 0.4, zoom = 1, from = null, shown = [];

  function draw() {
    const size = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(size * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const places = data.spaces[choice.spaces].places, colouring = data.colourings[choice.colourings];
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    shown = data.item.map((_, i) => {
      const [x, y, z] = places.slice(3 * i, 3 * i + 3);
      const side = cy * x + sy * z, away = cy * z - sy * x, depth = cp * away - sp * y;
      // A camera at a distance of 3: what is near is larger.
      const grow = zoom * 3 / Math.max(3 + depth, 0.5);
      return [size / 2 + grow * side * size * 0.47, size / 2 - grow * (cp * y + sp * away) * size * 0.47, depth, grow, i];
    }).sort((a, b) => b[2] - a[2]);
    const grey = getComputedStyle(document.body).getPropertyValue("--faint");
    for (const [x, y, depth, grow, i] of shown) {
      pen.globalAlpha = Math.min(1, Math.max(0.25, 0.75 - 0.4 * depth));
      pen.fillStyle = colouring.colours[colouring.of[i]] || grey;
      pen.beginPath();
      pen.arc(x, y, 2.2 * grow, 0, 7);
      pen.fill();
    }
  }
  function point(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const near = shown.filter((each) => (each[0] - x) ** 2 + (each[1] - y) ** 2 < 64).pop();
    note.hidden = !near;
    if (!near) return;
    const colouring = data.colourings[choice.colourings];
    note.textContent = data.item[near[4]] + " · " + (colouring.names[colouring.of[near[4]]] || "no class");
  }
  function turn(dx, dy) {
    yaw += dx;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + dy));
    draw();
  }
  canvas.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { from = null; });
  canvas.addEventListener("pointercancel", () => { from = null; });
  canvas.addEventListener("pointerleave", () => { note.hidden = true; });
  canvas.addEventListener("pointermove", (event) => {
    if (!from) return point(event);
    turn((event.clientX - from[0]) * 0.008, (event.clientY - from[1]) * 0.008);
    from = [event.clientX, event.clientY];
  });
  canvas.addEventListener("keydown", (event) => {
    const step = 0.12, turns = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (turns[event.key]) turn(...turns[event.key]);
    else if (event.key === "+" || event.key === "=") { zoom = Math.min(8, zoom * 1.25); draw(); }
    else if (event.key === "-") { zoom = Math.max(0.5, zoom / 1.25); draw(); }
    else return;
    event.preventDefault();
  });
  document.querySelectorAll("[data-view]").forEach((button) => button.addEventListener("click", () => {
    choice[button.dataset.view] = Number(button.value);
    document.querySelectorAll("[data-view=" + button.dataset.view + "]").forEach((each) => {
      each.setAttribute("aria-pressed", String(each === button));
    });
    draw();
  }));
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
