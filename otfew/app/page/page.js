"use strict";
// All names come from files and from people: they become text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#a67c00", "#31688e", "#c1440e"];
const CHOSEN = "#c1440e", ALONE = "#31688e";
const HEIGHT = 600, GAP = 90, AT_ONCE = 2, AGAIN = 700;
const token = location.hash.slice(1);
const find = (id) => document.getElementById(id);
const page = { state: null, chosen: null, why: null, shown: -1, toward: 0, pictures: new Map(), waiting: 0, version: 0, timer: 0 };

function make(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...inside);
  return made;
}

function draw(name, attributes, ...inside) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

// With a space that breaks no line; nothing is certain, and nothing impossible.
function percent(share) {
  const rounded = Math.round(100 * share);
  const told = share < 1 && rounded === 100 ? "> 99" : share > 0 && rounded === 0 ? "< 1" : `${rounded}`;
  return `${told} %`.replaceAll(" ", "\u00a0");
}

const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...options.headers, "x-otfew-token": token } });
  } catch {
    throw new Error("otfew serve does not answer: see its terminal.");
  }
  if (answer.ok) return answer;
  const body = await answer.text();
  let told = body;
  try { told = JSON.parse(body).error; } catch { /* plain text */ }
  throw new Error(told || `otfew serve answered ${answer.status}: see its terminal.`);
}

const askJson = async (path, options) => (await ask(path, options)).json();

function complain(text) {
  const line = make("li", {}, make("span", {}, text));
  line.append(make("button", { class: "quiet", type: "button", "aria-label": "Dismiss", onclick: () => line.remove() }, "×"));
  find("errors").append(line);
}

function say(text) { find("status").textContent = text; }

async function doing(text, work) {
  say(text);
  try { await work(); } catch (error) { complain(error.message); } finally { progress(); }
}

function progress() {
  say(page.waiting ? `${plural(page.waiting, "photo")} to go …` : "");
}

// Photos in

async function take(files) {
  const queue = [...files];
  page.waiting += queue.length;
  progress();
  const worker = async () => {
    for (let file = queue.shift(); file; file = queue.shift()) {
      try { await upload(file); } catch (error) { complain(`${file.name}: ${error.message}`); }
      page.waiting -= 1;
      progress();
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  await refresh();
}

async function upload(file) {
  const limits = page.state.limits;
  if (file.size > limits.file) throw new Error(`has more than ${limits.file / 1e6} MB, the most the page takes.`);
  const name = encodeURIComponent(file.name.replace(/[\ud800-\udfff]/gu, "\ufffd"));
  const told = await askJson("api/photos", { method: "POST", body: file, headers: { "x-name": name } });
  if (!page.state.photos.some((photo) => photo.number === told.number)) page.state.photos.push(told);
  cards();
}

async function pictureOf(number) {
  if (!page.pictures.has(number)) {
    const loaded = ask(`api/photos/${number}/picture`).then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob));
    page.pictures.set(number, loaded);
  }
  return page.pictures.get(number);
}

// What is known

async function refresh() {
  show(await askJson("api/state"));
}

function show(state) {
  page.version += 1;
  known(state);
  detail();
  later();
}

// Figures are found while the page goes on; what is shown of a photo stays where it is.
function later() {
  clearTimeout(page.timer);
  if (page.state.renewing) page.timer = setTimeout(renewed, AGAIN);
}

async function renewed() {
  const { version } = page;
  let state;
  try { state = await askJson("api/state"); } catch (error) { complain(error.message); return; }
  // What has come meanwhile is newer, and photos that are on their way are not in this state.
  if (page.version !== version || page.waiting) { later(); return; }
  const chosen = () => page.state.photos.find((one) => one.number === page.chosen);
  const before = chosen();
  known(state);
  const now = chosen();
  find("detail").hidden = !now;
  if (now) sentence(now);
  if (now && now.unknown !== before?.unknown) explain(now.number);
  later();
}

function known(state) {
  page.state = state;
  if (!state.photos.some((photo) => photo.number === page.chosen)) page.chosen = null;
  const [first, ...rest] = state.lines;
  find("summary").textContent = first;
  find("lines").replaceChildren(...rest.map((line) => make("li", {}, line)));
  find("known").hidden = !rest.length;
  find("renewing").hidden = !state.renewing;
  find("save").disabled = false;
  find("save").textContent = state.unsaved ? `Save classifier (${plural(state.unsaved, "change")})` : "Save classifier";
  cards();
}

