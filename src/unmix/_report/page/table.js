// Tables of any length: one page of rows at a time, sorted, filtered, saved whole as CSV.

// `columns` have a name, a kind and `value(i)`; `open(i)` is called for a row, `paged(rows)` when other rows are shown.
class PagedTable {
  constructor(target, { columns, n, size, label, open, paged, csv, actions = [] }) {
    Object.assign(this, { target, columns, n, size, open, paged, csv, label, actions, page: 0, sorted: null, text: "", condition: null });
    this.rows = Array.from({ length: n }, (_, i) => i);
    this.draw();
  }

  draw() {
    this.body = make("tbody");
    this.head = make("tr");
    this.status = make("span", { class: "status", role: "status" });
    const table = make("table", {}, make("caption", { class: "hidden" }, this.label), make("thead", {}, this.head), this.body);
    this.target.replaceChildren(this.tools(), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": this.label }, table), this.pager());
    this.update();
  }

  tools() {
    const row = make("div", { class: "tools" });
    if (this.n > this.size || this.open) {
      const find = (event) => { this.text = event.target.value.toLowerCase(); this.filter(); };
      row.append(make("label", {}, "Find ", make("input", { type: "search", class: "find", input: find })));
    }
    if (this.open) row.append(this.conditionRow());
    for (const [name, act] of this.actions) row.append(make("button", { type: "button", click: act }, name));
    return row;
  }

  conditionRow() {
    const numeric = this.columns.map((c, k) => [c, k]).filter(([c]) => c.kind === "number");
    const column = make("select", { class: "where", "aria-label": "Only where" }, make("option", { value: "" }, "all rows"));
    for (const [c, k] of numeric) column.append(make("option", { value: k }, c.name));
    const sign = make("select", { class: "sign", "aria-label": "Comparison" }, ...["≥", "≤", "missing"].map((s) => make("option", {}, s)));
    const limit = make("input", { type: "number", step: "any", class: "limit", "aria-label": "Limit", value: "0.1" });
    const change = () => {
      sign.hidden = column.value === "";
      limit.hidden = column.value === "" || sign.value === "missing";
      this.condition = column.value === "" ? null : { column: this.columns[column.value], sign: sign.value, limit: Number(limit.value) };
      this.filter();
    };
    for (const input of [column, sign, limit]) input.addEventListener("input", change);
    sign.hidden = limit.hidden = true;
    return make("span", { class: "condition" }, "Only where ", column, sign, limit);
  }

  pager() {
    const go = (to) => () => { this.page = to(this.page); this.update(); };
    const last = () => Math.max(Math.ceil(this.rows.length / this.size) - 1, 0);
    this.buttons = [["First", () => 0], ["Previous", (p) => p - 1], ["Next", (p) => p + 1], ["Last", last]].map(
      ([name, to]) => make("button", { type: "button", class: name.toLowerCase(), click: go(to) }, name));
    return make("div", { class: "pager" }, ...this.buttons.slice(0, 2), this.status, ...this.buttons.slice(2));
  }

  filter() {
    const { text, condition } = this;
    const texts = this.columns.filter((c) => c.kind !== "number");
    const found = (i) => texts.some((c) => (c.value(i) ?? "").toLowerCase().includes(text));
    const holds = (i) => {
      const value = condition.column.value(i);
      if (condition.sign === "missing") return Number.isNaN(value);
      return condition.sign === "≥" ? value >= condition.limit : value <= condition.limit;
    };
    this.rows = [];
    for (let i = 0; i < this.n; i++) if ((!text || found(i)) && (!condition || holds(i))) this.rows.push(i);
    this.sort();
  }

  sortBy(k) {
    const numeric = this.columns[k].kind === "number";
    const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const now = this.sorted?.k === k ? order.indexOf(this.sorted.order) : -1;
    this.sorted = now === 1 ? null : { k, order: order[now + 1] };
    this.sort();
    this.head.children[k].querySelector("button").focus();
  }

  sort() {
    this.rows.sort((a, b) => a - b);
    if (this.sorted) {
      const { value, kind } = this.columns[this.sorted.k];
      const sign = this.sorted.order === "ascending" ? 1 : -1;
      const keys = new Map(this.rows.map((i) => [i, value(i)]));
      const missing = (v) => v === null || Number.isNaN(v);
      const compare = kind === "number" ? (a, b) => a - b : new Intl.Collator("en", { numeric: true }).compare;
      this.rows.sort((i, j) => {
        const a = keys.get(i), b = keys.get(j);
        return missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a, b)) || i - j;
      });
    }
    this.page = 0;
    this.update();
  }

  update() {
    const pages = Math.max(Math.ceil(this.rows.length / this.size), 1);
    const first = this.page * this.size;
    const shown = this.rows.slice(first, first + this.size);
    this.head.replaceChildren(...this.columns.map((c, k) => this.headCell(c, k)));
    this.body.replaceChildren(...shown.map((i) => this.row(i)));
    const range = shown.length ? `${first + 1}–${first + shown.length}` : "0";
    this.status.textContent = `${range} of ${this.rows.length.toLocaleString("en")}`;
    this.buttons.forEach((button, b) => { button.disabled = b < 2 ? this.page === 0 : this.page >= pages - 1; });
    this.buttons[0].parentElement.hidden = pages === 1 && this.rows.length === this.n && !this.open;
    this.paged?.(shown);
  }

  headCell(column, k) {
    const order = this.sorted?.k === k ? this.sorted.order : "none";
    const arrow = { ascending: " ▲", descending: " ▼", none: "" }[order];
    const button = make("button", { type: "button", click: () => this.sortBy(k) }, column.name, make("span", { "aria-hidden": "true" }, arrow));
    return make("th", { scope: "col", "aria-sort": order, class: column.kind }, button);
  }

  row(i) {
    const cells = this.columns.map((column, k) => {
      const value = column.value(i);
      const text = column.kind === "number" ? readable(value) : value ?? "–";
      if (k === 0 && this.open) return make("th", { scope: "row" }, make("button", { type: "button", click: () => this.open(i) }, text));
      return make("td", { class: column.kind === "number" && value === 0 ? "number zero" : column.kind }, text);
    });
    return make("tr", { class: i === state.chosen && this.open ? "chosen" : "" }, ...cells);
  }

  // Go to the page of a row; rows that a filter leaves out stay out.
  reveal(i) {
    const at = this.rows.indexOf(i);
    if (at >= 0) this.page = Math.floor(at / this.size);
    this.update();
  }

  saveCsv(name) {
    const text = (value, c) => (c.kind === "number" ? exact(value, false) : quoted(value ?? ""));
    download(name, csvOf(this.columns.map((c) => c.name), this.n, (i) => this.columns.map((c) => text(c.value(i), c))));
  }
}

