// Bringing the page to life.

async function show(packed) {
  const result = await openResult(packed);
  state.result = result;
  state.quantity = 0;
  state.shared = byId("shared").checked = false;
  state.colour = { kind: state.result.largest ? "largest" : "part", index: 0 };
  for (const button of byId("results").children) button.setAttribute("aria-pressed", String(button.value === String(state.page.results.indexOf(packed))));
  byId("explorer-title").textContent = `${state.result.title} (${state.result.unit})`;
  byId("quantity").replaceChildren(...state.result.quantities.map((q, k) => make("option", { value: k }, q.name)));
  byId("quantity-row").hidden = state.result.quantities.length < 2;
  drawFindings();
  drawMade();
  drawMainTable();
  drawChoices();
  recolour();
  await drawCurves();
  if (state.result === result) await drawTables();
}

function recolour() {
  const shown = colouring();
  byId("shared-row").hidden = state.colour.kind !== "part" || state.result.parts.length < 2;
  if (state.place) colourMap(shown);
  else mainTable.update();
  drawLegend(shown);
  document.querySelector(`input[value="${state.colour.kind}:${state.colour.index}"]`).checked = true;
  drawPanel();
}

function colourBy(colour) {
  state.colour = colour;
  recolour();
}

function showQuantity(k) {
  state.quantity = k;
  if (k > 0 && state.colour.kind === "largest") state.colour = { kind: "part", index: 0 };
  drawMainTable();
  drawChoices();
  recolour();
}

let waiting = null;

// Pointing is answered once per frame, by the last place pointed at.
function pointAt(i, event = null) {
  const idle = waiting === null;
  waiting = { i, event };
  if (idle) requestAnimationFrame(() => {
    const now = waiting;
    waiting = null;
    const other = now.i !== state.pointed;
    state.pointed = now.i;
    if (other && state.place) ring("pointed", now.i);
    if (other) drawPanel();
    drawTip(now.i, now.event);
  });
}

function choose(i, fromTable = false, event = null) {
  state.chosen = i;
  state.pointed = -1;
  if (state.place) {
    ring("chosen", i);
    ring("pointed", -1);
    if (i >= 0) bringIntoView(i);
  }
  if (i >= 0 && !fromTable) mainTable.reveal(i);
  else mainTable.update();
  drawPanel();
  drawTip(i, event);
  byId("live").textContent = i < 0 ? "" : summary(i);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onKey(event) {
  const arrow = ARROWS[event.key];
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape") choose(-1);
  else if (!state.place && arrow) chooseBar(arrow[1] || arrow[0]);
  else if (!state.place) return;
  else if (arrow && event.shiftKey) pan(...arrow);
  else if (arrow) choose(state.chosen < 0 ? middleSpot() : neighbour(state.chosen, ...arrow));
  else if (event.key === "Enter" || event.key === " ") choose(middleSpot());
  else if (event.key === "+" || event.key === "=") zoom(1.4);
  else if (event.key === "-") zoom(1 / 1.4);
  else if (event.key === "0" || event.key === "Home") showAll();
  else return;
  event.preventDefault();
}

function chooseBar(step) {
  const at = mainTable.rows.indexOf(state.chosen);
  choose(mainTable.rows[Math.min(Math.max(at + step, 0), mainTable.rows.length - 1)] ?? -1);
}

// The drawing as it stands, with the legend's title in the name of the file.
function savePicture() {
  const { canvas } = state.view.export("png");
  canvas.toBlob((blob) => downloadBlob(`${state.result.key}_${colouring().title}.png`, blob));
}

function wire() {
  byId("quantity").addEventListener("change", (event) => showQuantity(Number(event.target.value)));
  byId("shared").addEventListener("change", (event) => { state.shared = event.target.checked; recolour(); });
  byId("canvas").addEventListener("keydown", onKey);
  byId("closer").addEventListener("click", () => zoom(1.4));
  byId("farther").addEventListener("click", () => zoom(1 / 1.4));
  byId("whole").addEventListener("click", showAll);
  byId("picture").addEventListener("click", savePicture);
  byId("image").addEventListener("change", (event) => { map.picture.visible = event.target.checked; });
  byId("size").addEventListener("input", (event) => sizeSpots(Number(event.target.value)));
  byId("opacity").addEventListener("input", (event) => { map.discs.glyph.fill_alpha = { value: Number(event.target.value) }; });
}

function describe() {
  const { page } = state;
  const what = state.place?.basis === "spatial" ? "spots" : "observations";
  byId("about").textContent = `${page.n_obs.toLocaleString("en")} ${what}, ${page.n_vars.toLocaleString("en")} genes`;
  byId("footer").textContent = `Made by unmix ${page.version} on ${page.written}. Everything on this page is in this one file.`;
  const canvas = byId("canvas");
  const sections = (state.place?.labels ?? []).map((label) => label.name);
  const among = sections.length ? `, in sections: ${sections.join(", ")}` : "";
  canvas.setAttribute("aria-label", state.place ? `Map of all ${what}${among}` : "Bars of the observations in the open page of the table");
  const [hands, keys] = state.place
    ? ["Drag to move, scroll or pinch to zoom.", " Keys: arrows go from spot to spot, Shift and arrows move, + and − zoom, 0 shows everything, Escape lets go."]
    : ["These are the rows of the table below, in its order: sort, filter and turn the page there.", " Keys: arrows go from bar to bar, Escape lets go."];
  byId("keys").append(hands, make("span", { class: "keyboard" }, keys));
  byId("choices-title").textContent = state.place ? "Colour the tissue by" : "Colour the bars by";
  if (state.place && state.place.basis !== "spatial") byId("choices-title").textContent = `Colour the map (${state.place.basis}) by`;
  byId("image-row").hidden = !state.place?.images.length;
  byId("look").hidden = !state.place;
  byId("size-row").hidden = byId("opacity-row").hidden = byId("zooms").hidden = !state.place;
  document.body.classList.toggle("bars", !state.place);
}

function drawResults() {
  const nav = byId("results");
  const { results } = state.page;
  results.forEach((result, k) => {
    const press = { type: "button", value: k, "aria-pressed": "false", click: () => show(result) };
    nav.append(make("button", press, result.title, make("small", {}, result.key)));
  });
  nav.hidden = results.length < 2;
}

async function start() {
  if (typeof DecompressionStream === "undefined") throw new Error("This browser is too old for this page; one of 2023 or later opens it.");
  state.page = JSON.parse(byId("data").textContent);
  state.names = await unpackTexts(state.page.names);
  state.place = state.page.place;
  window.addEventListener("resize", () => state.place && shapeCanvas());
  Bokeh.set_log_level("warn");
  describe();
  drawResults();
  if (state.place) await drawMap();
  else await drawBars();
  wire();
  await show(state.page.results[0]);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

start().catch((problem) => {
  byId("trouble").textContent = `This page could not be drawn: ${problem.message}`;
  byId("trouble").hidden = false;
  throw problem;
});
