// --- a scatter by WebGL 2: a million rows and more, a part of them in every frame until all are there ---
// Nothing is said of a browser without WebGL 2 but null: the map then draws by other means.
function makeScatter(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
  if (!gl) return null;
  const FRAME = 20, SLOW = 250, LEAST = 8192; // milliseconds that a part, and a view, may take; the smallest part
  const MOST_PLAIN = 4; // pixels: zoomed in far, the rows that can be read stand out
  const SOURCES = [
    [gl.VERTEX_SHADER, `#version 300 es
      in vec2 place;
      in vec4 colour;
      uniform vec3 view; // left, top, scale
      uniform float size;
      out vec4 fill;
      void main() {
        vec2 at = place * view.z + view.xy;
        gl_Position = vec4(at.x * 2.0 - 1.0, 1.0 - at.y * 2.0, colour.a > 0.0 ? 0.0 : 2.0, 1.0); // hidden: out of sight
        gl_PointSize = size;
        fill = colour;
      }`],
    [gl.FRAGMENT_SHADER, `#version 300 es
      precision highp float;
      in vec4 fill;
      uniform float size, ring, opacity;
      uniform vec3 paper;
      out vec4 drawn;
      void main() {
        float inside = (0.5 - length(gl_PointCoord - 0.5)) * size; // pixels from the edge
        float cover = size < 2.5 ? 1.0 : clamp(inside + 0.5, 0.0, 1.0);
        if (cover <= 0.0) discard;
        vec3 shade = mix(paper, fill.rgb, ring > 0.0 ? clamp(inside - ring + 0.5, 0.0, 1.0) : 1.0);
        drawn = vec4(shade, 1.0) * fill.a * cover * opacity;
      }`],
  ];
  const program = gl.createProgram();
  for (const [kind, source] of SOURCES) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const [camera, size, ring, paper, faded] = ["view", "size", "ring", "paper", "opacity"].map(uniform);
  function attribute(name, numbers, type) {
    const buffer = gl.createBuffer(), location = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(location);
    gl.vertexAttribPointer(location, numbers, type, true, 0, 0);
    return (values) => { gl.bindBuffer(gl.ARRAY_BUFFER, buffer); gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW); };
  }
  const setPlaces = attribute("place", 2, gl.UNSIGNED_SHORT), setColours = attribute("colour", 4, gl.UNSIGNED_BYTE);
  const frames = [];
  let part = 65536, view = null, from = 0, fence = null, started = 0, isAsked = false, n = 0, isLost = false, isClear = true, took = 0;
  canvas.addEventListener("webglcontextlost", () => { isLost = true; });

  function pass(first, last, diameter, edge, opacity) {
    gl.uniform1f(faded, opacity);
    gl.uniform1f(size, diameter);
    gl.uniform1f(ring, edge);
    gl.drawArrays(gl.POINTS, first, last - first);
  }
  // One part is under way at a time; nobody waits for it but the next part, which is larger or smaller after its time.
  function isDone() {
    if (!fence) return true;
    if (gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) return false;
    gl.deleteSync(fence);
    fence = null;
    const taken = performance.now() - started;
    part = Math.max(LEAST, Math.round(part * (taken < FRAME ? 2 : Math.max(0.25, Math.min(1, 1.5 * FRAME / taken)))));
    return true;
  }
  function begin() {
    if (canvas.width !== view.pixels) canvas.width = canvas.height = view.pixels;
    gl.viewport(0, 0, view.pixels, view.pixels);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform3f(camera, view.left, view.top, view.scale);
    gl.uniform3f(paper, ...view.paperColour);
    view.isBegun = true;
    isClear = false;
  }
  function step(now) {
    isAsked = false;
    if (!view || isLost) return;
    if (!isDone()) { ask(); return; }
    if (from === view.nPlain && view.isBegun) {
      took = now - view.begun;
      view.done();
      view = null;
      return;
    }
    if (!view.isBegun) begin();
    const { nPlain, radius, ratio, opacity } = view, to = Math.min(nPlain, from + part), edge = radius > 2.5 ? 1.2 * ratio : 0;
    started = performance.now();
    pass(from, to, Math.max(1, 2 * Math.min(radius, MOST_PLAIN) * ratio), 0, opacity);
    if (from === 0 || to === nPlain) pass(nPlain, n, Math.max(1, 2 * (radius + 0.5) * ratio) + 2 * edge, edge, 1);
    fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    frames.push([now, to - from]);
    if (frames.length > 1000) frames.shift();
    from = to;
    ask();
  }
  function ask() { if (!isAsked) { isAsked = true; requestAnimationFrame(step); } }
  return {
    frames, // of each that drew: when, and how many rows
    get isLost() { return isLost; },
    get isSlow() { return took > SLOW; }, // of the last view that came to its end
    setPlaces(values) { setPlaces(values); n = values.length / 2; },
    setColours,
    clear() {
      view = null;
      if (!isClear) gl.clear(gl.COLOR_BUFFER_BIT);
      isClear = true;
    },
    // Rows before nPlain are plain, those after it, which can be read, are larger and have an edge of paper.
    draw(wanted) { view = { ...wanted, begun: performance.now() }; from = 0; ask(); },
  };
}
