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
