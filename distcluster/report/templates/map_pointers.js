// --- the mouse or fingers on the map: a line, a click, moving, and pinching ---
// Places are shares of the stage, from its left and its top.
function followPointers(stage, map) {
  const down = new Map(); // where each finger, or the mouse, is
  let travelled = 0, line = [];
  stage.addEventListener("pointerdown", (event) => {
    if (map.isOther(event)) return;
    down.set(event.pointerId, map.place(event));
    travelled = 0;
    if (line.length) map.line([]); // a second finger gives it up
    line = map.isLine() && down.size === 1 ? [map.place(event)] : [];
  });
  window.addEventListener("pointermove", (event) => {
    const from = down.get(event.pointerId);
    if (!from) { if (stage.contains(event.target)) map.point(event); return; }
    const here = map.place(event), [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    down.set(event.pointerId, here);
    travelled += Math.hypot(here[0] - from[0], here[1] - from[1]);
    if (line.length && map.isLine()) { line.push(here); map.line(line); return; }
    if (!other && !map.canMove()) { map.point(event); return; }
    // One finger moves; of two, one stays and the other one zooms about it.
    const part = other ? 0.5 : 1, apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]);
    map.move((here[0] - from[0]) * part, (here[1] - from[1]) * part);
    if (other) map.zoom(apart(here) / Math.max(apart(from), 0.01), (here[0] + other[0]) / 2, (here[1] + other[1]) / 2);
  });
  function up(event) {
    if (!down.delete(event.pointerId)) return;
    if (line.length) {
      line = [];
      map.lineEnd();
    } else if (event.type === "pointerup" && !down.size && travelled <= 4 / stage.clientWidth) map.click(map.place(event));
  }
  window.addEventListener("pointerup", up);
  window.addEventListener("pointercancel", up);
}
