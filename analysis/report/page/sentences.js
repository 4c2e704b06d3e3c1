"use strict";
const PAGE = 50;
const { types, kinds, splits } = JSON.parse(document.getElementById("data").textContent);
const RIGHT = kinds.indexOf("right");
const hues = types.map((_, index) => Math.round(20 + (360 * index) / types.length));
const find = (selector) => document.querySelector(selector);
const form = find("#filters"), list = find("#list");
let shown = [], page = 0;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function coloured(made, type) {
  made.style.setProperty("--h", hues[type]);
  return made;
}

const splitName = () => find("input[name=split]:checked")?.value ?? Object.keys(splits)[0];

// Which sentences, and in which order.

function filters() {
  const chosen = new FormData(form);
  return {
    search: chosen.get("search").trim().toLowerCase(),
    kinds: new Set(chosen.getAll("kind").map(Number)),
    gold: chosen.get("gold"),
    predicted: chosen.get("predicted"),
    order: chosen.get("order"),
  };
}

const typeFits = (wanted, entity) => wanted === "" || (wanted === "-" ? !entity : entity && types[entity[0]] === wanted);

function pairFits([kind, gold, predicted], wanted) {
  return (!wanted.kinds.size || wanted.kinds.has(kind)) && typeFits(wanted.gold, gold) && typeFits(wanted.predicted, predicted);
}

function sentenceFits([id, text, pairs], wanted) {
  if (wanted.search && !text.toLowerCase().includes(wanted.search) && !id.toLowerCase().includes(wanted.search)) return false;
  if (!wanted.kinds.size && !wanted.gold && !wanted.predicted) return true;
  return pairs.some((pair) => pairFits(pair, wanted));
}

const errorsOf = ([, , pairs]) => pairs.filter(([kind]) => kind !== RIGHT);
const sureness = (row) => errorsOf(row).map(([, , , sure]) => sure).filter((sure) => sure !== undefined);
const ORDERS = {
  errors: (row) => -errorsOf(row).length,
  sure: (row) => -Math.max(-1, ...sureness(row)),
  unsure: (row) => Math.min(2, ...row[2].map(([, , , sure]) => sure ?? 2)),
  corpus: () => 0,
};

function choose() {
  const wanted = filters(), rank = ORDERS[wanted.order], rows = splits[splitName()];
  const ranked = rows.filter((row) => sentenceFits(row, wanted)).map((row) => [rank(row), row]);
  shown = ranked.sort(([left], [right]) => left - right).map(([, row]) => row); // sorting is stable
  page = 0;
  draw();
}

// How a sentence looks.

function drawText(text, pairs, search) {
  const line = element("div", "text");
  const matches = matchesOf(text, search), cuts = new Set([0, text.length, ...matches.flat()]);
  for (const [, gold, predicted] of pairs) for (const entity of [gold, predicted]) if (entity) cuts.add(entity[1]).add(entity[2]);
  const borders = [...cuts].sort((left, right) => left - right);
  const numbered = new Map(pairs.filter(([kind]) => kind !== RIGHT).map((pair, index) => [pair, index + 1]));
  for (let index = 0; index + 1 < borders.length; index++) {
    const [start, end] = [borders[index], borders[index + 1]];
    const covers = (entity) => entity && entity[1] <= start && end <= entity[2];
    const ofGold = pairs.find(([, gold]) => covers(gold)), ofPredicted = pairs.find(([, , predicted]) => covers(predicted));
    let part = text.slice(start, end);
    if (matches.some(([first, last]) => first <= start && end <= last)) part = element("mark", "", part);
    if (ofGold && ofGold[0] === RIGHT) {
      const type = ofGold[1][0];
      part = coloured(element("span", "right", part), type);
      if (end === ofGold[1][2]) part.append(element("span", "type", types[type]));
    } else {
      if (ofPredicted) part = coloured(element("span", "predicted", part), ofPredicted[2][0]);
      if (ofGold) part = coloured(element("span", "gold", part), ofGold[1][0]);
    }
    line.append(part);
    for (const [pair, number] of numbered) {
      const last = Math.max(pair[1] ? pair[1][2] : 0, pair[2] ? pair[2][2] : 0);
      if (last === end) line.append(element("sup", "", String(number)));
    }
  }
  return line;
}

function matchesOf(text, search) {
  const lower = text.toLowerCase(), found = [];
  if (!search || lower.length !== text.length) return found; // some letters change their length with their case
  for (let at = lower.indexOf(search); at >= 0; at = lower.indexOf(search, at + search.length)) found.push([at, at + search.length]);
  return found;
}

