// What is shown, and what follows from it: colours, values, texts.

const state = {
  page: null, // the whole page's data
  names: [],
  place: null,
  result: null,
  quantity: 0,
  colour: { kind: "largest", index: 0 },
  shared: false,
  chosen: -1,
  pointed: -1,
};

async function openResult(packed) {
  if (packed.open) return packed.open;
  const quantities = [];
  for (const q of packed.quantities) quantities.push({ name: q.name, table: await unpackNumbers(q.values) });
  const columns = await Promise.all([...state.page.extra, ...packed.columns].map(unpackColumn));
  packed.open = { ...packed, quantities, columns, errors: quantities.find((q) => q.name === "standard error")?.table };
  packed.open.largest = largestParts(packed.open);
  return packed.open;
}

function largestParts({ composition, quantities }) {
  const { table } = quantities[0];
  if (!composition) return null;
  const found = new Float32Array(table.rows);
  for (let i = 0; i < table.rows; i++) {
    let best = -1;
    for (let k = 0; k < table.columns; k++) if (best < 0 ? table.at(i, k) >= 0 : table.at(i, k) > table.at(i, best)) best = k;
    found[i] = best < 0 ? NaN : best;
  }
  return found;
}

function extremes(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return low <= high ? [low, high] : [0, 1];
}

function meanOf(values) {
  let sum = 0, n = 0;
  for (const v of values) if (!Number.isNaN(v)) { sum += v; n++; }
  return n ? sum / n : NaN;
}

const shownQuantity = () => state.result.quantities[state.quantity];
const isFirst = () => state.quantity === 0;

// The values that the tissue is coloured by: numbers on a scale, or codes of categories.
function colouring() {
  const { result, colour } = state;
  if (colour.kind === "largest") return categories(result.largest, result.parts, result.colours, state.place ? `Largest ${result.part}` : `All ${result.part}s: ${result.unit}`);
  if (colour.kind === "column") return columnColouring(result.columns[colour.index]);
  const { name, table } = shownQuantity();
  const values = table.column(colour.index);
  const all = state.shared ? Array.from({ length: table.columns }, (_, k) => extremes(table.column(k))) : [extremes(values)];
  const low = Math.min(...all.map((e) => e[0])), high = Math.max(...all.map((e) => e[1]));
  const what = isFirst() ? result.unit : name;
  const title = result.parts[colour.index].startsWith(what) ? result.parts[colour.index] : `${result.parts[colour.index]}: ${what}`;
  if (result.signed && isFirst()) {
    const most = Math.max(-low, high) || 1;
    return { kind: "scale", values, low: -most, high: most, palette: state.page.palettes.diverging, title };
  }
  return { kind: "scale", values, low: Math.min(low, 0), high: high > 0 ? high : 1, palette: state.page.palettes.sequential, title };
}

function columnColouring(column) {
  if (column.kind === "category") {
    return categories(Float32Array.from(column.numbers, (c) => (c < 0 ? NaN : c)), column.names, column.colours, column.name);
  }
  const [least, high] = extremes(column.numbers);
  const low = least >= 0 && least < 0.5 * high ? 0 : least;
  const palette = state.page.palettes.sequential;
  return { kind: "scale", values: column.numbers, low, high: high > low ? high : low + 1, palette, title: column.name };
}

function categories(values, names, colours, title) {
  return { kind: "categories", values, low: -0.5, high: names.length - 0.5, palette: colours, names, title };
}

// One value with its error, as text.
function told(i, k) {
  const { result } = state;
  const value = readable(shownQuantity().table.at(i, k));
  const error = result.errors && isFirst() ? result.errors.at(i, k) : NaN;
  return value === "–" || Number.isNaN(error) || (value === "0" && error === 0) ? value : `${value} ± ${readable(error)}`;
}

function summary(i) {
  const { result, names } = state;
  const order = partsInOrder(i).slice(0, 3).map((k) => `${result.parts[k]} ${told(i, k)}`);
  return `${names[i]}: ${order.length ? order.join(", ") : "not fitted"}`;
}

// The parts of an observation that are not zero, largest first.
function partsInOrder(i) {
  const { table } = shownQuantity();
  const size = (k) => Math.abs(table.at(i, k));
  return state.result.parts.map((_, k) => k).filter((k) => size(k) > 0).sort((a, b) => size(b) - size(a));
}
