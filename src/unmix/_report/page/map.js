// The map: spots of the tissue's own size, ranges of equal scale, the spot next to the pointer.

const map = { plot: null, x: null, y: null, radius: 1 };

async function drawMap() {
  const { map: item, place } = state.page;
  const xy = await unpackNumbers(place.xy);
  map.x = xy.column(0);
  map.y = xy.column(1);
  shapeCanvas();
  if (!hasGraphicsCard()) item.doc.roots[0].attributes.output_backend = "canvas";
  state.view = [...(await Bokeh.embed.embed_item(item, "canvas"))][0];
  const doc = Bokeh.documents.at(-1);
  const model = (name) => doc.get_model_by_name(name);
  Object.assign(map, {
    plot: model("map"), spots: model("spots"), discs: model("discs"), colours: model("colours"),
    rings: { pointed: model("pointed"), chosen: model("chosen") }, picture: model("picture"),
  });
  const column = (list, name) => list.map((item) => item[name]);
  model("images").data = {
    uri: column(place.images, "uri"), x: column(place.images, "x"), y: column(place.images, "y"),
    w: column(place.images, "width"), h: column(place.images, "height"),
  };
  model("labels").data = { x: column(place.labels, "x"), y: column(place.labels, "y"), name: column(place.labels, "name") };
  map.spots.data = { x: map.x, y: map.y, value: new Float32Array(map.x.length) };
  sizeSpots(1);
  for (const side of ["inner_width", "inner_height"]) map.plot.properties[side].change.connect(keepShape);
  showAll();
  doc.on_event("mousemove", (_, event) => onPointer(event, pointAt));
  doc.on_event("mouseleave", () => pointAt(-1));
  doc.on_event("tap", (_, event) => onPointer(event, (i) => choose(i, false, event)));
}

// WebGL that is computed by the processor is slower than drawing without it. "#webgl" in the address insists on it.
function hasGraphicsCard() {
  const gl = document.createElement("canvas").getContext("webgl");
  if (!gl) return false;
  const known = gl.getExtension("WEBGL_debug_renderer_info");
  const by = gl.getParameter(known ? known.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  return location.hash === "#webgl" || !/swiftshader|llvmpipe|software|basic render/i.test(by);
}

// What the spots take up with a margin, and the names of sections above them.
function bounds() {
  const { diameter, labels } = state.page.place;
  const [left, right] = extremes(map.x);
  const [top, bottom] = extremes([...extremes(map.y), ...labels.flatMap(({ y, height }) => [y - height / 2, y + height / 2])]);
  return { left: left - diameter, right: right + diameter, top: top - diameter, bottom: bottom + diameter };
}

// As high as the tissue asks for, within reason.
function shapeCanvas() {
  const canvas = byId("canvas");
  const { left, right, top, bottom } = bounds();
  const wanted = (canvas.clientWidth * (bottom - top)) / (right - left);
  canvas.style.height = `${Math.round(Math.min(Math.max(wanted, 280), Math.max(0.72 * window.innerHeight, 380)))}px`;
}

function sizeSpots(factor) {
  map.radius = (factor * state.page.place.diameter) / 2;
  const side = { value: 2 * map.radius };
  if (map.discs.glyph.type === "Rect") map.discs.glyph.setv({ width: side, height: side });
  else map.discs.glyph.radius = { value: map.radius };
  const names = ["pointed halo", "pointed ring", "chosen halo", "chosen ring"];
  for (const name of names) map.plot.document.get_model_by_name(name).glyph.radius = { value: map.radius };
}

function colourMap({ values, low, high, palette }) {
  // Places stay as they are: only colours are computed anew, once.
  map.spots.setv({ data: { ...map.spots.data, value: values } }, { silent: true });
  map.colours.setv({ palette, low, high }, { silent: true });
  map.colours.change.emit();
}

const frame = () => ({ width: Math.max(map.plot.inner_width, 1), height: Math.max(map.plot.inner_height, 1) });

// Show what lies around (x, y) at so many units of the tissue per pixel.
function look(x, y, scale) {
  const { width, height } = frame();
  const down = state.page.place.down ? -1 : 1;
  map.plot.x_range.setv({ start: x - (scale * width) / 2, end: x + (scale * width) / 2 });
  map.plot.y_range.setv({ start: y - (down * scale * height) / 2, end: y + (down * scale * height) / 2 });
}

function looking() {
  const { x_range, y_range } = map.plot;
  return {
    x: (x_range.start + x_range.end) / 2,
    y: (y_range.start + y_range.end) / 2,
    scale: Math.abs(x_range.end - x_range.start) / (map.width || frame().width),
  };
}

function showAll() {
  const { left, right, top, bottom } = bounds();
  const { width, height } = frame();
  map.width = width;
  look((left + right) / 2, (top + bottom) / 2, Math.max((right - left) / width, (bottom - top) / height));
  map.whole = sides();
}

const sides = () => [map.plot.x_range.start, map.plot.x_range.end, map.plot.y_range.start, map.plot.y_range.end].join();

// A window of another shape shows the same middle at the same scale, or everything if it did before.
function keepShape() {
  if (map.whole === sides()) return showAll();
  const { x, y, scale } = looking();
  map.width = frame().width;
  look(x, y, scale);
}

function zoom(factor) {
  const { x, y, scale } = looking();
  look(x, y, scale / factor);
}

function pan(across, down) {
  const { x, y, scale } = looking();
  const { width, height } = frame();
  look(x + 0.2 * across * width * scale, y + 0.2 * down * height * scale * (state.page.place.down ? 1 : -1), scale);
}

function onPointer(event, then) {
  const { scale } = looking();
  then(nearest(event.x, event.y, Math.max(map.radius, 6 * scale)), event);
}

function nearest(x, y, reach) {
  let best = -1, least = reach * reach;
  for (let i = 0; i < map.x.length; i++) {
    const dx = map.x[i] - x, dy = map.y[i] - y, d = dx * dx + dy * dy;
    if (d <= least) { least = d; best = i; }
  }
  return best;
}

// The spot that an arrow key leads to: ahead, and rather straight on.
function neighbour(from, across, down) {
  const sign = state.page.place.down ? 1 : -1;
  let best = -1, least = Infinity;
  for (let i = 0; i < map.x.length; i++) {
    const dx = map.x[i] - map.x[from], dy = sign * (map.y[i] - map.y[from]);
    const ahead = dx * across + dy * down, aside = Math.abs(dx * down) + Math.abs(dy * across);
    if (ahead > 0 && ahead >= aside && ahead + 2 * aside < least) { least = ahead + 2 * aside; best = i; }
  }
  return best < 0 ? from : best;
}

function middleSpot() {
  const { x, y } = looking();
  return nearest(x, y, Infinity);
}

function ring(name, i) {
  map.rings[name].data = i < 0 ? { x: [], y: [] } : { x: [map.x[i]], y: [map.y[i]] };
}

function bringIntoView(i) {
  const { x, y, scale } = looking();
  const { width, height } = frame();
  const outside = Math.abs(map.x[i] - x) > 0.48 * width * scale || Math.abs(map.y[i] - y) > 0.48 * height * scale;
  if (outside) look(map.x[i], map.y[i], scale);
}
