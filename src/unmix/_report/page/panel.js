// What is known of the observation that is pointed at or chosen; legend; choices.

function drawPanel() {
  const panel = byId("panel");
  const i = state.pointed >= 0 ? state.pointed : state.chosen;
  panel.replaceChildren();
  if (i < 0) return drawMeans(panel);
  const { result } = state;
  const head = make("div", { class: "panel-head" }, make("h3", {}, state.names[i]));
  if (i === state.chosen) head.append(make("button", { type: "button", class: "quiet-button", click: () => choose(-1) }, "Let go"));
  panel.append(head, make("p", { class: "hint" }, isFirst() ? unitText() : shownQuantity().name));
  const order = partsInOrder(i);
  const list = make("ol", { class: "parts" });
  const most = Math.max(...result.parts.map((_, k) => reach(i, k)), result.composition && isFirst() ? 1 : 0) || 1;
  for (const k of order) list.append(partRow(i, k, most));
  if (!order.length) list.append(make("li", { class: "hint" }, "not fitted"));
  const zero = result.parts.length - order.length;
  if (order.length && zero) list.append(make("li", { class: "hint" }, zero === 1 ? "1 other is 0" : `${zero} others are 0`));
  panel.append(list, diagnostics(i));
}

// While nothing is pointed at: what the whole tissue is made of.
function drawMeans(panel) {
  const { result } = state;
  const { table } = shownQuantity();
  panel.append(make("h3", {}, "All together"), make("p", { class: "hint" }, `${result.signed && isFirst() ? "" : "Means. "}Point at a ${state.place ? "spot" : "bar"}, or tap it, to see what it is made of.`));
  if (result.signed && isFirst()) return;
  const means = result.parts.map((_, k) => meanOf(table.column(k)));
  const most = Math.max(...means.filter((m) => !Number.isNaN(m)), 0) || 1;
  const order = means.map((_, k) => k).filter((k) => means[k] > 0).sort((a, b) => means[b] - means[a]);
  const row = (k) => {
    const track = make("span", { class: "track" }, make("span", { class: "fill", style: { left: "0", width: `${(100 * means[k]) / most}%`, background: result.colours[k] } }));
    return make("li", {}, make("span", { class: "name" }, result.parts[k]), make("span", { class: "number" }, readable(means[k])), track);
  };
  panel.append(make("ol", { class: "parts" }, ...order.map(row)));
}

const unitText = () => (state.result.errors ? `${state.result.unit} ± standard error` : state.result.unit);
const reach = (i, k) => Math.abs(shownQuantity().table.at(i, k)) + (isFirst() && state.result.errors ? state.result.errors.at(i, k) || 0 : 0);

function partRow(i, k, most) {
  const { result } = state;
  const value = shownQuantity().table.at(i, k);
  const signed = result.signed && isFirst();
  const scale = (signed ? 50 : 100) / most, zero = signed ? 50 : 0;
  const track = make("span", { class: "track" });
  const left = zero + Math.min(value, 0) * scale;
  track.append(make("span", { class: "fill", style: { left: `${left}%`, width: `${Math.abs(value) * scale}%`, background: result.colours[k] } }));
  const se = isFirst() && result.errors ? result.errors.at(i, k) : 0;
  if (se > 0) {
    const low = signed ? value - se : Math.max(value - se, 0);
    track.append(make("span", { class: "whisker", style: { left: `${zero + low * scale}%`, width: `${(value + se - low) * scale}%` } }));
  }
  return make("li", { "data-part": result.parts[k] }, make("span", { class: "name" }, result.parts[k]), make("span", { class: "number" }, told(i, k)), track);
}

function diagnostics(i) {
  const list = make("dl", { class: "pairs" });
  for (const column of state.result.columns) {
    const value = column.value(i);
    list.append(make("dt", {}, column.name), make("dd", {}, columnText(value)));
  }
  return list;
}

