// The data of the page: unpacking, numbers as text, CSV.

const ARRAYS = { f4: Float32Array, f8: Float64Array, i4: Int32Array };

async function inflate(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function unpackTexts(packed) {
  return JSON.parse(new TextDecoder().decode(await inflate(packed.gzip)));
}

// An array of one or two dimensions; the values of a column lie together.
async function unpackNumbers(packed) {
  const values = new ARRAYS[packed.type](await inflate(packed.gzip));
  const [rows, columns = 1] = packed.shape;
  return {
    rows,
    columns,
    single: packed.type === "f4",
    column: (k) => values.subarray(k * rows, (k + 1) * rows),
    at: (i, k) => values[k * rows + i],
  };
}

// A column of a table: `value(i)` is a number (NaN where missing) or a text (null where missing).
async function unpackColumn(packed) {
  const numbers = (await unpackNumbers(packed.values)).column(0);
  if (packed.kind === "number") return { name: packed.name, kind: "number", numbers, value: (i) => numbers[i] };
  const { names, colours } = packed;
  return { name: packed.name, kind: "category", names, colours, numbers, value: (i) => (numbers[i] < 0 ? null : names[numbers[i]]) };
}

// Numbers as a reader wants them: three digits behind the point, or three digits in all.
function readable(value) {
  if (value === null || Number.isNaN(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e5 || size < 5e-4) return value.toExponential(1);
  return size >= 100 ? value.toFixed(1) : value.toFixed(3);
}

// Numbers as they are: the shortest text that gives the same number back.
function exact(value, single) {
  if (Number.isNaN(value)) return "";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (!single) return String(value);
  for (let digits = 6; digits < 9; digits++) {
    const text = String(Number(value.toPrecision(digits)));
    if (Math.fround(Number(text)) === value) return text;
  }
  return String(Number(value.toPrecision(9)));
}

function quoted(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csvOf(header, n, row) {
  const lines = [header.map(quoted).join(",")];
  for (let i = 0; i < n; i++) lines.push(row(i).join(","));
  return lines.join("\n") + "\n";
}

const download = (name, text) => downloadBlob(name, new Blob([text], { type: "text/csv" }));

function downloadBlob(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const byId = (id) => document.getElementById(id);

// An element with attributes, and children that are elements or texts: never markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(element.style, value);
    else if (typeof value === "function") element.addEventListener(name, value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
