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
  return `${worthOf(entry) || "trained"}${knee}${run}${noteOf(entry) && entry.s !== "diverged" ? `, ${noteOf(entry)}` : ""}`;
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
