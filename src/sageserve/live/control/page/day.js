// The last 24 hours: figures as SVG, drawn by hand so that the page stays one small answer. Uses make, at, percent of index.html.
"use strict";
const SVG = "http://www.w3.org/2000/svg";
const draw = (tag, attributes) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const HIGH = 200, LEFT = 44, TOP = 8, LOW = 22; // of the drawing, whose width is that of its place
let WIDE = 1000, latest = null;
const MINUTE_CLOCK = {hour: "2-digit", minute: "2-digit", hourCycle: "h23"};
const clock = at_s => new Date(1000 * at_s).toLocaleTimeString([], MINUTE_CLOCK);
const number = value => value === null || value === undefined ? "–" : value.toFixed(value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2);
const short = value => value >= 1e6 ? (value / 1e6).toFixed(1) + "M" : value >= 1e4 ? (value / 1e3).toFixed(0) + "k" : number(value);

// What a figure is: {title, lines: [{name, values, colour, dashed, area}], marks, unseen, ahead, from, step, until, least, most, zero, say}
function figure(one) {
  const box = make("section", undefined, {class: "card chart"});
  const svg = draw("svg", {viewBox: `0 0 ${WIDE} ${HIGH}`, tabindex: 0, role: "img", "aria-label": `${one.title}. ${one.summary}`});
  const x = at_s => LEFT + (WIDE - LEFT) * (at_s - one.from) / (one.until - one.from);
  const y = value => TOP + (HIGH - TOP - LOW) * (1 - (Math.min(one.most, Math.max(one.least, value)) - one.least) / (one.most - one.least || 1));
  const read = make("p", one.summary, {class: "read soft", "aria-live": "polite"});
  box.append(make("h3", one.title), svg, keys(one), read);
  const overlay = make("div", undefined, {class: "axes", "aria-hidden": "true"});
  grid(svg, one, x, y);
  for (const gone of one.unseen || []) {
    const left = x(Math.max(one.from, gone.begins_s));
    svg.append(draw("rect", {x: left, y: TOP, width: Math.max(2, x(gone.ends_s) - left), height: HIGH - TOP - LOW, class: "dark"}));
  }
  if (one.ahead) band(svg, one.ahead, x, y);
  one.lines.forEach(line => path(svg, line, one, x, y));
  for (const mark of one.marks || []) {
    const at = x(mark.at_s);
    svg.append(draw("path", {d: `M${at - 6},${TOP} h12 l-6,11 z`, class: mark.held ? "mark held" : "mark"}));
  }
  const cursor = draw("line", {x1: -9, x2: -9, y1: TOP, y2: HIGH - LOW, class: "cursor"});
  svg.append(cursor);
  let here = one.until_known;
  const show = at_s => {
    here = Math.min(one.until - one.step, Math.max(one.from, one.from + Math.round((at_s - one.from) / one.step) * one.step));
    cursor.setAttribute("x1", x(here));
    cursor.setAttribute("x2", x(here));
    read.textContent = said(one, here);
  };
  Object.assign(svg, {show, name: one.title, reading: () => here < one.until_known - one.step ? here : Infinity}); // the newest stays the newest
  svg.addEventListener("pointermove", event => {
    const place = svg.getBoundingClientRect();
    show(one.from + (one.until - one.from) * ((event.clientX - place.left) / place.width * WIDE - LEFT) / (WIDE - LEFT));
  });
  svg.addEventListener("focus", () => show(here));
  svg.addEventListener("keydown", event => {
    const marks = (one.marks || []).map(mark => mark.at_s);
    const to = {
      ArrowLeft: () => here - one.step, ArrowRight: () => here + one.step, Home: () => one.from, End: () => one.until,
      ArrowUp: () => Math.max(...marks.filter(at_s => at_s < here - one.step / 2), one.from),
      ArrowDown: () => Math.min(...marks.filter(at_s => at_s > here + one.step / 2), one.until_known),
    }[event.key];
    if (to) event.preventDefault(), show(to());
  });
  return box;
}

