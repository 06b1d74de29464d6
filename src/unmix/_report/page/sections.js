// What belongs to a result besides the map and the table: findings, curves, tables of genes, parameters.

function drawFindings() {
  const items = state.result.findings.map(({ level, text }) => {
    const warning = level === "warning";
    const mark = make("span", { class: "mark", "aria-hidden": "true" }, warning ? "!" : "i");
    return make("li", { class: level }, mark, make("span", {}, warning ? make("b", {}, "Take care: ") : "", text));
  });
  byId("findings").replaceChildren(...items);
  byId("findings").parentElement.hidden = !items.length;
}

async function drawCurves() {
  const target = byId("curves");
  target.replaceChildren();
  const { result } = state;
  let number = 0;
  for (const { title, note, figure } of result.curves) {
    if (state.result !== result) return; // another one was asked for meanwhile
    const id = `curve-${result.key}-${number++}`;
    target.append(make("figure", {}, make("figcaption", {}, make("h3", {}, title), make("p", { class: "hint" }, note)), make("div", { id })));
    await Bokeh.embed.embed_item(structuredClone(figure), id);
  }
}

async function drawTables() {
  const target = byId("tables");
  target.replaceChildren();
  const { result } = state;
  for (const { title, note, opened, columns } of result.tables) {
    const unpacked = await Promise.all(columns.map(unpackColumn));
    if (state.result !== result) return;
    const n = unpacked.length ? unpacked[0].numbers.length : 0;
    const body = make("div");
    const box = make("details", { open: opened }, make("summary", {}, make("h3", {}, title)), make("p", { class: "hint" }, note), body);
    target.append(box);
    const table = new PagedTable(body, {
      columns: unpacked, n, size: n <= 30 ? 30 : 10, label: title,
      actions: [["Save as CSV", () => table.saveCsv(`${result.key}_${title}.csv`)]],
    });
  }
  byId("evidence").hidden = !state.result.tables.length && !state.result.curves.length;
}

function drawMade() {
  const { key, tool, facts, parameters } = state.result;
  const box = (title, pairs) => {
    const list = make("dl", { class: "pairs" });
    for (const [name, value] of pairs) list.append(make("dt", {}, name), make("dd", {}, value));
    return make("div", {}, make("h3", {}, title), list);
  };
  const asked = parameters.filter(([name]) => name !== "tool");
  const boxes = [box(`Parameters of tl.${tool}, stored as “${key}”`, asked)];
  if (facts.length) boxes.unshift(box("What the tool chose or measured", facts));
  byId("made").replaceChildren(...boxes);
}
