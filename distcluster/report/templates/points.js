// --- the map's further rows, unpacked: distcluster/report/map_points.py packs them ---
async function unpackPoints(about, text) {
  const letters = atob(text), packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const n = about.n, column = {};
  let at = 0;
  for (const [name, width] of about.columns) {
    const values = width === 1 ? bytes.subarray(at, at + n) : width === 2 ? new Uint16Array(n) : new Uint32Array(n);
    if (width > 1) {
      for (let byte = 0; byte < width; byte++) { // the lowest first
        for (let i = 0, from = at + byte * n; i < n; i++) values[i] |= bytes[from + i] << (8 * byte);
      }
    }
    column[name] = values;
    at += width * n;
  }
  let row = 0;
  column.row = Float64Array.from(column.row, (from) => (row += from)); // there are runs of more than 2 ** 32 rows
  const UNKNOWN = 255, step = { probability: 0.01, stability: 0.01, support: about.support_step };
  return {
    n,
    column,
    value(name, i) {
      const value = column[name] && column[name][i];
      if (!(name in step)) return value ?? null;
      return value === UNKNOWN ? null : value * step[name];
    },
    ofClass(which, i) { const place = column["class " + which][i]; return place === UNKNOWN ? -1 : place; },
  };
}