function grid(svg, one, x, y) {
  for (const value of [one.least, (one.least + one.most) / 2, one.most]) {
    svg.append(draw("line", {x1: LEFT, x2: WIDE, y1: y(value), y2: y(value), class: "grid"}));
    const text = draw("text", {x: LEFT - 6, y: y(value) + 4, "text-anchor": "end"});
    text.textContent = one.scale(value);
    svg.append(text);
  }
  if (one.zero) svg.append(draw("line", {x1: LEFT, x2: WIDE, y1: y(0), y2: y(0), class: "zero"}));
  const hour = 3600, apart = 6 * hour;
  const offset = new Date(1000 * one.from).getTimezoneOffset() * 60;
  for (let at_s = Math.ceil((one.from - offset) / apart) * apart + offset; at_s < one.until; at_s += apart) {
    const text = draw("text", {x: x(at_s), y: HIGH - 5, "text-anchor": "middle"});
    text.textContent = clock(at_s);
    svg.append(draw("line", {x1: x(at_s), x2: x(at_s), y1: TOP, y2: HIGH - LOW, class: "grid"}), text);
  }
}

function path(svg, line, one, x, y) {
  let d = "", first = null, last = null, pen = false;
  line.values.forEach((value, k) => {
    if (value === null) { pen = false; return; }
    const at = x(one.from + k * one.step);
    d += `${pen ? "L" : "M"}${at.toFixed(1)},${y(value).toFixed(1)}`;
    if (!pen) d += "h0.1"; // a point by itself is seen, too
    first = first === null ? at : first;
    last = at;
    pen = true;
  });
  if (!d) return;
  if (line.area && !line.values.slice(line.values.findIndex(value => value !== null)).includes(null))
    svg.append(draw("path", {d: `${d}L${last},${HIGH - LOW}L${first},${HIGH - LOW}Z`, class: "area"}));
  svg.append(draw("path", {d, class: `line c${line.colour}${line.dashed ? " dashed" : ""}`}));
}

function band(svg, ahead, x, y) {
  const points = values => ahead.begins_s.map((at_s, k) => `${x(at_s).toFixed(1)},${y(values[k]).toFixed(1)}`);
  if (ahead.low.length) svg.append(draw("polygon", {points: [...points(ahead.high), ...points(ahead.low).reverse()].join(" "), class: "band"}));
  svg.append(draw("polyline", {points: points(ahead.middle).join(" "), class: "line c0 dashed"}));
}

function keys(one) {
  const list = make("ul", undefined, {class: "keys"});
  const key = (name, shape) => {
    const item = make("li"), sign = draw("svg", {viewBox: "0 0 26 10", "aria-hidden": "true"});
    sign.append(shape);
    item.append(sign, name);
    list.append(item);
  };
  for (const line of one.lines) key(line.name, draw("line", {x1: 0, x2: 26, y1: 5, y2: 5, class: `line c${line.colour}${line.dashed ? " dashed" : ""}`}));
  if (one.ahead) key("forecast", draw("rect", {x: 0, y: 0, width: 26, height: 10, class: "band"}));
  if ((one.marks || []).length) key("decision or plan", draw("path", {d: "M7,0 h12 l-6,10 z", class: "mark"}));
  return list;
}

function said(one, at_s) {
  const k = Math.round((at_s - one.from) / one.step);
  const parts = one.lines.filter(line => k < line.values.length).map(line => `${line.name} ${one.say(line.values[k] ?? null, line)}`);
  const a = one.ahead, row = a ? a.begins_s.findLastIndex(begin => begin <= at_s) : -1;
  if (row >= 0 && at_s >= one.until_known - one.step) parts.push(`forecast ${number(a.middle[row])}${a.low.length ? ` (${number(a.low[row])} to ${number(a.high[row])})` : ""}`);
  const gone = (one.unseen || []).find(gone => gone.begins_s <= at_s && at_s < gone.ends_s);
  if (gone) parts.push(`not seen: ${gone.why}`);
  const marks = (one.marks || []).filter(mark => Math.abs(mark.at_s - at_s) <= one.step / 2).map(mark => mark.text);
  const more = marks.length > 4 ? [`and ${marks.length - 4} more`] : [];
  return [`${clock(at_s)}: ${parts.join(", ")}.`, ...marks.slice(0, 4), ...more].join(" ");
}

function marksOf(day, pools) {
  const mine = pool => pools.includes(pool);
  const decided = day.decisions.filter(one => mine(one.pool)).map(one => ({at_s: one.at_s, held: one.blocked !== "not", text: `${one.words}.`.replace(/[.][.]$/, ".")}));
  const planned = day.plans.map(plan => {
    const targets = Object.entries(plan.targets).filter(([pool]) => mine(pool));
    const text = targets.map(([pool, count]) => `${pool}: ${count}${plan.why[pool] ? ` (${plan.why[pool]})` : ""}`).join(", ");
    return {at_s: plan.at_s, held: false, text: `Plan: ${text}${plan.short ? `; short: ${plan.short}` : ""}.`};
  });
  return [...decided, ...planned].sort((one, other) => one.at_s - other.at_s);
}

