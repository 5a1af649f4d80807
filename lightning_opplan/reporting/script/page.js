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

// A reload loses the focus: not while somebody goes about the page by keyboard.
const isBusy = () => (document.activeElement !== document.body && Date.now() - pressed < 30000) || byId("large").open || String(getSelection()) || Date.now() - typed < 4000 || document.hidden;

function replaceData(update) {
  const before = data;
  data = { ...update.data, poll: before.poll, version: update.data.version };
  for (const [name, id] of [["summary", "summary"], ["path", "path"], ["figure", "figure"], ["tables", "tables"], ["curves", "curves-head"]]) {
    if (byId(id).innerHTML !== update.sections[name]) byId(id).innerHTML = update.sections[name];
  }
  const done = (edges) => edges.filter((entry) => !["todo", "running", "interrupted", "paused"].includes(entry.s)).length;
  const what = data.isArms ? "arms" : "edges";
  if (done(data.edges) !== done(before.edges)) byId("said").textContent = `${done(data.edges)} of ${data.edges.length} ${what} done`;
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
addEventListener("keydown", () => { pressed = Date.now(); });
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
