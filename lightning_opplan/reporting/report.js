"use strict";
// Draws the report from the data in the page, and again when there is newer data. Everything that was written by
// somebody reaches the page as text, never as markup; what comes from the templates is escaped there.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const KINDS = {
    path: "on the path", best: "best parent", other: "other", running: "running", interrupted: "interrupted",
    paused: "paused", diverged: "diverged", todo: "to come",
  };
  const MOST_LABELS = 80; // edges whose values can still be told apart in the graph
  const SMALL = { width: 300, height: 180, font: 10, dots: 3.4, ticks: 3 };

  let data = JSON.parse(byId("data").textContent);
  let shown = []; // numbers of the entries that pass the filter, in the order of the table
  let sorting = { column: null, down: false };
  let zoom = null;
  let large = null; // the entry in the dialog
  let reading = null; // the validation that is read in it
  let typed = 0;
  let lastWidth = 0;

  // Elements

  function add(parent, kind, attributes = {}, text = null) {
    const element = parent.namespaceURI === SVG || kind === "svg"
      ? document.createElementNS(SVG, kind) : document.createElement(kind);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    if (text !== null) element.textContent = text;
    parent.append(element);
    return element;
  }

  const titleOf = (entry) => `${entry.p} → ${entry.c}`;
  const keyOf = (entry) => JSON.stringify([entry.p, entry.c]);
  const isKnown = (value) => value !== undefined && value !== null;

  function number(value, digits = 4) {
    if (!isKnown(value)) return "";
    return Math.abs(value) < 1e5 ? value.toFixed(digits) : value.toPrecision(6);
  }
  const epochs = (value) => (isKnown(value) ? String(+value.toFixed(3)) : "");

  function ago(seconds) {
    if (seconds < 90) return `${Math.max(Math.round(seconds), 0)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
  }

  function worthOf(entry) {
    if (entry.s === "diverged") return "diverged";
    if (isKnown(entry.v)) return number(entry.v);
    return isKnown(entry.l) ? number(entry.l) : isKnown(entry.n) ? "…" : "";
  }

  function noteOf(entry) {
    if (data.isArms && entry.o) return entry.o;
    return entry.s === "other" ? "" : KINDS[entry.s];
  }

  // Curves

  function pointsOf(entry) {
    const values = entry.y || [];
    return values.map((value, i) => [Array.isArray(entry.x) ? entry.x[i] : entry.x + i, value]);
  }

  function fitted(entry, epoch) {
    const all = entry.f;
    const scale = data.family.includes("power") ? Math.log1p(epoch) : epoch;
    const middle = all.slice(1, -2);
    let value = all[0] + all[all.length - 2] * epoch + all[all.length - 1] * epoch * epoch;
    for (let i = 0; i < middle.length; i += 2) value += middle[i] * Math.exp(middle[i + 1] * scale);
    return value;
  }

  function ticks(low, high, about) {
    const raw = (high - low) / about;
    if (!(raw > 0) || !isFinite(raw)) return [low];
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((each) => each * power >= raw * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(10));
    return found;
  }

  function range(values, share) {
    let low = Infinity, high = -Infinity;
    for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
    if (low > high) return [0, 1];
    const margin = (high - low) * share || Math.abs(low) * 0.1 || 1;
    return [low - margin, high + margin];
  }

  function frame(parent, size, across, up, labels) {
    const image = add(parent, "svg", { viewBox: `0 0 ${size.width} ${size.height}`, "aria-hidden": "true" });
    const marks = ticks(...up, size.ticks).filter((each) => each >= up[0] && each <= up[1]);
    const texts = marks.map((each) => String(each));
    const left = 8 + size.font * 0.62 * Math.max(...texts.map((each) => each.length), 1) + (labels ? size.font + 6 : 0);
    const bottom = size.height - size.font - 8 - (labels ? size.font + 4 : 0);
    const x = (value) => left + ((value - across[0]) / (across[1] - across[0])) * (size.width - left - 8);
    const y = (value) => bottom - ((value - up[0]) / (up[1] - up[0])) * (bottom - 8);
    marks.forEach((each, i) => {
      add(image, "path", { class: "grid", d: `M${left} ${y(each).toFixed(1)}H${size.width - 8}` });
      add(image, "text", { x: left - 4, y: y(each) + size.font * 0.35, "font-size": size.font, "text-anchor": "end" }, texts[i]);
    });
    for (const each of ticks(...across, size.ticks + 1)) {
      if (each < across[0] || each > across[1]) continue;
      add(image, "text", { x: x(each), y: bottom + size.font + 3, "font-size": size.font, "text-anchor": "middle" }, String(each));
    }
    add(image, "path", { class: "axis", d: `M${left} 6V${bottom}H${size.width - 6}` });
    if (labels) {
      add(image, "text", { x: (left + size.width) / 2, y: size.height - 4, "font-size": size.font, "text-anchor": "middle" }, "epoch");
      add(image, "text", { transform: `translate(${size.font},${bottom / 2}) rotate(-90)`, "font-size": size.font, "text-anchor": "middle" }, data.monitor);
    }
    return { image, x, y, bottom };
  }

  function drawCurve(parent, entry, size, labels = false) {
    const points = pointsOf(entry);
    const finite = points.filter((point) => isKnown(point[1]));
    const last = points.length ? points[points.length - 1][0] : 1;
    const first = points.length ? Math.min(points[0][0], 1) : 0;
    const across = range([first, Math.max(last, first + 1)], 0.03);
    const values = finite.map((point) => point[1]);
    if (isKnown(entry.v)) values.push(entry.v);
    const { image, x, y, bottom } = frame(parent, size, across, range(values, 0.07), labels);
    for (const [epoch, value] of points) {
      if (!isKnown(value)) add(image, "path", { class: "lost", d: `M${x(epoch)} 8V${bottom}` });
    }
    if (entry.f && finite.length) {
      const steps = Math.round(size.width / 4), start = finite[0][0], end = finite[finite.length - 1][0];
      let line = "";
      for (let i = 0; i <= steps; i++) {
        const epoch = start + ((end - start) * i) / steps;
        line += `${i ? "L" : "M"}${x(epoch).toFixed(1)} ${y(fitted(entry, epoch)).toFixed(1)}`;
      }
      add(image, "path", { class: "fit", d: line });
    }
    const dots = finite.map(([epoch, value]) => `M${x(epoch).toFixed(1)} ${y(value).toFixed(1)}h0`).join("");
    add(image, "path", { class: "dots", d: dots, "stroke-width": size.dots });
    if (isKnown(entry.k) && finite.length) {
      const value = isKnown(entry.v) ? entry.v : entry.f ? fitted(entry, entry.k) : null;
      add(image, "path", { class: "knee", d: `M${x(entry.k)} 8V${bottom}`, "stroke-dasharray": "4 3" });
      if (isKnown(value)) add(image, "circle", { class: "knee", cx: x(entry.k), cy: y(value), r: size.dots * 1.3 });
    }
    if (!points.length) {
      add(image, "text", { x: size.width / 2 + 10, y: size.height / 2, "font-size": size.font + 1, "text-anchor": "middle" }, entry.s === "running" ? "no validation yet" : "not validated");
    }
    return { image, x, y, bottom };
  }

  function sentence(entry) {
    const run = isKnown(entry.n) ? ` after ${epochs(entry.n)} epochs` : "";
    if (entry.s === "running" || entry.s === "interrupted") {
      const until = isKnown(entry.u) ? ` of ${entry.u}` : "";
      const knee = isKnown(entry.k) && !data.isArms ? `, knee at ${epochs(entry.k)} so far` : "";
      const value = isKnown(entry.l) ? `${number(entry.l)} ` : "";
      return `${KINDS[entry.s]}: ${value}at epoch ${epochs(entry.n) || 0}${until}${knee}${entry.t ? `, ${entry.t}` : ""}`;
    }
    if (entry.s === "todo") return "to come";
    const knee = isKnown(entry.v) && !data.isArms ? ` at epoch ${epochs(entry.k)}` : "";
    return `${worthOf(entry)}${knee}${run}${noteOf(entry) && entry.s !== "diverged" ? `, ${noteOf(entry)}` : ""}`;
  }

  const waiting = "IntersectionObserver" in window ? new IntersectionObserver((seen) => {
    for (const each of seen) {
      if (each.isIntersecting) due.add(each.target);
      else due.delete(each.target);
    }
    if (due.size) requestAnimationFrame(fillSome);
  }, { rootMargin: "500px" }) : null;

  // Curves that come into view, a few in every frame: scrolling must not wait for them.
  const due = new Set();

  function fillSome() {
    const end = performance.now() + 6;
    for (const button of due) {
      due.delete(button);
      waiting.unobserve(button);
      fill(button);
      if (performance.now() > end) break;
    }
    if (due.size) requestAnimationFrame(fillSome);
  }

  function fill(button) {
    name(button);
    drawCurve(button, button.entry, SMALL);
    button.isDrawn = true;
  }

  const name = (button) => {
    button.replaceChildren();
    add(button, "span", { class: "unseen" }, `Enlarge the curve of ${titleOf(button.entry)}`);
  };

  function card(entry, at) {
    const box = document.createElement("article");
    add(box, "h3");
    const button = add(box, "button", { type: "button", class: "plot" });
    button.addEventListener("click", () => enlarge(box.entry));
    add(box, "p");
    add(box, "p");
    at.append(box);
    renew(box, entry);
    return box;
  }

  function renew(box, entry) {
    const text = JSON.stringify(entry);
    box.entry = entry;
    if (box.text === text) return;
    const [title, button, state, reason] = box.children;
    box.text = text;
    box.className = `curve ${entry.s}`;
    title.textContent = titleOf(entry);
    state.textContent = sentence(entry);
    reason.textContent = entry.w || "";
    button.entry = entry;
    if (button.isDrawn || !waiting) fill(button);
    else { name(button); waiting.observe(button); }
  }

  const cards = new Map();
  const running = new Map();

  function drawCards(at, known, entries) {
    const wanted = new Set(entries.map(keyOf));
    for (const [key, box] of known) if (!wanted.has(key)) { box.remove(); known.delete(key); }
    let after = null;
    for (const entry of entries) {
      const key = keyOf(entry);
      if (known.has(key)) renew(known.get(key), entry);
      else known.set(key, card(entry, at));
      const box = known.get(key), place = after ? after.nextSibling : at.firstChild;
      if (place !== box) at.insertBefore(box, place);
      after = box;
    }
  }

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
    for (const i of order) {
      const at = arcs[i][2], entry = data.edges[at], curve = curves[i];
      let kind = mode === "graph" ? "" : entry.s;
      if (mode === "path" || mode === "epochs") kind = entry.s === "path" ? "path" : "";
      if (mode === "edges" && kind === "path") kind = "best";
      if (mode === "epochs" && !kind) continue;
      const head = { path: "path", best: "best", running: "running", interrupted: "running", paused: "running" }[kind] || "faint";
      add(layers[0], "path", { class: `arc ${kind}`, d: curve.path, "marker-end": `url(#head-${mode}-${head})`, "data-at": at });
      if (mode !== "graph" && mode !== "path" && isKnown(entry.n) && (!isDense || ["path", "running"].includes(kind))) {
        const text = add(layers[1], "text", { class: `worth ${kind}`, x: curve.middle[0], y: curve.middle[1] - 1, "data-at": at });
        const value = entry.s === "diverged" ? "diverged" : isKnown(entry.v) ? number(entry.v, 3) : isKnown(entry.l) ? number(entry.l, 3) : "…";
        add(text, "tspan", { x: curve.middle[0] }, value);
        const count = entry.s === "running" ? `epoch ${epochs(entry.n)}` : `× ${epochs(entry.k)}`;
        add(text, "tspan", { x: curve.middle[0], dy: 11 }, count);
      }
      if (mode === "all") {
        const touch = add(layers[0], "path", { class: "arc touch", d: curve.path, "data-at": at });
        add(touch, "title", {}, `${titleOf(entry)}: ${sentence(entry)}`);
      }
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
    return { path: `M${point(at(a))}Q${point(through)} ${point(at(b))}`, middle: at((a + b) / 2) };
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

  // The arms of a search with a budget

  function drawArms() {
    const sheet = byId("arms-sheet");
    sheet.replaceChildren();
    const curves = data.edges.map((entry) => pointsOf(entry).filter((point) => isKnown(point[1])).map(([epoch, value]) => [epoch + (entry.a || 0), value]));
    const all = curves.flat();
    if (!all.length) { add(sheet, "p", { class: "key" }, "No validation yet."); return; }
    const values = all.map((point) => point[1]);
    if (isKnown(data.chance)) values.push(data.chance);
    const width = Math.max(sheet.clientWidth - 20, 280);
    const size = { width, height: Math.min(400, Math.max(260, width * 0.42)), font: 11, dots: 3, ticks: 5 };
    const across = range([0, ...all.map((point) => point[0])], 0.02);
    const { image, x, y, bottom } = frame(sheet, size, [Math.max(across[0], 0), across[1]], range(values, 0.05), true);
    image.setAttribute("width", width);
    image.setAttribute("height", size.height);
    image.removeAttribute("aria-hidden");
    image.setAttribute("role", "img");
    image.setAttribute("aria-label", `Curves of ${data.edges.length} arms; the table below has all of them.`);
    for (const rung of data.rungs || []) add(image, "path", { class: "rung", d: `M${x(rung)} 8V${bottom}` });
    if (isKnown(data.chance)) add(image, "path", { class: "chance", d: `M${x(Math.max(across[0], 0))} ${y(data.chance)}H${width - 8}` });
    const classOf = (entry) => ["arm", entry.s === "path" || entry.s === "running" ? entry.s : isOwn(entry) ? "own" : ""].join(" ");
    [...data.edges.keys()].reverse().forEach((i) => {
      if (!curves[i].length) return;
      const line = curves[i].map(([epoch, value], n) => `${n ? "L" : "M"}${x(epoch).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      const path = add(image, "path", { class: classOf(data.edges[i]), d: curves[i].length > 1 ? line : `${line}h4`, "data-at": i });
      add(path, "title", {}, `${data.edges[i].c}: ${sentence(data.edges[i])}`);
    });
    const key = byId("arms-key");
    key.replaceChildren();
    const entries = [["path", "the best arm", data.edges.some((entry) => entry.s === "path")], ["running", "running", data.edges.some((entry) => entry.s === "running")],
      ["ink", "the configuration's own", data.edges.some(isOwn)], ["soft", "others", true]];
    for (const [colour, name, isThere] of entries) {
      if (!isThere) continue;
      const item = add(key, "span");
      add(item, "i", { style: `border-color: var(--${colour})` });
      item.append(name);
    }
    if (isKnown(data.chance)) add(key, "span", {}, `dotted: chance, ${number(data.chance)}`);
  }
  const isOwn = (entry) => (entry.o || "").split(", ").includes("own");

  // The table

  const COLUMNS = [
    { name: "state", of: (entry) => entry.c },
    { name: "from", of: (entry) => entry.p, edges: true },
    { name: "value", of: (entry) => (isKnown(entry.v) ? entry.v : entry.l), text: worthOf, n: true },
    { name: "±", of: (entry) => entry.e, text: (entry) => number(entry.e), n: true },
    { name: "knee", of: (entry) => entry.k, text: (entry) => epochs(entry.k), n: true, edges: true },
    { name: "epochs", of: (entry) => entry.n, text: (entry) => epochs(entry.n), n: true },
    { name: "time", of: (entry) => entry.d, text: (entry) => entry.t || "", n: true },
    { name: "r²", of: (entry) => entry.r, text: (entry) => number(entry.r, 3), n: true, edges: true },
    { name: "what it is", of: (entry) => noteOf(entry), text: noteOf },
  ];
  const columns = () => COLUMNS.filter((column) => !(data.isArms && column.edges));

  function drawHead() {
    const row = document.createElement("tr");
    columns().forEach((column) => {
      const name = data.isArms && column.name === "state" ? "arm" : column.name;
      const head = add(row, "th", { scope: "col", class: column.n ? "n" : null, "aria-sort": "none" });
      head.column = column.name;
      const button = add(head, "button", { type: "button" }, name);
      button.addEventListener("click", () => {
        if (sorting.column !== column.name) sorting = { column: column.name, down: Boolean(column.n) };
        else if (sorting.down === Boolean(column.n)) sorting.down = !sorting.down;
        else sorting = { column: null, down: false };
        applyFilter();
      });
    });
    add(add(row, "th", { scope: "col" }), "span", { class: "unseen" }, "curve");
    byId("rows").tHead.replaceChildren(row);
  }

  const lines = new Map();

  function drawRows() {
    const wanted = new Set(data.edges.map(keyOf));
    for (const [key, row] of lines) if (!wanted.has(key)) { row.remove(); lines.delete(key); }
    for (const entry of data.edges) {
      const key = keyOf(entry), text = JSON.stringify([entry, entry.y ? 0 : 1]);
      let row = lines.get(key);
      if (!row) { row = document.createElement("tr"); lines.set(key, row); }
      row.entry = entry;
      if (row.text === text) continue;
      row.text = text;
      row.className = entry.s;
      row.replaceChildren();
      for (const column of columns()) add(row, "td", { class: column.n ? "n" : null }, String((column.text || column.of)(entry)));
      const cell = add(row, "td");
      if (isKnown(entry.n)) {
        const button = add(cell, "button", { type: "button", "aria-label": `Curve of ${titleOf(entry)}` }, "curve");
        button.addEventListener("click", () => enlarge(row.entry));
      }
    }
  }

  // The filter

  function branchOf(state) { return state.includes("/") ? state.slice(0, state.lastIndexOf("/")) : ""; }

  function fillFilter() {
    const options = (select, names, all) => {
      const before = select.value;
      select.replaceChildren();
      add(select, "option", { value: "" }, all);
      for (const [value, name] of names) add(select, "option", { value }, name);
      select.value = names.some(([value]) => value === before) ? before : "";
    };
    const branches = [...new Set(data.edges.map((entry) => branchOf(entry.c)))].filter(Boolean);
    options(byId("branch"), branches.map((name) => [name, name]), "all");
    byId("branch-label").hidden = data.isArms || branches.length < 2;
    const counts = {};
    for (const entry of data.edges) counts[entry.s] = (counts[entry.s] || 0) + 1;
    const kinds = Object.keys(KINDS).filter((kind) => counts[kind]);
    const nameOf = (kind) => (data.isArms && kind === "path" ? "the best" : KINDS[kind]);
    options(byId("kind"), kinds.map((kind) => [kind, `${nameOf(kind)} (${counts[kind]})`]), "all");
  }

  function applyFilter() {
    const text = byId("find").value.trim().toLowerCase(), branch = byId("branch").value, kind = byId("kind").value;
    const words = text.split(/\s+/).filter(Boolean);
    const isState = data.edges.some((entry) => entry.c.toLowerCase() === text || entry.p.toLowerCase() === text);
    const passes = (entry) => {
      if (branch && branchOf(entry.c) !== branch) return false;
      if (kind && entry.s !== kind) return false;
      const names = [entry.p.toLowerCase(), entry.c.toLowerCase()];
      if (isState) return names.includes(text);
      const title = titleOf(entry).toLowerCase();
      return words.every((word) => title.includes(word));
    };
    shown = data.edges.map((_, i) => i).filter((i) => passes(data.edges[i]));
    const column = COLUMNS.find((each) => each.name === sorting.column);
    if (column) {
      const sign = sorting.down ? -1 : 1;
      shown.sort((a, b) => {
        const [one, other] = [column.of(data.edges[a]), column.of(data.edges[b])];
        if (!isKnown(one) || !isKnown(other)) return Number(!isKnown(one)) - Number(!isKnown(other));
        return typeof one === "number" ? sign * (one - other) : sign * String(one).localeCompare(String(other), undefined, { numeric: true });
      });
    }
    for (const head of byId("rows").tHead.querySelectorAll("th[aria-sort]")) {
      head.setAttribute("aria-sort", head.column !== sorting.column ? "none" : sorting.down ? "descending" : "ascending");
    }
    byId("rows").tBodies[0].replaceChildren(...shown.map((i) => lines.get(keyOf(data.edges[i]))));
    const visible = new Set(shown.map((i) => keyOf(data.edges[i])));
    for (const [key, box] of cards) box.hidden = !visible.has(key);
    const isAll = shown.length === data.edges.length;
    const states = new Set(shown.flatMap((i) => [data.edges[i].p.replace(/#\d+$/, ""), data.edges[i].c]));
    for (const each of document.querySelectorAll("#graph-sheet [data-at], #arms-sheet [data-at]")) {
      each.classList.toggle("away", !isAll && !visible.has(keyOf(data.edges[+each.dataset.at])));
    }
    for (const each of document.querySelectorAll("#graph-sheet [data-state]")) {
      each.classList.toggle("away", !isAll && !states.has(each.dataset.state));
    }
    const what = data.isArms ? "arms" : "edges";
    byId("count").textContent = isAll ? `${shown.length} ${what}` : `${shown.length} of ${data.edges.length} ${what}`;
    keep();
  }

  // One curve, enlarged

  function enlarge(entry) {
    if (!entry) return;
    large = keyOf(entry);
    reading = null;
    renewLarge();
    if (!byId("large").open) byId("large").showModal();
    drawLarge();
    byId("large-plot").focus();
  }

  const largeEntry = () => data.edges.find((entry) => keyOf(entry) === large);

  function renewLarge() {
    const entry = largeEntry();
    if (!entry) return;
    byId("large-title").textContent = titleOf(entry);
    byId("large-plot").setAttribute("aria-label", `${data.monitor} of ${titleOf(entry)}. Arrow keys read its values.`);
    const facts = [
      ["what it is", data.isArms ? noteOf(entry) || KINDS[entry.s] : KINDS[entry.s]],
      [entry.s === "running" ? "last value" : "value", `${worthOf(entry)}${isKnown(entry.e) ? ` ± ${number(entry.e)}` : ""}`],
      ["knee", data.isArms ? "" : epochs(entry.k)],
      ["epochs run", epochs(entry.n)],
      ["pauses after epoch", entry.u],
      ["forked at epoch", entry.a],
      ["time", entry.t],
      ["r² of the fit", number(entry.r, 3)],
      ["error of the fit (RMSE)", number(entry.q)],
      ["setting", data.settings[entry.c], true],
    ];
    const list = byId("large-facts");
    list.replaceChildren();
    for (const [name, value, isWide] of facts) {
      if (!isKnown(value) || value === "") continue;
      const pair = add(list, "div", { class: isWide ? "wide" : null });
      add(pair, "dt", {}, name);
      add(pair, "dd", {}, String(value));
    }
    byId("large-reason").textContent = entry.w || "";
    const body = byId("large-values").tBodies[0];
    body.replaceChildren();
    for (const [epoch, value] of pointsOf(entry)) {
      const row = add(body, "tr");
      add(row, "td", { class: "n" }, epochs(epoch));
      add(row, "td", { class: "n" }, isKnown(value) ? number(value, 6) : "not finite");
      add(row, "td", { class: "n" }, entry.f ? number(fitted(entry, epoch), 6) : "");
    }
  }

  function drawLarge() {
    const entry = largeEntry(), plot = byId("large-plot");
    if (!entry) return;
    plot.replaceChildren();
    plot.className = entry.s;
    const width = Math.max(plot.clientWidth, 240);
    const size = { width, height: Math.min(420, Math.max(220, width * 0.5), innerHeight * 0.55), font: 12, dots: 6, ticks: 6 };
    const drawn = drawCurve(plot, entry, size, true);
    drawn.image.setAttribute("width", width);
    drawn.image.setAttribute("height", size.height);
    const points = pointsOf(entry);
    if (reading !== null && points.length) {
      reading = Math.min(Math.max(reading, 0), points.length - 1);
      const [epoch, value] = points[reading];
      add(drawn.image, "path", { class: "cursor", d: `M${drawn.x(epoch)} 8V${drawn.bottom}` });
      const fit = entry.f ? `, fitted ${number(fitted(entry, epoch))}` : "";
      byId("large-read").textContent = `Epoch ${epochs(epoch)}: ${isKnown(value) ? number(value) : "not finite"}${fit}`;
    } else byId("large-read").textContent = points.length ? "Point at the curve, or press ← and →, to read its values." : "";
    plot.onpointermove = (event) => {
      const left = plot.getBoundingClientRect().left;
      let best = null, distance = Infinity;
      points.forEach(([epoch], i) => {
        const away = Math.abs(drawn.x(epoch) - (event.clientX - left));
        if (away < distance) { distance = away; best = i; }
      });
      if (best !== null && best !== reading) { reading = best; drawLarge(); }
    };
  }

  function step(by) {
    const order = shown.filter((i) => isKnown(data.edges[i].n));
    const at = order.findIndex((i) => keyOf(data.edges[i]) === large);
    if (order.length) enlarge(data.edges[order[(at + by + order.length) % order.length]]);
  }

  // How it stands

  function tellState() {
    const badge = byId("state"), since = Date.now() / 1000 - data.heard;
    const isSilent = data.state === "running" && data.heard && since > data.quiet;
    const words = {
      running: isSilent ? `Nothing heard for ${ago(since)}: it may have been killed` : `Running, last heard ${ago(since)} ago`,
      finished: "Finished", ended: "Ended before it was done; the same command goes on", unknown: "Not finished",
    };
    let text = words[data.state];
    if (lost) text = "No connection to `opplan watch` any more";
    if (badge.textContent !== text) badge.textContent = text;
    badge.className = `state ${isSilent || lost ? "silent" : data.state}`;
    badge.hidden = false;
  }

  function scrollable() {
    const names = new Set();
    for (const sheet of document.querySelectorAll(".sheet")) {
      const isWide = sheet.scrollWidth > sheet.clientWidth + 1 || sheet.scrollHeight > sheet.clientHeight + 1;
      let above = sheet;
      while (above && above.tagName !== "H2") above = above.previousElementSibling;
      let heading = sheet.dataset.name || (above ? above.textContent : "Table");
      while (names.has(heading)) heading += ", continued";
      names.add(heading);
      for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", heading]]) {
        if (isWide) sheet.setAttribute(name, value);
        else sheet.removeAttribute(name);
      }
    }
  }

  function draw() {
    const isEmpty = !data.edges.length;
    byId("filter").hidden = data.edges.length < 2;
    byId("edges").hidden = isEmpty;
    byId("edges-title").textContent = data.isArms ? "All arms" : "Edges";
    const live = data.edges.filter((entry) => entry.s === "running");
    byId("now").hidden = !live.length;
    drawCards(byId("now-curves"), running, live);
    byId("graph").hidden = !data.arcs;
    byId("panels").hidden = !data.arcs || data.arcs.length > 40;
    byId("arms").hidden = !data.isArms;
    byId("figure-section").hidden = !data.arcs && !data.isArms;
    if (data.arcs) renewGraph();
    if (data.isArms) drawArms();
    drawHead();
    drawRows();
    const drawn = data.edges.filter((entry) => isKnown(entry.n));
    byId("curves-section").hidden = !drawn.length;
    drawCards(byId("curves"), cards, drawn);
    fillFilter();
    applyFilter();
    if (byId("large").open) { renewLarge(); drawLarge(); }
    tellState();
    scrollable();
    lastWidth = innerWidth;
  }

  // What outlasts a reload

  const place = `opplan:${location.pathname}`;

  function keep() {
    try {
      const state = { find: byId("find").value, branch: byId("branch").value, kind: byId("kind").value, sorting, zoom };
      sessionStorage.setItem(place, JSON.stringify({ ...state, panels: byId("panels").open, scroll: scrollY }));
    } catch { /* a browser that keeps nothing for files */ }
  }

  function kept() {
    try {
      return JSON.parse(sessionStorage.getItem(place) || "null");
    } catch { return null; }
  }

  function recall(state) {
    if (!state) return;
    byId("find").value = state.find;
    byId("branch").value = state.branch;
    byId("kind").value = state.kind;
    ({ sorting, zoom } = state);
    byId("panels").open = state.panels;
    draw();
    if (data.reload) scrollTo(0, state.scroll);
  }

  // Newer data

  let lost = false;

  const isBusy = () => byId("large").open || String(getSelection()) || Date.now() - typed < 4000 || document.hidden;

  function replaceData(update) {
    const before = data;
    data = { ...update.data, poll: before.poll, version: update.data.version };
    for (const [name, id] of [["summary", "summary"], ["path", "path"], ["figure", "figure"], ["tables", "tables"], ["curves", "curves-head"]]) {
      if (byId(id).innerHTML !== update.sections[name]) byId(id).innerHTML = update.sections[name];
    }
    const done = (edges) => edges.filter((entry) => !["todo", "running", "interrupted"].includes(entry.s)).length;
    if (done(data.edges) !== done(before.edges)) byId("said").textContent = `${done(data.edges)} of ${data.edges.length} edges done`;
    draw();
  }

  async function poll() {
    try {
      const answer = await fetch(`update.json?since=${encodeURIComponent(data.version)}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      if (answer.status === 200) replaceData(await answer.json());
      lost = false;
    } catch { lost = true; }
    tellState();
    setTimeout(poll, lost ? 5000 : document.hidden ? 5000 : 1000 * data.poll);
  }

  byId("graph-sheet").addEventListener("click", onGraph);
  byId("arms-sheet").addEventListener("click", onGraph);
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("input", () => { typed = Date.now(); applyFilter(); });
  byId("panels").addEventListener("toggle", () => { renewPanels(); scrollable(); keep(); });
  byId("smaller").addEventListener("click", () => { zoom = byId("graph-sheet").scale / 1.25; renewGraph(); applyFilter(); scrollable(); });
  byId("larger").addEventListener("click", () => { zoom = byId("graph-sheet").scale * 1.25; renewGraph(); applyFilter(); scrollable(); });
  byId("fit").addEventListener("click", () => { zoom = "whole"; renewGraph(); applyFilter(); scrollable(); });
  byId("close").addEventListener("click", () => byId("large").close());
  byId("large").addEventListener("click", (event) => { if (event.target === byId("large")) byId("large").close(); });
  byId("large").addEventListener("close", () => { large = null; });
  byId("large-details").addEventListener("toggle", scrollable);
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  byId("large-plot").addEventListener("keydown", (event) => {
    const entry = largeEntry(), by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!entry || !by) return;
    event.preventDefault();
    reading = reading === null ? (by > 0 ? 0 : pointsOf(entry).length - 1) : reading + by;
    drawLarge();
  });
  let resizing = 0;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => { if (innerWidth !== lastWidth) { draw(); } }, 150);
  });
  addEventListener("pagehide", keep);

  const before = kept(); // drawing keeps what there is then
  draw();
  recall(before);
  setInterval(tellState, 1000);
  if (data.poll) setTimeout(poll, 1000 * data.poll);
  else if (data.reload) {
    setInterval(() => { if (!isBusy()) { keep(); location.reload(); } }, 1000 * data.reload);
  }
})();