function verdict(photo) {
  if (photo.given !== null) return photo.given;
  return photo.unknown ? "unknown" : photo.answer;
}

function cards() {
  find("table").disabled = !page.state.photos.length;
  const made = page.state.photos.map((photo) => {
    const image = make("img", { class: "photo", alt: "" });
    pictureOf(photo.number).then((url) => { image.src = url; }, () => {});
    const given = photo.given !== null;
    const rival = given ? "labelled by you" : photo.unknown ? `looks most like ${photo.answer} (${percent(photo.confidence)})`
      : `else ${photo.runner_up} (${percent(photo.runner_up_confidence)})`;
    const words = [make("strong", {}, given || photo.unknown ? verdict(photo) : `${photo.answer} ${percent(photo.confidence)}`)];
    if (!given) words.push(make("progress", { max: 1, value: photo.confidence, "aria-label": "confidence" }));
    words.push(make("span", { class: "rival", title: rival }, rival), make("span", { class: "name", title: photo.name }, photo.name));
    const kind = given ? "card given" : photo.unknown ? "card unknown" : "card";
    return make("button", {
      class: kind, type: "button", "data-number": photo.number, "aria-current": photo.number === page.chosen,
      onclick: () => choose(photo.number),
    }, image, make("span", { class: "words" }, ...words));
  });
  const focused = document.activeElement?.dataset?.number;
  find("cards").replaceChildren(...made);
  if (focused) find("cards").querySelector(`[data-number="${Number(focused)}"]`)?.focus();
}

function choose(number) {
  page.chosen = number;
  page.toward = 0;
  page.shown = -1;
  cards();
  detail();
}

// One photo

function detail() {
  const photo = page.state.photos.find((one) => one.number === page.chosen);
  find("detail").hidden = !photo;
  if (!photo) return;
  sentence(photo);
  find("title").textContent = photo.name;
  const given = photo.given !== null;
  find("ask").textContent = given ? "Labelled by you; choose another class, or take the label back:" : "What is it? The classifier learns from your answer:";
  const chips = page.state.classes.map(({ label, photos }) => make("button", {
    type: "button", "aria-pressed": given && label === photo.given, title: plural(photos, "labelled photo"),
    onclick: () => teach(photo.number, label),
  }, label));
  if (given) chips.push(make("button", { type: "button", class: "quiet", id: "back", onclick: () => takeBack(photo.number) }, "Take the label back"));
  find("chips").replaceChildren(...chips);
  find("label").maxLength = page.state.limits.label;
  explain(photo.number);
}

function sentence(photo) {
  const given = photo.given !== null;
  const sure = `${photo.answer} (${percent(photo.confidence)}), else ${photo.runner_up} (${percent(photo.runner_up_confidence)})`;
  const line = given ? [make("strong", {}, photo.given), ", as you say. ", `With that, the classifier says ${sure}.`]
    : photo.unknown ? [make("strong", { class: "verdict-unknown" }, "Unknown"), `: not sure enough for an answer. It looks most like ${sure}.`]
      : [make("strong", {}, photo.answer), ` (${percent(photo.confidence)}), else ${photo.runner_up} (${percent(photo.runner_up_confidence)}).`];
  find("verdict").replaceChildren(...line, ` Most like ${photo.nearest}.`);
}

function teach(number, label) {
  return doing(`Learning ${label} …`, async () => {
    show(await askJson(`api/photos/${number}/label`, { method: "PUT", body: JSON.stringify({ label }) }));
  });
}

function takeBack(number) {
  return doing("Forgetting the label …", async () => {
    show(await askJson(`api/photos/${number}/label`, { method: "DELETE" }));
  });
}

// Why

async function explain(number) {
  const version = page.version;
  find("why").hidden = true;
  find("waiting").hidden = false;
  find("waiting").textContent = "Finding out why …";
  let why;
  try {
    why = await askJson(`api/photos/${number}/why`);
  } catch (error) {
    if (page.chosen === number && page.version === version) find("waiting").textContent = error.message;
    return;
  }
  if (page.chosen !== number || page.version !== version) return;
  page.why = why;
  find("waiting").hidden = true;
  find("why").hidden = false;
  find("sentences").replaceChildren(...why.sentences.slice(1).map((line) => make("li", {}, line)));
  tabs();
  stage();
}

