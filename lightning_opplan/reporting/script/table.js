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
  const drawn = [...byId("rows").tHead.querySelectorAll("th[aria-sort]")].map((head) => head.column);
  if (String(drawn) === String(columns().map((column) => column.name))) return; // or its focus would be lost
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
    const key = keyOf(entry), text = JSON.stringify(entry);
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
    const text = JSON.stringify(names);
    if (select.text === text) return;
    select.text = text;
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
    const names = [entry.p.replace(/#\d+$/, "").toLowerCase(), entry.c.replace(/#\d+$/, "").toLowerCase()];
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