function drawTip(i, event) {
  const tip = byId("tip");
  tip.hidden = i < 0 || !event;
  if (tip.hidden) return;
  const { colour, result } = state;
  const under = isStacked() ? partAt(i, event.x) : -1;
  const part = under >= 0 ? under : colour.kind === "part" ? colour.index : result.largest?.[i];
  const text = colour.kind === "column" ? `${result.columns[colour.index].name}: ${columnText(result.columns[colour.index].value(i))}`
    : Number.isNaN(part) ? "not fitted" : `${result.parts[part]}: ${told(i, part)}`;
  tip.replaceChildren(make("b", {}, state.names[i]), make("span", {}, text));
  const width = byId("canvas").clientWidth;
  tip.style.left = `${Math.min(event.sx + 14, Math.max(width - tip.offsetWidth - 4, 0))}px`;
  tip.style.top = `${event.sy > 60 ? event.sy - tip.offsetHeight - 10 : event.sy + 16}px`;
}

const columnText = (value) => (typeof value === "number" ? readable(value) : value ?? "–");

const MOST_KEYS = 40;

function drawLegend(shown) {
  const legend = byId("legend");
  legend.replaceChildren(make("p", { class: "legend-title" }, shown.title));
  let missing = 0;
  for (const v of shown.values) if (Number.isNaN(v)) missing++;
  if (isStacked()) {
    const { parts, colours } = state.result;
    const picked = state.colour.kind === "part" ? state.colour.index : -1;
    const keys = parts.map((name, k) => (picked < 0 || k === picked ? swatch(colours[k], name) : null)).filter(Boolean);
    if (picked >= 0) keys.push(swatch(PALE, "all others"));
    legend.append(make("ul", { class: "keys" }, ...keys));
  } else if (shown.kind === "scale") {
    const stops = Array.from({ length: 21 }, (_, s) => shown.palette[Math.round((s / 20) * (shown.palette.length - 1))]);
    const middle = (shown.low + shown.high) / 2;
    legend.append(
      make("div", { class: "ramp", style: { background: `linear-gradient(to right, ${stops.join(",")})` } }),
      make("div", { class: "ticks" }, ...[shown.low, middle, shown.high].map((v) => make("span", {}, readable(v)))),
    );
  } else {
    const count = shown.names.map(() => 0);
    for (const v of shown.values) if (!Number.isNaN(v)) count[v]++;
    const list = make("ul", { class: "keys" });
    const present = shown.names.map((_, k) => k).filter((k) => count[k]);
    for (const k of present.slice(0, MOST_KEYS)) list.append(swatch(shown.palette[k], `${shown.names[k]} (${readable(count[k])})`));
    if (present.length > MOST_KEYS) list.append(make("li", {}, `and ${present.length - MOST_KEYS} more`));
    legend.append(list);
  }
  if (missing) legend.append(make("ul", { class: "keys" }, swatch(state.page.missing, `no value (${readable(missing)})`)));
}

const swatch = (colour, text) => make("li", {}, make("span", { class: "swatch", style: { background: colour } }), text);

function drawChoices() {
  const { result } = state;
  const list = byId("choices");
  list.replaceChildren();
  if (result.largest && isFirst()) list.append(choice({ kind: "largest", index: 0 }, state.place ? `Largest ${result.part}` : `All ${result.part}s`));
  result.parts.forEach((name, k) => list.append(choice({ kind: "part", index: k }, name)));
  if (result.columns.length) list.append(make("p", { class: "group" }, "Of every observation"));
  result.columns.forEach((column, k) => list.append(choice({ kind: "column", index: k }, column.name)));
}

function choice(colour, name) {
  const input = make("input", { type: "radio", name: "colour", value: `${colour.kind}:${colour.index}`, change: () => colourBy(colour) });
  const label = make("label", { class: "choice" }, input);
  if (colour.kind === "part") label.append(make("span", { class: "swatch", style: { background: state.result.colours[colour.index] } }));
  label.append(make("span", { class: "name" }, name));
  return label;
}