function tabs() {
  const shown = ["photo", ...page.why.maps.map((map) => map.title)];
  find("maps").replaceChildren(...shown.map((title, i) => make("button", {
    type: "button", "aria-pressed": i - 1 === page.shown, onclick: () => { page.shown = i - 1; tabs(); stage(); },
  }, title)));
  find("towards").replaceChildren(...page.why.towards.map((one, i) => make("button", {
    type: "button", "aria-pressed": i === page.toward, onclick: () => { page.toward = i; tabs(); stage(); },
  }, `flows to ${one.label}`)));
  const toward = page.why.towards[page.toward];
  const effect = (value) => (value === null ? "its only photo" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`);
  const rows = toward.photos.map((one) => make("tr", {}, make("td", {}, one.name), make("td", {}, effect(one.effect))));
  const head = make("tr", {}, make("th", {}, `labelled ${toward.label}`), make("th", {}, `lead that ${page.why.answer} loses without it`));
  find("evidence").replaceChildren(make("table", {}, head, ...rows));
}

// The photo at the left, a labelled one at the right, both of one height; widths are limited so that both can be seen.
function placed(picture, left) {
  const width = HEIGHT * Math.min(1.6, Math.max(0.6, picture.width / picture.height));
  const scale = Math.min(width / picture.width, HEIGHT / picture.height);
  const w = picture.width * scale, h = picture.height * scale;
  return { x: left + (width - w) / 2, y: (HEIGHT - h) / 2, w, h, right: left + width };
}

const boxAt = (place, [x0, y0, x1, y1]) => ({
  x: place.x + x0 * place.w, y: place.y + y0 * place.h, width: (x1 - x0) * place.w, height: (y1 - y0) * place.h,
});
const middle = (box) => [box.x + box.width / 2, box.y + box.height / 2];

function stage() {
  const { why } = page;
  const toward = why.towards[page.toward];
  const square = { width: 1, height: 1 };
  const here = placed(why.picture, 0);
  const there = placed(toward.picture ?? square, here.right + GAP);
  const picture = page.shown < 0 ? why.picture : why.maps[page.shown].picture;
  const svg = find("stage");
  svg.setAttribute("viewBox", `0 0 ${there.right} ${HEIGHT + 34}`);
  const image = (place, data) => draw("image", { x: place.x, y: place.y, width: place.w, height: place.h, href: data });
  const words = (place, text) => draw("text", { x: place.x, y: HEIGHT + 25, "font-size": 20, fill: "#5b5b5b" }, text.length > 48 ? `…${text.slice(-46)}` : text);
  const parts = [image(here, picture.data), words(here, page.state.photos.find((one) => one.number === page.chosen).name)];
  if (toward.picture) parts.push(image(there, toward.picture.data), words(there, `${toward.label}: ${toward.name}`));
  else parts.push(draw("text", { x: there.x + 20, y: HEIGHT / 2, "font-size": 22, fill: "#5b5b5b" }, "its picture was not kept"));
  const over = draw("g", { id: "over" });
  svg.replaceChildren(...parts, over);
  page.places = { here, there, over };
  page.region = -1;
  strongest();
}

// Before a region is chosen: the regions that speak for the answer most, and where most of their mass goes.
function strongest() {
  const { effects, towards, opinion } = page.why;
  const toward = towards[page.toward];
  const order = effects.map((_, i) => i).sort((a, b) => effects[b] - effects[a]).slice(0, COLOURS.length).reverse();
  page.places.over.replaceChildren();
  if (toward.boxes.length && page.shown < 0) {
    order.forEach((region, i) => {
      if (toward.moves[region].length) flow(region, toward.moves[region][0][0], COLOURS[i], 0.85, 3);
    });
  }
  const whose = opinion.decided ? "DeepEMD, which decided" : `DeepEMD, a second opinion that ${opinion.agrees ? "agrees" : `says ${opinion.answer}`}`;
  const seen = page.shown < 0 ? `Outlined: the ${order.length} that speak for ${page.why.answer} most.`
    : page.shown === 0 ? `Orange speaks for ${page.why.answer}, blue against.` : `Orange speaks for ${page.why.answer}, blue for ${page.why.runner_up}.`;
  find("moved").textContent = toward.boxes.length ? `Point at a region of the photo to see where its mass goes (${whose}). ${seen}`
    : "Where regions go cannot be shown without the labelled photo's picture.";
}

function outline(place, box, colour, width, fill) {
  const at = boxAt(place, box);
  page.places.over.append(
    draw("rect", { ...at, fill: "none", stroke: "#000", "stroke-opacity": 0.55, "stroke-width": width + 2.5 }),
    draw("rect", { ...at, fill: colour, "fill-opacity": fill, stroke: colour, "stroke-width": width }),
  );
  return middle(at);
}

function flow(region, target, colour, strength, width, fill = 0) {
  const { here, there, over } = page.places;
  const toward = page.why.towards[page.toward];
  const [x1, y1] = middle(boxAt(there, toward.boxes[target]));
  const [x0, y0] = middle(boxAt(here, page.why.boxes[region]));
  const bend = (x1 - x0) / 2.5;
  const path = `M${x0} ${y0} C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`;
  over.append(
    draw("path", { d: path, fill: "none", stroke: "#fff", "stroke-opacity": 0.7 * strength, "stroke-width": width + 3 }),
    draw("path", { d: path, fill: "none", stroke: colour, "stroke-opacity": strength, "stroke-width": width }),
  );
  over.append(draw("circle", { cx: x1, cy: y1, r: width + 3, fill: colour, "fill-opacity": strength }));
  outline(there, toward.boxes[target], colour, 3, fill);
  outline(here, page.why.boxes[region], colour, 3, 0);
}

function moved(region) {
  const toward = page.why.towards[page.toward];
  if (region === page.region || !toward.boxes.length) return;
  page.region = region;
  if (region < 0) { strongest(); return; }
  page.places.over.replaceChildren();
  const moves = toward.moves[region];
  // The largest share is drawn last, on top.
  [...moves].reverse().forEach(([target, share]) => flow(region, target, CHOSEN, 0.3 + 0.7 * share, 2 + 8 * share, 0.45 * share));
  if (!moves.length) outline(page.places.here, page.why.boxes[region], ALONE, 3, 0);
  const parts = moves.map(([, share, similarity]) => `${percent(share)} at similarity ${similarity.toFixed(2)}`);
  const mass = `Region ${region + 1} of ${page.why.boxes.length} holds ${toward.mass[region].toFixed(2)} times the mean mass`;
  const effect = page.why.effects[region];
  const speaks = Math.abs(effect) < 0.05 ? "counts for little" : effect > 0 ? `speaks for ${page.why.answer}` : `speaks against ${page.why.answer}`;
  find("moved").textContent = `${mass} and ${speaks}. To ${toward.label}: ${parts.length ? parts.join(", ") : "nothing of it"}.`;
}

function regionAt(event) {
  const svg = find("stage");
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const { here } = page.places;
  const x = (point.x - here.x) / here.w, y = (point.y - here.y) / here.h;
  let best = -1, least = Infinity;
  page.why.boxes.forEach(([x0, y0, x1, y1], i) => {
    // Of regions that lie over one another: the smallest, then the one whose middle is nearest.
    const size = (x1 - x0) * (y1 - y0) * 1e3 + Math.hypot(x - (x0 + x1) / 2, y - (y0 + y1) / 2);
    if (x >= x0 && x < x1 && y >= y0 && y < y1 && size < least) { best = i; least = size; }
  });
  return best;
}

// Out

async function download(path, name, method = "GET") {
  const url = URL.createObjectURL(await (await ask(path, { method })).blob());
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function start() {
  if (!token) {
    find("summary").textContent = "This address lacks its end: open the one that otfew serve printed, with all that follows the #.";
    find("drop").hidden = true;
    return;
  }
  const drop = find("drop");
  find("files").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  drop.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target === drop) find("files").click(); });
  find("new").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = find("label").value.trim();
    if (label) teach(page.chosen, label).then(() => { find("label").value = ""; });
  });
  find("remove").addEventListener("click", () => doing("", async () => show(await askJson(`api/photos/${page.chosen}`, { method: "DELETE" }))));
  find("table").addEventListener("click", () => doing("Writing the table …", () => download("api/answers.csv", "answers.csv")));
  find("save").addEventListener("click", () => doing("Saving …", async () => {
    await download("api/model", "photos.otfew", "POST");
    await refresh();
  }));
  const svg = find("stage");
  for (const name of ["pointermove", "pointerdown"]) svg.addEventListener(name, (event) => moved(regionAt(event)));
  svg.addEventListener("pointerleave", () => moved(-1));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const count = page.why.boxes.length;
    moved((page.region + step + count) % count);
  });
  doing("", refresh);
}

start();
