// Bars for observations without coordinates: those on the page of the table that is open.

const bars = { plot: null, rows: [] };
const PALE = "#dcdbd5";

async function drawBars() {
  state.view = [...(await Bokeh.embed.embed_item(state.page.bars, "canvas"))][0];
  const doc = Bokeh.documents.at(-1);
  Object.assign(bars, { plot: doc.get_model_by_name("bars"), pieces: doc.get_model_by_name("pieces"), errors: doc.get_model_by_name("errors"), axis: doc.get_model_by_name("amounts") });
  const row = (event) => bars.rows[Math.floor(event.y)] ?? -1; // the first factor lies between 0 and 1
  doc.on_event("mousemove", (_, event) => pointAt(row(event), event));
  doc.on_event("mouseleave", () => pointAt(-1));
  doc.on_event("tap", (_, event) => choose(row(event), false, event));
}

// Names of factors must differ; those of observations need not.
const factorOf = (i) => (state.names.indexOf(state.names[i]) === i ? state.names[i] : `${state.names[i]} (${i + 1})`);

function colourBars(rows) {
  bars.rows = [...rows].reverse(); // the first row of the table stands at the top
  byId("canvas").style.height = `${Math.max(26 * rows.length + 50, 140)}px`;
  bars.plot.y_range.factors = bars.rows.map(factorOf);
  const stacked = isStacked();
  const pieces = stacked ? stackedPieces() : singlePieces();
  const span = extremes([...pieces.left, ...pieces.right]);
  bars.plot.x_range.setv({ start: Math.min(0, span[0]), end: stacked ? Math.max(1, span[1]) : span[1] * 1.02 || 1 });
  bars.axis.axis_label = state.colour.kind === "column" ? "" : isFirst() ? state.result.unit : shownQuantity().name;
  bars.pieces.data = pieces;
  bars.errors.data = errorLines();
}

// Whether the bars are whole compositions.
const isStacked = () => !state.place && state.result.composition && isFirst() && state.colour.kind !== "column";

// Every part of the rows shown, or one of them first and the others together and pale.
function stackedPieces() {
  const { colour, result } = state;
  const { table } = shownQuantity();
  const picked = colour.kind === "part" ? colour.index : -1;
  const pieces = { y: [], left: [], right: [], colour: [], alpha: [], part: [] };
  for (const i of bars.rows) {
    let end = 0;
    const add = (value, colour, k) => {
      if (!(value > 0)) return;
      push(pieces, i, end, end + value, colour);
      pieces.part.push(k);
      end += value;
    };
    if (picked < 0) result.parts.forEach((_, k) => add(table.at(i, k), result.colours[k], k));
    else {
      const whole = result.parts.reduce((sum, _, k) => sum + (table.at(i, k) || 0), 0);
      add(table.at(i, picked), result.colours[picked], picked);
      add(whole - (table.at(i, picked) || 0), PALE, -1);
    }
  }
  return pieces;
}

// The part that a place in the bars belongs to, where bars are compositions.
function partAt(i, x) {
  const { y, left, right, part } = bars.pieces.data;
  const at = part ? y.findIndex((name, p) => name === factorOf(i) && left[p] <= x && x < right[p]) : -1;
  return at < 0 ? -1 : part[at];
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
