"use strict";
// The page works without this script: it adds search, order, pages and a viewer of single maps.
(() => {
  const table = document.querySelector("#summary-table table");
  const viewer = document.querySelector("#viewer");
  if (!table || !viewer) return;
  const data = JSON.parse(document.querySelector("#maps-data").textContent);
  const rows = [...table.tBodies[0].rows];
  const PAGE = 50;
  const state = { page: 0, order: null, down: true, chosen: 0, cell: 0, map: 0 };
  const make = (name, properties, parent) => {
    const element = Object.assign(document.createElement(name), properties);
    if (parent) parent.append(element);
    return element;
  };
  const labelled = (text, control, parent) => {
    const label = make("label", {}, parent);
    label.append(text + " ", control);
    return control;
  };

  // the table: search, filter, order, pages
  const bar = make("div", { className: "bar" });
  table.closest(".scroll").before(bar);
  const search = labelled("Search", make("input", { type: "search", id: "search" }), bar);
  const filter = labelled("Show", make("select", { id: "filter" }), bar);
  for (const [value, text] of [["", "all outputs"], ["defined", "with a correlation"],
    ["significant", "whose interval excludes 0"], ["flagged", "flagged"]]) make("option", { value, text }, filter);
  const pager = make("span", { className: "pager" }, bar);
  const before = make("button", { type: "button", textContent: "Previous", id: "previous" }, pager);
  const said = make("span", { id: "shown" }, pager);
  said.setAttribute("role", "status");
  const after = make("button", { type: "button", textContent: "Next", id: "next" }, pager);
  const numeric = (row, column) => {
    const value = parseFloat(row.cells[column].textContent.replace(/,/g, ""));
    return Number.isNaN(value) ? null : value;
  };
  const compare = (one, two) => {
    const [a, b] = [numeric(one, state.order), numeric(two, state.order)];
    if (a === null || b === null) {
      if (a !== null) return -1;  // what has no number is last in both orders
      if (b !== null) return 1;
      const texts = [one, two].map((row) => row.cells[state.order].textContent);
      return texts[0].localeCompare(texts[1]) * (state.down ? -1 : 1);
    }
    return state.down ? b - a : a - b;
  };
  const passes = (row) => {
    const kind = filter.value;
    const kept = kind === "" || (kind === "flagged" ? row.classList.contains("flagged") : row.dataset[kind] === "1");
    return kept && row.cells[0].textContent.toLowerCase().includes(search.value.toLowerCase());
  };
  const list = () => {
    const found = rows.filter(passes);
    if (state.order !== null) found.sort(compare);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    table.tBodies[0].replaceChildren(...found.slice(state.page * PAGE, (state.page + 1) * PAGE));
    said.textContent = ` ${found.length} of ${rows.length} outputs, page ${state.page + 1} of ${pages} `;
    before.disabled = state.page === 0;
    after.disabled = state.page === pages - 1;
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = make("button", { type: "button", textContent: head.textContent, className: "sort" });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      state.down = state.order === column ? !state.down : column > 0;
      state.order = column;
      state.page = 0;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      list();
    });
  });
  for (const control of [search, filter]) control.addEventListener("input", () => { state.page = 0; list(); });
  before.addEventListener("click", () => { state.page -= 1; list(); });
  after.addEventListener("click", () => { state.page += 1; list(); });
  // printed whole
  window.addEventListener("beforeprint", () => table.tBodies[0].replaceChildren(...rows));
  window.addEventListener("afterprint", list);
  list();
  if (!data.maps.length) return;

  // the viewer: one map of one output
  viewer.hidden = false;
  const tools = viewer.querySelector(".bar");
  const output = labelled("Output", make("select", { id: "output" }), tools);
  data.outputs.forEach((text, value) => make("option", { value, text }, output));
  const map = labelled("Map", make("select", { id: "map" }), tools);
  data.maps.forEach((each, value) => make("option", { value, text: each.title }, map));
  map.parentElement.hidden = data.maps.length === 1;
  const shows = labelled("Show", make("select", { id: "shows" }), tools);
  for (const [value, text] of [["value", "the map"], ["width", "half of its 95 % interval"]]) make("option", { value, text }, shows);
  const scale = labelled("Scale", make("select", { id: "scale" }), tools);
  for (const [value, text] of [["own", "of this output"], ["all", "one for all"]]) make("option", { value, text }, scale);
  const clip = labelled("ends at", make("select", { id: "clip" }), tools);
  for (const [value, text] of [["1", "the largest"], ["0.99", "99th percentile"], ["0.95", "95th percentile"]])
    make("option", { value, text }, clip);
  const smooth = labelled("Smooth", make("input", { type: "checkbox", id: "smooth" }), tools);
  const patches = labelled("Patches", make("select", { id: "patches" }), tools);
  for (const [value, text] of [["1", "none"], ["2", "2 x 2"], ["4", "4 x 4"], ["8", "8 x 8"]]) make("option", { value, text }, patches);
  const sure = labelled("Pale where the interval holds 0", make("input", { type: "checkbox", id: "sure" }), tools);
  const outlined = labelled("Outline what differs from 0 (FDR 5 %)", make("input", { type: "checkbox", id: "outline", checked: true }), tools);
  const canvas = viewer.querySelector("canvas");
  const legend = make("p", { id: "legend" });
  canvas.before(legend);
  const told = viewer.querySelector("#told");
  const bytes = (text) => {
    const binary = atob(text);
    const found = new Int8Array(binary.length);
    for (let k = 0; k < binary.length; k++) found[k] = binary.charCodeAt(k);
    return found;
  };
  for (const each of data.maps) {
    each.values = bytes(each.values);
    each.errors = each.errors && bytes(each.errors);
    each.sure = each.sure && bytes(each.sure);
    each.size = each.shape.reduce((a, b) => a * b, 1);
  }
  const number = (value) => (value === 0 ? "0" : value.toPrecision(3).replace(/e\+?(-?)/, "e$1"));
  const at = (bytesOf, most, k, cell, size) =>
    bytesOf[k * size + cell] === -128 ? NaN : (bytesOf[k * size + cell] / 127) * most[k];
  const valuesOf = (each, k) => Float64Array.from({ length: each.size }, (_, c) => at(each.values, each.most, k, c, each.size));
  const widthsOf = (each, k) =>
    each.errors && Float64Array.from({ length: each.size }, (_, c) => at(each.errors, each.widest, k, c, each.size));
  const smoothed = (values, height, width) => values.map((value, c) => {
    if (Number.isNaN(value)) return value;
    const [row, column] = [Math.floor(c / width), c % width];
    let [sum, count] = [0, 0];
    for (let r = Math.max(0, row - 1); r <= Math.min(height - 1, row + 1); r++)
      for (let q = Math.max(0, column - 1); q <= Math.min(width - 1, column + 1); q++) {
        const near = values[r * width + q];
        if (!Number.isNaN(near)) { sum += near; count += 1; }
      }
    return sum / count;
  });
  // each cell has the sum of its patch
  const summed = (values, height, width, side) => {
    const across = Math.ceil(width / side);
    const place = (c) => Math.floor(Math.floor(c / width) / side) * across + Math.floor((c % width) / side);
    const sums = new Float64Array(Math.ceil(height / side) * across);
    values.forEach((value, c) => { if (!Number.isNaN(value)) sums[place(c)] += value; });
    return values.map((value, c) => sums[place(c)]);
  };
  const limitOf = (values, part) => {
    const sizes = [...values].filter((v) => !Number.isNaN(v)).map(Math.abs).sort((a, b) => a - b);
    return (sizes.length && sizes[Math.ceil(part * sizes.length) - 1]) || sizes[sizes.length - 1] || 1;
  };
  const ENDS = { up: [178, 24, 43], down: [33, 102, 172], one: [153, 52, 4] };
  const colour = (share, signed) => {
    const end = signed ? (share < 0 ? ENDS.down : ENDS.up) : ENDS.one;
    const part = Math.min(1, Math.abs(share));
    return end.map((c) => Math.round(255 + (c - 255) * part));
  };
  const shape = (each) => (each.shape.length === 2 ? each.shape : [1, each.shape[0]]);
  const draw = () => {
    const each = data.maps[state.map];
    const [height, width] = shape(each);
    const drawn = state.chosen < each.count;
    canvas.hidden = legend.hidden = !drawn;
    if (!drawn) {
      told.textContent = `The page holds the maps of the first ${each.count} outputs: igc-dist report STORE --outputs "${data.outputs[state.chosen]}" draws this one.`;
      return;
    }
    state.cell = Math.min(state.cell, each.size - 1);
    const values = valuesOf(each, state.chosen);
    const widths = widthsOf(each, state.chosen);
    const flat = each.shape.length === 2;
    shows.parentElement.hidden = !widths;
    const wide_map = Boolean(widths) && shows.value === "width";
    const most = wide_map ? each.widest : each.most;
    const signed = each.signed && !wide_map;
    for (const control of [smooth, patches]) control.parentElement.hidden = !flat;
    outlined.parentElement.hidden = !flat || !each.sure;
    const side_of_patch = flat ? Number(patches.value) : 1;
    const source = wide_map ? widths : values;
    const near = smooth.checked && flat ? smoothed(source, height, width) : source;
    const shown = side_of_patch > 1 ? summed(near, height, width, side_of_patch) : near;
    const part = Number(clip.value);
    const limit = scale.value === "all" && side_of_patch === 1 ? Math.max(...most.slice(0, each.count)) * part || 1 : limitOf(shown, part);
    const bars = each.shape.length === 1;
    const side = bars ? Math.max(4, Math.min(40, Math.floor(900 / width))) : Math.max(4, Math.min(48, Math.floor(480 / Math.max(height, width))));
    canvas.width = width * side;
    canvas.height = bars ? 240 : height * side;
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    shown.forEach((value, c) => {
      const [row, column] = [Math.floor(c / width), c % width];
      const pale = sure.checked && widths && !(Math.abs(values[c]) > widths[c]);
      const share = value / limit;
      pen.globalAlpha = pale ? 0.25 : 1;
      pen.fillStyle = Number.isNaN(value) ? "#d0d0d0" : `rgb(${colour(bars ? Math.sign(share) : share, signed).join(",")})`;
      if (!bars) pen.fillRect(column * side, row * side, side, side);
      else if (Number.isNaN(value)) pen.fillRect(column * side, 0, side - 1, 240);
      else {
        const [zero, room] = signed ? [120, 116] : [236, 232];
        const length = Math.max(-1, Math.min(1, share)) * room;
        pen.fillRect(column * side, Math.min(zero, zero - length), side - 1, Math.abs(length));
        if (widths && !wide_map && !Number.isNaN(widths[c])) {
          const half = (widths[c] / limit) * room;
          pen.fillStyle = "#111";
          pen.fillRect(column * side + Math.floor(side / 2) - 1, zero - length - half, 1, 2 * half);
        }
      }
    });
    pen.globalAlpha = 1;
    if (flat && each.sure && outlined.checked && side_of_patch === 1) {
      const chosen = (r, q) => {
        if (r < 0 || q < 0 || r >= height || q >= width) return false;
        const bit = state.chosen * each.size + r * width + q;
        return (each.sure[bit >> 3] >> (7 - (bit & 7))) & 1;
      };
      pen.fillStyle = "#111";
      for (let r = 0; r <= height; r++) for (let q = 0; q <= width; q++) {
        if (q < width && chosen(r, q) != chosen(r - 1, q)) pen.fillRect(q * side, r * side - (r > 0), side, 1);
        if (r < height && chosen(r, q) != chosen(r, q - 1)) pen.fillRect(q * side - (q > 0), r * side, 1, side);
      }
    }
    const [row, column] = [Math.floor(state.cell / width), state.cell % width];
    pen.strokeStyle = "#000";
    pen.lineWidth = 2;
    pen.strokeRect(column * side + 1, bars ? 1 : row * side + 1, side - 2, bars ? 238 : side - 2);
    const value = values[state.cell];
    const whole = each.patch * side_of_patch;
    const size = whole > 1 ? `, ${side_of_patch > 1 ? `in a patch of ${whole} x ${whole} whose sum is ${number(shown[state.cell])}` : `sum of ${whole} x ${whole}`}` : "";
    const name = each.features[state.cell] || (bars ? `feature ${state.cell}` : `row ${row * each.patch}, column ${column * each.patch}`);
    const wide = widths && !Number.isNaN(widths[state.cell])
      ? ` (95 %: ${number(value - widths[state.cell])} to ${number(value + widths[state.cell])})` : "";
    told.textContent = `${data.outputs[state.chosen]}, ${name}${size}: ${Number.isNaN(value) ? "undefined" : number(value) + wide}. Scale: ${signed ? "-" + number(limit) + " (blue) to " : "0 to "}${number(limit)}${signed ? " (red)" : ""}.`;
    const ramp = bars ? "to" : make("span", { className: `ramp ${signed ? "signed" : "plain"}` });
    legend.replaceChildren(`${bars ? "Axis from " : ""}${signed ? "-" + number(limit) : "0"} `, ramp,
      ` ${number(limit)} (${wide_map ? "half of the 95 % interval of " : ""}${each.unit})`);
    canvas.setAttribute("aria-label", `${each.title} of ${data.outputs[state.chosen]}: arrow keys read its cells`);
  };
  const choose = (place) => {
    state.chosen = place;
    output.value = String(place);
    const each = data.maps[state.map];
    if (place < each.count) {  // the largest cell is read first
      const sizes = valuesOf(each, place).map((value) => (Number.isNaN(value) ? -1 : Math.abs(value)));
      state.cell = sizes.indexOf(Math.max(...sizes));
    }
    for (const row of rows) row.classList.toggle("chosen", Number(row.dataset.place) === place);
    draw();
  };
  for (const row of rows) {
    const head = row.cells[0];
    const button = make("button", { type: "button", textContent: head.textContent, className: "choose" });
    button.setAttribute("aria-label", `${head.textContent}: show its map`);
    head.replaceChildren(button);
    button.addEventListener("click", () => { choose(Number(row.dataset.place)); viewer.scrollIntoView({ block: "nearest" }); });
  }
  output.addEventListener("input", () => choose(Number(output.value)));
  map.addEventListener("input", () => { state.map = Number(map.value); choose(state.chosen); });
  for (const control of [shows, scale, clip, smooth, patches, sure, outlined]) control.addEventListener("input", draw);
  const point = (event) => {
    const each = data.maps[state.map];
    const [height, width] = shape(each);
    const box = canvas.getBoundingClientRect();
    const inside = (share, count) => Math.max(0, Math.min(count - 1, Math.floor(share * count)));
    state.cell = inside((event.clientY - box.top) / box.height, height) * width + inside((event.clientX - box.left) / box.width, width);
    draw();
  };
  canvas.addEventListener("mousemove", point);
  canvas.addEventListener("keydown", (event) => {
    const each = data.maps[state.map];
    const width = shape(each)[1];
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    if (state.cell + step >= 0 && state.cell + step < each.size) state.cell += step;
    draw();
  });
  choose(0);
})();