let mainTable = null;

function drawMainTable() {
  const { result, names } = state;
  const shown = shownQuantity();
  const columns = [
    { name: "name", kind: "text", value: (i) => names[i] },
    ...result.parts.map((name, k) => ({ name, kind: "number", value: (i) => shown.table.at(i, k) })),
    ...result.columns,
  ];
  const actions = [[`Save ${shown.name}s as CSV`, () => saveQuantity(shown)]];
  if (result.columns.length) actions.push(["Save the other columns as CSV", () => saveColumns()]);
  mainTable = new PagedTable(byId("table"), {
    columns, n: names.length, size: 25, label: `${result.title}: ${shown.name}`, actions,
    open: (i) => choose(i, true),
    paged: (rows) => { if (!state.place && bars.plot) colourBars(rows); },
  });
}

// The table as it is in the AnnData: all rows, every digit.
function saveQuantity({ name, table }) {
  const { result, names } = state;
  const row = (i) => [quoted(names[i]), ...result.parts.map((_, k) => exact(table.at(i, k), table.single))];
  download(`${result.key}_${name}.csv`, csvOf(["", ...result.parts], names.length, row));
}

function saveColumns() {
  const { result, names } = state;
  const text = (value) => (typeof value === "number" ? exact(value, false) : quoted(value ?? ""));
  const row = (i) => [quoted(names[i]), ...result.columns.map((c) => text(c.value(i)))];
  download(`${result.key}_columns.csv`, csvOf(["", ...result.columns.map((c) => c.name)], names.length, row));
}
