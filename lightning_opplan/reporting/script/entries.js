// What is drawn, and how an entry of it is written: an edge, or an arm.

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
let pressed = 0; // when a key was pressed last
let lastWidth = 0;

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
  if (isKnown(entry.l)) return number(entry.l);
  return isKnown(entry.n) && ["running", "interrupted", "paused"].includes(entry.s) ? "…" : "";
}

function noteOf(entry) {
  if (data.isArms && entry.o) return entry.o;
  return entry.s === "other" ? "" : KINDS[entry.s];
}
