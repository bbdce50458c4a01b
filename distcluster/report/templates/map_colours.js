// --- the colours of the map's rows, and the key to them ---
// For each row, by its place, red, green and blue.
function mapColours(of, data, labels, points, legend) {
  const nHeld = data.row.length;
  // Viridis at five places; the last ones are dark enough for light paper.
  const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [64, 170, 90], [190, 170, 20]], NONE = [139, 147, 156];
  function onRamp(share) {
    const at = Math.min(0.9999, Math.max(0, share)) * (RAMP.length - 1), i = Math.floor(at);
    return RAMP[i].map((from, c) => Math.round(from + (RAMP[i + 1][c] - from) * (at - i)));
  }
  const parsed = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  function key(text, fill) {
    const each = document.createElement("span"), swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = "rgb(" + fill + ")";
    each.append(swatch, text);
    legend.append(each);
  }
  if (of === "cluster") {
    const parts = data.colours.map(parsed);
    return (i) => parts[labels[i]];
  }
  if (/^\d+$/.test(of)) {
    const classes = data.classes[Number(of)], parts = classes.colours.map(parsed);
    classes.names.slice(0, 10).forEach((name, place) => key(name, parts[place]));
    key(classes.names.length > 10 ? "others have colours of their own, or are grey" : "no class", NONE);
    return (i) => parts[i < nHeld ? classes.of[i] : points.ofClass(of, i - nHeld)] ?? NONE;
  }
  const value = of === "cluster-stability" ? (i) => data.clusters[labels[i]].stability : (i) => heldRows.value(of, i);
  const all = new Float32Array(labels.length);
  for (let i = 0; i < all.length; i++) all[i] = value(i) ?? NaN;
  const known = all.filter((each) => !Number.isNaN(each)).sort();
  const least = known[Math.floor(0.02 * known.length)], most = known[Math.floor(0.98 * (known.length - 1))];
  const STEPS = 256, steps = Array.from({ length: STEPS }, (_, at) => onRamp(at / (STEPS - 1)));
  [0, 0.25, 0.5, 0.75, 1].forEach((share) => key((least + share * (most - least)).toFixed(2), onRamp(share)));
  return (i) => {
    const each = value(i);
    if (each === null || each === undefined) return NONE;
    const share = (each - least) / (most - least || 1);
    return steps[Math.round(Math.min(1, Math.max(0, share)) * (STEPS - 1))];
  };
}
