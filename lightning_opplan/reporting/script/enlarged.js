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
