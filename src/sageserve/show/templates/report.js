// The report's behaviour: draw a figure when it comes near, pick the view that fits the selection, one zoom for all time axes, themes,
// tables and CSV made from what is drawn. Data are in script elements beside each figure; nothing is loaded.
"use strict";
(() => {
  const EPOCH = Date.UTC(2001, 0, 1); // day 1: only hours since the start are known, so dates are never shown
  const MINUTE = 60000;
  const ALL = "all models";
  const ROWS_SHOWN = 500;
  const PRINTED = 660; // pixels of a figure on paper: A4 between margins of 12 mm has 703, Letter more
  const THEMES = {
    light: {
      ink: "#1a1d24", muted: "#555d6b", grid: "#e3e6eb", bg: "#ffffff",
      c: ["#0072b2", "#c24e00", "#00805c", "#a8457f", "#3d8fc4", "#a87200", "#6b7280", "#3b3f8f"],
      k: ["#c24e00", "#0072b2", "#00805c", "#b9bfca", "#a8457f", "#d9a400", "#6db6e3", "#eceef2", "#3b3f46"],
    },
    dark: {
      ink: "#e8ebf0", muted: "#a7b0be", grid: "#2a303a", bg: "#171b22",
      c: ["#56b4e9", "#f28e4b", "#2dc79b", "#e08cbe", "#8aa9d6", "#f0c74a", "#9aa4b2", "#a9a6ff"],
      k: ["#f28e4b", "#56b4e9", "#2dc79b", "#5c6675", "#e08cbe", "#f0c74a", "#2f7fb0", "#262c36", "#d7dce3"],
    },
  };
  const root = document.documentElement;
  const settingsText = document.getElementById("settings");
  const settings = settingsText ? JSON.parse(settingsText.textContent) : { minutes: 0 };
  const whole = [EPOCH, EPOCH + settings.minutes * MINUTE];
  const state = { keys: {}, range: [...whole], printing: false };
  const figures = [];

  // ---------------------------------------------------------------------------------------------- colours and times
  const theme = () => THEMES[root.dataset.theme];

  function colour(name) {
    const [key, alpha] = name.slice(1).split("/");
    const found = /^[ck]\d+$/.test(key) ? theme()[key[0]][+key.slice(1)] : theme()[key];
    return alpha ? found + alpha : found;
  }

  function coloured(value) {
    if (typeof value === "string") return /^@[a-z]+\d*(\/[0-9a-f]{2})?$/.test(value) ? colour(value) : value;
    if (Array.isArray(value)) return value.length && typeof value[value.length - 1] === "number" ? value : value.map(coloured);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]));
    return value;
  }

  const instant = (minutes) => EPOCH + minutes * MINUTE;
  const iso = (ms) => new Date(ms).toISOString().slice(0, 23).replace("T", " ");
  const parsed = (value) => (typeof value === "number" ? value : Date.parse(String(value).replace(" ", "T") + "Z"));

  function said(ms) {
    const minutes = Math.floor((ms - EPOCH) / MINUTE + 1e-6);
    const two = (n) => String(n).padStart(2, "0");
    return `day ${Math.floor(minutes / 1440) + 1} ${two(Math.floor((minutes % 1440) / 60))}:${two(minutes % 60)}`;
  }

  const lengthOf = (trace) => (trace.type === "heatmap" ? (trace.z[0] || []).length : trace.y.length);

  function times(trace) {
    if (trace.xm) return trace.xm.map(instant);
    const [start, step] = trace.xt;
    return Array.from({ length: lengthOf(trace) }, (_, i) => instant(start + i * step));
  }

  // ---------------------------------------------------------------------------------------------- drawing
  function traceOf(raw, closest) {
    const { xt, xm, col, key, ...trace } = coloured(raw);
    if (xt || xm) trace.x = times(raw).map((ms) => new Date(ms).toISOString().slice(0, 19));
    if (raw.xt && trace.type === "scatter" && !trace.hovertemplate && trace.name) {
      const when = closest ? "%{x|day %-j %H:%M}: " : "";
      trace.hovertemplate = `${when}%{y:,.4~g}<extra>${trace.name}</extra>`;
    }
    if (trace.colorbar && isNarrow()) {
      Object.assign(trace.colorbar, { orientation: "h", x: 0.5, y: 1, yanchor: "bottom", len: 1, title: { text: "" } });
    }
    return trace;
  }

  const isNarrow = () => !state.printing && window.innerWidth < 700;

  function layoutOf(figure, view) {
    const { ink, muted, grid, bg } = theme();
    const narrow = isNarrow();
    const own = coloured(view.layout);
    const heat = view.data.find((trace) => trace.type === "heatmap");
    if (heat && narrow) { // names over two or three lines, and rows high enough for them
      const lines = heat.y[0].split("/").length;
      Object.assign(own.yaxis, { tickvals: heat.y, ticktext: heat.y.map((name) => name.replaceAll("/", "/<br>")), tickfont: { size: 9 } });
      own.height = 150 + heat.y.length * (12 * lines + 8);
    }
    const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickcolor: grid, automargin: true };
    const legend = {
      orientation: "h", x: 0, xanchor: "left", y: 1, yref: "container", yanchor: "top", font: { size: narrow ? 10 : 12 },
    };
    const layout = {
      autosize: true, height: 320, paper_bgcolor: bg, plot_bgcolor: bg, hovermode: narrow ? "closest" : "x unified",
      hoversubplots: "axis", dragmode: narrow || !figure.timed ? false : "zoom",
      font: { color: ink, size: narrow ? 11 : 12, family: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif" },
      margin: { l: 8, r: 8, t: 12, b: 8, autoexpand: true },
      hoverlabel: { bgcolor: bg, bordercolor: muted, font: { color: ink, size: 12 }, align: "left", namelength: -1 },
      ...own,
    };
    layout.legend = { ...legend, ...own.legend };
    for (const key of Object.keys(own).concat(["xaxis", "yaxis"])) {
      if (!/^[xy]axis\d*$/.test(key)) continue;
      layout[key] = { ...axis, ...own[key] };
      if (key[0] === "y") layout[key].fixedrange = true;
      if (layout[key].title) layout[key].title = { standoff: 6, font: { color: muted, size: 11 }, ...layout[key].title };
    }
    if (state.printing) Object.assign(layout, { autosize: false, width: PRINTED });
    if (figure.timed) layout.xaxis = { ...layout.xaxis, ...timeAxis() };
    else layout.xaxis = { ...layout.xaxis, fixedrange: true };
    return layout;
  }

  function timeAxis() {
    return {
      type: "date", range: state.range.map(iso), hoverformat: "day %-j %H:%M", showspikes: true, spikethickness: 1, spikedash: "dot",
      spikecolor: theme().muted, nticks: isNarrow() ? 5 : 12,
      tickformatstops: [
        { dtickrange: [86400000, null], value: "day %-j" },
        { dtickrange: [null, 86400000], value: "%H:%M\nday %-j" },
      ],
    };
  }

  function pick(figure) {
    const fits = (view, keys) => Object.entries(view.keys).every(([key, value]) => !(key in keys) || keys[key] === value);
    const wanted = { ...state.keys, ...figure.own };
    const found = figure.views.find((view) => fits(view, wanted));
    if (found) return found;
    if (wanted.model === ALL) { // this figure shows one model at a time
      delete wanted.model;
      return figure.views.find((view) => fits(view, wanted));
    }
    return undefined;
  }

  function load(view) {
    if (!view.content) view.content = JSON.parse(view.element.textContent);
    return view.content;
  }

  let arrives;

  function library() { // the script is long: it is read when the first figure is needed, after the first screen is there
    arrives ||= new Promise((resolve) => {
      requestAnimationFrame(() => setTimeout(() => resolve(libraryNow())));
    });
    return arrives;
  }

  function libraryNow() {
    if (window.Plotly) return;
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }

  async function draw(figure) {
    figure.drawn = true;
    if (!begun(figure)) return;
    await library();
    await finished(figure);
  }

  function begun(figure) { // what does not need the library; whether there is anything to draw
    const chosen = pick(figure);
    figure.section.hidden = figure.entry.hidden = !chosen;
    if (!chosen) return false;
    const moved = chosen.keys.model !== undefined || !state.keys.model || state.keys.model === ALL;
    const names = Object.values(chosen.keys);
    figure.shown.textContent = (moved ? names : [...names, "all models, whichever is chosen"]).join(" · ");
    figure.section.classList.toggle("unmoved", !moved);
    return true;
  }

  async function finished(figure) { // synchronous but for what the library does after it has drawn
    const chosen = pick(figure);
    if (!chosen) return;
    const view = load(chosen);
    figure.plot.setAttribute("aria-label", view.alt);
    const layout = layoutOf(figure, view);
    const traces = view.data.map((raw) => traceOf(raw, layout.hovermode === "closest"));
    figure.plot.style.minHeight = `${layout.height}px`;
    showKey(figure, view);
    await Plotly.react(figure.plot, traces, layout, { displayModeBar: false, responsive: true, doubleClick: "reset" });
    if (!figure.bound) bind(figure);
    tabulate(figure, view, chosen.keys);
    root.dispatchEvent(new CustomEvent("drawn", { detail: figure.name }));
  }

  function showKey(figure, view) { // of categories that a colour bar would crowd
    figure.key.replaceChildren(...view.data.flatMap((trace) => trace.key || []).map(([name, shade]) => {
      const item = element("span", name);
      item.style.setProperty("--shade", colour(shade));
      return item;
    }));
  }

  function bind(figure) {
    figure.bound = true;
    if (!figure.timed) return;
    figure.plot.on("plotly_relayout", (change) => {
      if (figure.linking) return;
      if (change["xaxis.range[0]"] !== undefined) zoom([parsed(change["xaxis.range[0]"]), parsed(change["xaxis.range[1]"])], figure);
      else if (change["xaxis.range"]) zoom(change["xaxis.range"].map(parsed), figure);
    });
    figure.plot.on("plotly_doubleclick", () => zoom([...whole]));
  }

  function zoom(range, source) {
    state.range = range;
    const all = range[0] <= whole[0] && range[1] >= whole[1];
    document.getElementById("range").textContent = all ? "" : `${said(range[0])} to ${said(range[1])}`;
    for (const figure of figures) {
      if (!figure.timed || !figure.drawn || figure === source || figure.plot.hidden || !figure.bound) continue;
      figure.linking = true;
      Plotly.relayout(figure.plot, { "xaxis.range": range.map(iso) }).finally(() => { figure.linking = false; });
    }
  }

  function step(kind) {
    const [from, to] = state.range;
    const width = to - from;
    const moves = {
      in: [from + width / 4, to - width / 4], out: [from - width / 2, to + width / 2], left: [from - width / 2, to - width / 2],
      right: [from + width / 2, to + width / 2], reset: whole,
    };
    let [start, end] = moves[kind];
    const span = Math.max(5 * MINUTE, Math.min(end - start, whole[1] - whole[0]));
    start = Math.min(Math.max(start, whole[0]), whole[1] - span);
    zoom([start, start + span]);
  }

  // ---------------------------------------------------------------------------------------------- tables and CSV
  function tablesOf(view) {
    const found = Object.entries(view.tables).map(([title, table]) => ({ title, ...table }));
    const grids = new Map();
    const marks = [];
    for (const trace of view.data) {
      if (trace.type === "heatmap") {
        found.push(heatTable(trace));
      } else if (trace.type === "scatter" && trace.col) {
        if (trace.xt) {
          const key = `${trace.xt}/${trace.y.length}`;
          grids.set(key, [...(grids.get(key) || []), trace]);
        } else if (trace.xm) {
          trace.y.forEach((value, i) => marks.push([trace.xm[i], trace.col, value, plain(trace.text[i])]));
        } else {
          found.push({ title: trace.col, columns: ["seconds", "% of requests"], rows: trace.x.map((x, i) => [x, trace.y[i]]) });
        }
      }
    }
    for (const traces of grids.values()) found.push(gridTable(traces));
    if (marks.length) {
      const rows = marks.sort((a, b) => a[0] - b[0]).map((row) => [row[0], said(instant(row[0])), ...row.slice(1)]);
      found.push({ title: "Decisions", columns: ["minutes", "time", "what", "instances", "why"], rows });
    }
    return found;
  }

  const plain = (text) => text.replace(/<\/b><br>/g, "; ").replace(/<br>/g, " ").replace(/<[^>]*>/g, "");

  function gridTable(traces) {
    const [start, width] = traces[0].xt;
    const rows = traces[0].y.map((_, i) => [start + i * width, said(instant(start + i * width)), ...traces.map((trace) => trace.y[i])]);
    return { title: `Lines, a row every ${width} min`, columns: ["minutes", "time", ...traces.map((trace) => trace.col)], rows };
  }

  function heatTable(trace) {
    const at = times(trace);
    const cell = (row, i) => (trace.text ? plain(trace.text[row][i]) : trace.z[row][i]);
    const rows = at.map((ms, i) => [(ms - EPOCH) / MINUTE, said(ms), ...trace.y.map((_, row) => cell(row, i))]);
    return { title: "Cells", columns: ["minutes", "time", ...trace.y], rows };
  }

  function csv(table) {
    const quote = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
    };
    return [table.columns, ...table.rows].map((row) => row.map(quote).join(",")).join("\n") + "\n";
  }

  function save(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    if (text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function tabulate(figure, view, keys) {
    figure.filled = false;
    figure.current = view;
    figure.where = [figure.name, ...Object.values(keys)].join("-").replace(/[^\w.-]+/g, "_");
    figure.tables.replaceChildren();
    if (figure.data.open) fill(figure);
  }

  function fill(figure) {
    if (figure.filled || !figure.current) return;
    figure.filled = true;
    tablesOf(figure.current).forEach((table, number) => {
      const button = element("button", "Download CSV", { type: "button", class: "csv", "aria-label": `Download CSV: ${table.title}` });
      button.addEventListener("click", () => save(`${figure.where}${number ? `-${number + 1}` : ""}.csv`, csv(table)));
      const scroll = element("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": table.title });
      scroll.append(tableElement(table));
      figure.tables.append(element("h3", table.title), button, scroll);
      if (table.rows.length > ROWS_SHOWN) {
        figure.tables.append(element("p", `The first ${ROWS_SHOWN} of ${table.rows.length} rows; the CSV has all.`, { class: "note" }));
      }
    });
  }

  function tableElement(table) {
    const made = element("table", null);
    const head = made.createTHead().insertRow();
    for (const column of table.columns) head.append(element("th", column, { scope: "col" }));
    const body = made.createTBody();
    for (const row of table.rows.slice(0, ROWS_SHOWN)) {
      const line = body.insertRow();
      for (const value of row) {
        const words = typeof value === "string" && value.length > 24;
        line.append(element("td", value === null ? "–" : String(value), words ? { class: "words" } : {}));
      }
    }
    return made;
  }

  // ---------------------------------------------------------------------------------------------- beginning
  function begin() {
    for (const section of document.querySelectorAll("section.figure")) {
      const plot = section.querySelector(".plot");
      if (!plot) continue;
      const views = [...section.querySelectorAll("script.view")].map((one) => ({ element: one, keys: JSON.parse(one.dataset.keys) }));
      const figure = {
        name: section.id, section, plot, views, own: {}, timed: section.dataset.timed === "yes", data: section.querySelector(".data"),
        tables: section.querySelector(".tables"), shown: section.querySelector(".shown"), key: section.querySelector(".key"),
        entry: document.querySelector(`.contents a[href="#${section.id}"]`).parentElement,
      };
      plot.style.minHeight = `${JSON.parse(views[0].element.textContent).layout.height || 320}px`;
      figures.push(figure);
      local(figure, section.querySelector(".local"));
      figure.data.addEventListener("toggle", () => figure.data.open && fill(figure));
    }
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const figure = figures.find((one) => one.section === entry.target);
        if (entry.isIntersecting && !figure.drawn) draw(figure);
      }
    }, { rootMargin: "400px" });
    for (const figure of figures) observer.observe(figure.section);
    figures.forEach(begun); // what the chosen strategy has nothing to say about is not there from the start
    for (const more of document.querySelectorAll("details.more")) more.open = !isNarrow();
    window.addEventListener("beforeprint", toPaper);
    window.addEventListener("afterprint", toScreen);
  }

  function local(figure, place) {
    const tiers = [...new Set(figure.views.map((view) => view.keys.tier).filter(Boolean))];
    if (tiers.length < 2) return;
    figure.own.tier = tiers[0];
    const select = element("select", null);
    for (const tier of tiers) select.append(element("option", tier));
    select.addEventListener("change", () => { figure.own.tier = select.value; draw(figure); });
    const label = element("label", "Tier ");
    label.append(select);
    place.append(label);
  }

  let before; // printing: the theme, and what was open

  function toPaper() { // nobody waits for a promise here, so everything is drawn at once
    const more = [...document.querySelectorAll("details.more")];
    before = { theme: root.dataset.theme, open: more.map((one) => one.open) };
    for (const one of more) one.open = true;
    root.dataset.theme = "light";
    state.printing = true;
    if (figures.length) libraryNow();
    for (const figure of figures) {
      figure.drawn = true;
      if (begun(figure)) finished(figure);
    }
  }

  function toScreen() {
    if (!before) return;
    state.printing = false;
    document.querySelectorAll("details.more").forEach((one, i) => { one.open = before.open[i]; });
    setTheme(before.theme);
    before = undefined;
  }

  const redraw = () => figures.forEach((figure) => (figure.drawn ? draw(figure) : begun(figure)));

  function setTheme(name) {
    root.dataset.theme = name;
    const button = document.getElementById("theme");
    button.textContent = name === "dark" ? "Light theme" : "Dark theme";
    button.setAttribute("aria-pressed", String(name === "dark"));
    redraw();
  }

  document.getElementById("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
  for (const select of document.querySelectorAll("#tools select")) {
    state.keys[select.dataset.key] = select.value;
    select.addEventListener("change", () => { state.keys[select.dataset.key] = select.value; redraw(); });
  }
  for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => step(button.dataset.zoom));
  document.getElementById("tools")?.addEventListener("submit", (event) => event.preventDefault());
  setTheme(root.dataset.theme);
  begin();
})();