function drawError(text, [kind, gold, predicted, sure], number) {
  const named = ([type, start, end], className) => {
    const surface = coloured(element("span", className, text.slice(start, end)), type);
    return [surface, " ", coloured(element("span", "type", types[type]), type)];
  };
  const item = element("li", "", element("span", "kind", element("b", "", String(number)), ` ${kinds[kind]}`));
  if (gold) item.append(element("span", "", "gold ", ...named(gold, "gold")));
  if (predicted) item.append(element("span", "", "predicted ", ...named(predicted, "predicted")));
  if (sure !== undefined) item.append(element("span", "sure", sure < 1 ? sure.toFixed(3) : "over 0.999"));
  return item;
}

function drawSentence(row, search) {
  const [id, text, pairs] = row, errors = errorsOf(row);
  const item = element("li", "", element("span", "id", id), drawText(text, pairs, search));
  if (errors.length) item.append(element("ol", "", ...errors.map((pair, index) => drawError(text, pair, index + 1))));
  item.tabIndex = -1;
  item.setAttribute("aria-label", `${id}, ${errors.length} errors: ${text}`);
  return item;
}

function draw() {
  const { search } = filters(), pages = Math.max(1, Math.ceil(shown.length / PAGE));
  list.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map((row) => drawSentence(row, search)));
  if (list.firstChild) list.firstChild.tabIndex = 0;
  find("#status").textContent = `${shown.length.toLocaleString("en")} of ${splits[splitName()].length.toLocaleString("en")} sentences`;
  find("#page").textContent = `page ${page + 1} of ${pages}`;
  find("#previous").disabled = page === 0;
  find("#next").disabled = page + 1 >= pages;
}

// Keys and clicks.

function turn(pages, last = false) {
  const wanted = page + pages;
  if (wanted < 0 || wanted * PAGE >= shown.length) return;
  page = wanted;
  draw();
  focusOn(last ? list.lastElementChild : list.firstElementChild);
}

function focusOn(item) {
  list.querySelector(":scope > [tabindex='0']")?.setAttribute("tabindex", "-1");
  item.tabIndex = 0;
  item.focus();
  item.scrollIntoView({ block: "nearest" });
}

function move(down) {
  const current = document.activeElement?.closest("#list > li");
  const next = current ? (down ? current.nextElementSibling : current.previousElementSibling) : list.firstElementChild;
  if (next) focusOn(next);
  else if (current) turn(down ? 1 : -1, !down);
}

const KEYS = { j: () => move(true), k: () => move(false), n: () => turn(1), p: () => turn(-1), "/": () => form.elements.search.focus() };
const ARROWS = { ArrowDown: KEYS.j, ArrowUp: KEYS.k, ArrowRight: KEYS.n, ArrowLeft: KEYS.p };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const action = KEYS[event.key] ?? (event.target.closest("#list") ? ARROWS[event.key] : undefined);
  if (!action) return;
  event.preventDefault();
  action();
});

function setFilters(chosen) {
  form.reset();
  for (const box of form.elements.kind) box.checked = box.value === chosen.kind;
  form.elements.gold.value = chosen.gold ?? "";
  form.elements.predicted.value = chosen.predicted ?? "";
  choose();
  find("#sentences").scrollIntoView();
  find("#status").focus();
}

function countKinds() {
  const counts = kinds.map(() => 0);
  for (const [, , pairs] of splits[splitName()]) for (const [kind] of pairs) counts[kind]++;
  for (const output of form.querySelectorAll("output")) output.textContent = counts[output.dataset.kind];
  choose();
}

for (const select of [form.elements.gold, form.elements.predicted]) {
  const options = [["any", ""], ...types.map((type) => [type, type]), ["nothing", "-"]];
  select.append(...options.map(([label, value]) => new Option(label, value)));
}
form.addEventListener("input", choose);
form.addEventListener("reset", () => setTimeout(choose)); // the fields are cleared after the event
form.addEventListener("submit", (event) => event.preventDefault());
find("#previous").addEventListener("click", () => turn(-1));
find("#next").addEventListener("click", () => turn(1));
for (const cell of document.querySelectorAll("button.cell")) cell.addEventListener("click", () => setFilters(cell.dataset));
for (const radio of document.querySelectorAll("input[name=split]")) radio.addEventListener("change", countKinds);
countKinds();
