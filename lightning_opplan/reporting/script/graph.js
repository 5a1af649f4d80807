// The graph

const boxOf = (lines) => [Math.max(58, 14 + 6.6 * Math.max(...lines.map((each) => each.length))), 8 + 13 * lines.length];
const shortened = (text) => (text.length > 22 ? `${text.slice(0, 21)}…` : text);

function drawGraph(parent, mode, scale) {
  const { states, arcs } = data;
  const isDense = arcs.length > MOST_LABELS;
  const lines = states.map((state) => {
    const value = isKnown(state.v) && (mode === "all" || mode === "edges") ? [number(state.v, 3)] : [];
    return [...state.n.split("/").map(shortened), ...value];
  });
  const boxes = lines.map(boxOf);
  const stepX = Math.max(...boxes.map((box) => box[0])) + (isDense ? 70 : 82), stepY = isDense ? 60 : 84;
  const xs = states.map((state) => state.x * stepX), ys = states.map((state) => -state.y * stepY);
  const left = Math.min(...xs.map((each, i) => each - boxes[i][0] / 2)) - 12;
  const right = Math.max(...xs.map((each, i) => each + boxes[i][0] / 2)) + 12;
  const curves = arcs.map(([from, to]) => {
    const others = states[to].x - states[from].x === 1 ? [] : states.map((_, i) => i).filter((i) => i !== from && i !== to);
    const bend = bendOf([xs[from], ys[from]], [xs[to], ys[to]], others.map((i) => [xs[i], ys[i], boxes[i]]));
    return arcPath([xs[from], ys[from]], [xs[to], ys[to]], bend, boxes[from], boxes[to]);
  });
  const middles = curves.map((curve) => curve.middle[1]);
  const top = Math.min(...middles.map((each) => each - 20), ...ys.map((each, i) => each - boxes[i][1] / 2 - 12));
  const bottom = Math.max(...middles.map((each) => each + 24), ...ys.map((each, i) => each + boxes[i][1] / 2 + 12));
  const width = right - left, height = bottom - top;
  const whole = (parent.clientWidth - 16) / width;
  if (scale === null) scale = Math.min(Math.max(whole, isDense ? 0.45 : 0.62), 1.25);
  if (scale === "whole") scale = whole;
  const image = add(parent, "svg", {
    viewBox: `${left} ${top} ${width} ${height}`, width: Math.round(width * scale), height: Math.round(height * scale),
    role: "img", "aria-label": `Transition graph of ${states.length} states and ${arcs.length} edges; the table of edges below has all of it.`,
  });
  const heads = add(image, "defs");
  for (const kind of ["faint", "best", "path", "running"]) {
    const head = add(heads, "marker", { id: `head-${mode}-${kind}`, viewBox: "0 0 10 10", refX: 9, refY: 5, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" });
    add(head, "path", { d: "M0 1L10 5L0 9z", class: `head-${kind}` });
  }
  const layers = ["lines", "texts", "places"].map(() => add(image, "g"));
  const rank = { path: 3, running: 2, interrupted: 2, best: 1 };
  const order = arcs.map((_, i) => i).sort((a, b) => (rank[data.edges[arcs[a][2]].s] || 0) - (rank[data.edges[arcs[b][2]].s] || 0));
  const labelled = [];
  for (const i of order) {
    const at = arcs[i][2], entry = data.edges[at], curve = curves[i];
    let kind = mode === "graph" ? "" : entry.s;
    if (mode === "path" || mode === "epochs") kind = entry.s === "path" ? "path" : "";
    if (mode === "edges" && kind === "path") kind = "best";
    if (mode === "epochs" && !kind) continue;
    const head = { path: "path", best: "best", running: "running", interrupted: "running", paused: "running" }[kind] || "faint";
    add(layers[0], "path", { class: `arc ${kind}`, d: curve.path, "marker-end": `url(#head-${mode}-${head})`, "data-at": at });
    if (mode !== "graph" && mode !== "path" && isKnown(entry.n) && (!isDense || ["path", "running"].includes(kind))) {
      labelled.push([curve, entry, kind, at]);
    }
    if (mode === "all") {
      const touch = add(layers[0], "path", { class: "arc touch", d: curve.path, "data-at": at });
      add(touch, "title", {}, `${titleOf(entry)}: ${sentence(entry)}`);
    }
  }
  const taken = states.map((_, i) => [[xs[i], ys[i]], boxes[i]]);
  for (const [curve, entry, kind, at] of labelled.reverse()) { // the most telling ones have the first choice
    const [x, y] = freePlace(curve, taken);
    taken.push([[x, y + 4], LABEL]);
    const text = add(layers[1], "text", { class: `worth ${kind}`, x, y: y - 1, "data-at": at });
    const value = entry.s === "diverged" ? "diverged" : isKnown(entry.v) ? number(entry.v, 3) : isKnown(entry.l) ? number(entry.l, 3) : "…";
    add(text, "tspan", { x }, value);
    const count = entry.s === "running" ? `epoch ${epochs(entry.n)}` : `× ${epochs(entry.k)}`;
    add(text, "tspan", { x, dy: 11 }, count);
  }
  states.forEach((state, i) => {
    if (mode === "epochs" && !state.p) return;
    const isOnPath = state.p && mode !== "graph" && mode !== "edges";
    const place = add(layers[2], "g", { class: `place${isOnPath ? " path" : ""}${state.f ? " final" : ""}`, transform: `translate(${xs[i]},${ys[i]})`, "data-state": state.n });
    const [wide, high] = boxes[i];
    add(place, "rect", { x: -wide / 2, y: -high / 2, width: wide, height: high, rx: 7 });
    const hasValue = isKnown(state.v) && (mode === "all" || mode === "edges");
    lines[i].forEach((line, row) => {
      const isValue = hasValue && row === lines[i].length - 1;
      add(place, "text", { y: -high / 2 + 14 + 13 * row, class: isValue ? "value" : null }, line);
    });
    add(place, "title", {}, [state.n, data.settings[state.n]].filter(Boolean).join("\n"));
  });
  return scale;
}

const controlOf = (from, to, bend) => [(from[0] + to[0]) / 2 - bend * (to[1] - from[1]), (from[1] + to[1]) / 2 + bend * (to[0] - from[0])];
const onCurve = (from, control, to, t) => [0, 1].map((k) => (1 - t) ** 2 * from[k] + 2 * t * (1 - t) * control[k] + t * t * to[k]);

// Leads an edge that skips a column to the side where it, and its value, keep furthest from the states in between.
function bendOf(from, to, others) {
  if (!others.length) return 0;
  const near = others.filter(([x]) => x > Math.min(from[0], to[0]) - 1 && x < Math.max(from[0], to[0]) + 1);
  let best = 0, most = -Infinity;
  for (const bend of [0.12, -0.12, 0.2, -0.2, 0.3, -0.3]) {
    const control = controlOf(from, to, bend);
    let least = 40 - 12 * Math.abs(bend);
    for (const t of [0.35, 0.5, 0.65]) {
      const [x, y] = onCurve(from, control, to, t);
      for (const [otherX, otherY, box] of near) {
        const away = Math.hypot(Math.max(Math.abs(x - otherX) - box[0] / 2, 0), Math.max(Math.abs(y - otherY) - box[1] / 2, 0));
        if (away < least) least = away;
      }
    }
    if (least > most) { most = least; best = bend; }
  }
  return best;
}

// An edge's curve from box to box: that part of the one from middle to middle that lies outside of both.
function arcPath(from, to, bend, one, other) {
  const control = controlOf(from, to, bend);
  const at = (t) => onCurve(from, control, to, t);
  const isIn = (point, middle, box, gap) => Math.abs(point[0] - middle[0]) < box[0] / 2 + gap && Math.abs(point[1] - middle[1]) < box[1] / 2 + gap;
  let a = 0, b = 1;
  while (a < 0.5 && isIn(at(a), from, one, 1)) a += 0.01;
  while (b > 0.5 && isIn(at(b), to, other, 3)) b -= 0.01;
  const through = [0, 1].map((k) => (1 - a) * (1 - b) * from[k] + ((1 - a) * b + a * (1 - b)) * control[k] + a * b * to[k]);
  const point = (each) => `${each[0].toFixed(1)} ${each[1].toFixed(1)}`;
  return { path: `M${point(at(a))}Q${point(through)} ${point(at(b))}`, middle: at((a + b) / 2), at: (share) => at(a + share * (b - a)) };
}

const LABEL = [38, 24]; // width and height of a value over its epochs

// The place along an edge, as near to its middle as can be, where a label overlaps nothing, or else the least.
function freePlace(curve, taken) {
  let best = null, least = Infinity;
  for (const share of [0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74]) {
    const [x, y] = curve.at(share);
    let overlap = 0;
    for (const [[otherX, otherY], box] of taken) {
      const wide = (LABEL[0] + box[0]) / 2 - Math.abs(x - otherX), high = (LABEL[1] + box[1]) / 2 - Math.abs(y + 4 - otherY);
      if (wide > 0 && high > 0) overlap += wide * high;
    }
    if (overlap < least) { least = overlap; best = [x, y]; }
    if (!overlap) break;
  }
  return best;
}

function renewGraph() {
  const sheet = byId("graph-sheet");
  const scroll = [sheet.scrollLeft, sheet.scrollTop];
  sheet.replaceChildren();
  const scale = drawGraph(sheet, "all", zoom);
  if (zoom !== null) zoom = scale;
  sheet.scale = scale;
  [sheet.scrollLeft, sheet.scrollTop] = scroll;
  renewPanels();
}

function renewPanels() {
  const panels = byId("panels"), sheet = byId("panel-sheet");
  sheet.replaceChildren();
  if (panels.hidden || !panels.open) return;
  const titles = { graph: "(a) the transition graph", edges: "(b) every edge up to its knee", path: "(c) the best path", epochs: "(d) the path and its epochs" };
  for (const [mode, title] of Object.entries(titles)) {
    const panel = add(sheet, "figure");
    add(panel, "figcaption", {}, title);
    const drawing = add(panel, "div", { class: "sheet drawing", "data-name": title });
    drawGraph(drawing, mode, "whole");
  }
}

function onGraph(event) {
  if (String(getSelection())) return; // somebody marks text
  const arc = event.target.closest("[data-at]"), place = event.target.closest("[data-state]");
  if (arc) enlarge(data.edges[+arc.dataset.at]);
  else if (place) {
    byId("find").value = byId("find").value === place.dataset.state ? "" : place.dataset.state;
    applyFilter();
  }
}
