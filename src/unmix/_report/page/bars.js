// Bars for observations without coordinates: those on the page of the table that is open.

const bars = { plot: null, rows: [] };
const PALE = "#dcdbd5";

async function drawBars() {
  state.view = [...(await Bokeh.embed.embed_item(state.page.bars, "canvas"))][0];
  const doc = Bokeh.documents.at(-1);
  Object.assign(bars, { plot: doc.get_model_by_name("bars"), pieces: doc.get_model_by_name("pieces"), errors: doc.get_model_by_name("errors") });
  const row = (event) => bars.rows[Math.floor(event.y)] ?? -1; // the first factor lies between 0 and 1
  doc.on_event("mousemove", (_, event) => pointAt(row(event), event));
  doc.on_event("mouseleave", () => pointAt(-1));
  doc.on_event("tap", (_, event) => choose(row(event), false));
}

// Names of factors must differ; those of observations need not.
const factorOf = (i) => (state.names.indexOf(state.names[i]) === i ? state.names[i] : `${state.names[i]} (${i + 1})`);

function colourBars(rows) {
  bars.rows = [...rows].reverse(); // the first row of the table stands at the top
  byId("canvas").style.height = `${Math.max(26 * rows.length + 50, 140)}px`;
  bars.plot.y_range.factors = bars.rows.map(factorOf);
  const { colour, result } = state;
  const stacked = result.composition && isFirst() && colour.kind !== "column";
  const pieces = stacked ? stackedPieces() : singlePieces();
  const span = extremes([...pieces.left, ...pieces.right]);
  bars.plot.x_range.setv({ start: Math.min(0, span[0]), end: stacked ? Math.max(1, span[1]) : span[1] * 1.02 || 1 });
  bars.pieces.data = pieces;
  bars.errors.data = errorLines();
}

// Every part of the rows shown, or one of them first and the others pale.
function stackedPieces() {
  const { colour, result } = state;
  const { table } = shownQuantity();
  const picked = colour.kind === "part" ? colour.index : -1;
  const order = result.parts.map((_, k) => k).sort((a, b) => (b === picked) - (a === picked) || a - b);
  const pieces = { y: [], left: [], right: [], colour: [], alpha: [] };
  for (const i of bars.rows) {
    let end = 0;
    for (const k of order) {
      const value = table.at(i, k);
      if (!(value > 0)) continue;
      push(pieces, i, end, end + value, picked < 0 || k === picked ? result.colours[k] : PALE);
      end += value;
    }
  }
  return pieces;
}

function singlePieces() {
  const { values, palette, low, high, kind } = colouring();
  const pieces = { y: [], left: [], right: [], colour: [], alpha: [] };
  for (const i of bars.rows) {
    if (Number.isNaN(values[i])) continue;
    const at = Math.min(Math.floor(((values[i] - low) / (high - low)) * palette.length), palette.length - 1);
    push(pieces, i, 0, kind === "categories" ? 1 : values[i], palette[at]);
  }
  return pieces;
}

function push(pieces, i, left, right, colour) {
  pieces.y.push(factorOf(i));
  pieces.left.push(Math.min(left, right));
  pieces.right.push(Math.max(left, right));
  pieces.colour.push(colour);
  pieces.alpha.push(state.chosen < 0 || state.chosen === i ? 1 : 0.55);
}

function errorLines() {
  const { colour, result } = state;
  const lines = { y: [], low: [], high: [] };
  if (colour.kind !== "part" || !isFirst() || !result.errors) return lines;
  for (const i of bars.rows) {
    const value = shownQuantity().table.at(i, colour.index), se = result.errors.at(i, colour.index);
    if (!(se > 0)) continue;
    lines.y.push(factorOf(i));
    lines.low.push(result.signed ? value - se : Math.max(value - se, 0));
    lines.high.push(value + se);
  }
  return lines;
}