function showDay(day) {
  latest = day;
  WIDE = Math.max(240, at("day").clientWidth - 32); // less the card's own edges
  const from = day.begins_s, step = day.step_s, known = day.now_s;
  const base = {from, step, until_known: known, until: known + step, least: 0, scale: short, say: value => number(value)};
  const figures = [];
  for (const end of day.endpoints) {
    const ahead = end.ahead && end.ahead.begins_s.length ? end.ahead : null;
    const lines = [
      {name: "demand", values: end.busy, colour: 0, area: true}, {name: "needed", values: end.needed, colour: 2},
      {name: "serving", values: end.did, colour: 1}, {name: "asked for", values: end.would, colour: 3, dashed: true},
    ];
    const until = ahead ? Math.max(base.until, ahead.begins_s.at(-1) + step) : base.until;
    const top = Math.max(1, ...lines.flatMap(line => line.values), ...(ahead ? [...ahead.middle, ...ahead.high] : []));
    const now = lines.map(line => `${line.name} ${number(line.values.findLast(value => value !== null))}`).join(", ");
    figures.push(figure({...base, title: end.endpoint, summary: `Now: ${now}; in instances of the fastest type.`, lines, ahead, until, most: Math.ceil(1.1 * top), unseen: end.unseen, marks: marksOf(day, end.pools)}));
  }
  const share = value => value === null ? "–" : kept(value);
  if (day.tiers.length) {
    const lines = day.tiers.map((tier, k) => ({name: `${tier.tier} (promised ${percent(tier.promised)})`, values: tier.kept, colour: k % 5}));
    const least = Math.min(0.9, ...day.tiers.map(tier => tier.promised), ...lines.flatMap(line => line.values.filter(value => value !== null)));
    figures.push(figure({...base, title: "Promises kept", summary: "Share of requests answered as their class promises, five minutes each.", lines, least: Math.floor(10 * least) / 10, most: 1, scale: percent, say: share}));
  } else {
    const lines = day.endpoints.filter(end => end.late.some(value => value !== null)).map((end, k) => ({name: end.endpoint, values: end.late.map(value => value === null ? null : 1 - value), colour: k % 5}));
    if (lines.length) figures.push(figure({...base, title: "First tokens in time", summary: "Share within the tightest promise, by engines' own histograms.", lines, most: 1, scale: percent, say: share}));
  }
  for (const one of day.backlog) {
    const top = Math.max(1, ...one.waiting), hours = one.slack_s.map(value => value === null ? null : value / 3600);
    const slack = hours.findLast(value => value !== null);
    figures.push(figure({...base, title: `Batch work of ${one.model}`, summary: `${short(one.waiting.findLast(value => value !== null) ?? 0)} wait.`, lines: [{name: "waiting", values: one.waiting, colour: 0, area: true}], most: top, say: value => value === null ? "–" : value.toLocaleString()}));
    if (slack !== undefined) figures.push(figure({...base, title: `Hours to the first deadline of ${one.model}`, summary: slack < 0 ? "The first deadline has passed." : `The first deadline is in ${number(slack)} h.`, lines: [{name: "hours left", values: hours, colour: 4}], least: Math.min(0, ...hours), most: Math.max(1, ...hours), zero: true}));
  }
  if (figures.length) redraw(figures);
}

// Whoever reads a figure goes on where they were, in what is known now: a page that is left open is never old.
function redraw(figures) {
  const charts = () => [...at("day").querySelectorAll("svg[tabindex]")];
  const old = charts().find(svg => svg === document.activeElement) || charts().find(svg => svg.matches(":hover"));
  const focused = old === document.activeElement;
  fill("day", figures);
  const same = old && charts().find(svg => svg.name === old.name);
  if (!same) return;
  if (focused) same.focus({preventScroll: true});
  same.show(Math.min(old.reading(), latest.now_s));
}

async function lookBack() {
  try {
    const answer = await fetch("/admin/day", {cache: "no-store"});
    if (answer.ok) showDay(await answer.json());
  } catch (error) {
    // `look` says that nobody answers
  }
  setTimeout(lookBack, 60000);
}
addEventListener("resize", () => { if (latest && Math.abs(at("day").clientWidth - 32 - WIDE) > 8) showDay(latest); });
lookBack();
