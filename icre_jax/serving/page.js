// The page: asks the server that it came from, and writes every text as text. Nothing is stored in the browser.

const at = (id) => document.getElementById(id);
let token = ""; // in memory only
let maxBytes = 0;
let chosen = null; // the image to search for
let start = 0; // of the shown part of the gallery
let asked = 0; // number of the last search, so that an answer that comes late is dropped
let explain = null; // row of the shown answer -> address and options that give its heat

class Trouble extends Error {}

async function ask(address, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(address, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch {
    throw new Trouble("The server cannot be reached. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) askForToken();
  const said = await answer.json().catch(() => ({}));
  throw new Trouble(said.error || `The server answered ${answer.status}.`);
}

function askForToken() {
  at("token-form").hidden = false;
  at("token").value = "";
  at("token").focus();
}

function complain(error) {
  if (!(error instanceof Trouble)) console.error(error);
  at("trouble").textContent = error instanceof Trouble ? error.message : "Something went wrong in this page.";
  at("trouble").hidden = false;
}

const calm = () => { at("trouble").hidden = true; };

function make(kind, text = "", name = "") {
  const element = document.createElement(kind);
  element.textContent = text;
  element.className = name;
  return element;
}

// A canvas, not an <img>: a request for an image could not carry the token.
async function paint(canvas, blob) {
  const image = await createImageBitmap(blob);
  const scale = Math.min(1, 512 / Math.max(image.width, image.height));
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
}

const waiting = []; // small images, fetched a few at a time
let fetching = 0;

function fetchNext() {
  while (fetching < 4 && waiting.length) {
    const job = waiting.shift();
    fetching += 1;
    job().finally(() => { fetching -= 1; fetchNext(); });
  }
}

function small(state, image, words) {
  const canvas = document.createElement("canvas");
  canvas.width = 96;
  canvas.height = 192;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
  waiting.push(async () => {
    if (!canvas.isConnected) return; // replaced by another answer
    try {
      await paint(canvas, await (await ask(`/api/gallery/${state}/${image.row}.jpg`)).blob());
    } catch {
      canvas.replaceWith(make("span", "The image is not to be had now.", "gone"));
    }
  });
  queueMicrotask(fetchNext);
  return canvas;
}

// From low to high: matplotlib's "inferno", as in all figures of the package.
const HEAT = [[0, 0, 4], [51, 10, 95], [120, 28, 109], [190, 55, 84], [237, 105, 37], [252, 180, 25], [252, 255, 164]];

function heatColor(value) {
  const place = Math.min(1, Math.max(0, value)) * (HEAT.length - 1);
  const low = Math.min(HEAT.length - 2, Math.floor(place));
  return HEAT[low].map((part, i) => part + (place - low) * (HEAT[low + 1][i] - part));
}

function cool(canvas) {
  if (!canvas.plain) return;
  canvas.getContext("2d").drawImage(canvas.plain, 0, 0);
  canvas.plain = null;
}

function layOver(canvas, heat) {
  cool(canvas);
  const plain = document.createElement("canvas");
  plain.width = canvas.width;
  plain.height = canvas.height;
  const copied = plain.getContext("2d", { willReadFrequently: true });
  copied.drawImage(canvas, 0, 0);
  canvas.plain = plain;
  const context = canvas.getContext("2d");
  const pixels = copied.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data.fill((pixels.data[i] + pixels.data[i + 1] + pixels.data[i + 2]) / 3, i, i + 3);
  }
  context.putImageData(pixels, 0, 0);
  const tiles = new ImageData(heat[0].length, heat.length);
  heat.flat().forEach((value, i) => tiles.data.set([...heatColor(value), 255], 4 * i));
  const small = document.createElement("canvas");
  small.width = tiles.width;
  small.height = tiles.height;
  small.getContext("2d").putImageData(tiles, 0, 0);
  context.globalAlpha = 0.6;
  context.imageSmoothingEnabled = true;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
}

// Heat over what was searched for and over one candidate; a second click takes it away.
async function toggleHeat(button, row) {
  const lit = button.getAttribute("aria-pressed") === "true";
  for (const other of document.querySelectorAll("#answer button[aria-pressed=true]")) {
    other.setAttribute("aria-pressed", "false");
    cool(other.querySelector("canvas"));
  }
  cool(at("asked-image"));
  at("heat-words").hidden = true;
  if (lit || !explain) return;
  const mine = asked;
  calm();
  button.disabled = true;
  try {
    const [address, options] = explain(row);
    const seen = await (await ask(address, { ...options, method: "POST" })).json();
    const canvas = button.querySelector("canvas");
    if (mine !== asked || !canvas || document.querySelector("#answer button[aria-pressed=true]")) return;
    layOver(at("asked-image"), seen.heat[0]);
    layOver(canvas, seen.heat[1]);
    button.setAttribute("aria-pressed", "true");
    at("heat-words").hidden = false;
  } catch (error) {
    if (mine === asked) complain(error);
  } finally {
    button.disabled = false;
  }
}

const called = (image) => (image.person ? `Person ${image.person}` : "Nobody known");
const camera = (image) => (image.camera === null ? "" : `camera ${image.camera}`);

function personItem(found, rank, state) {
  const item = document.createElement("li");
  const head = document.createElement("div");
  head.append(make("div", `${rank}. ${called(found)}`, "name"));
  const meter = document.createElement("meter");
  meter.min = 0;
  meter.max = 1;
  meter.value = Math.max(0, found.similarity);
  meter.setAttribute("aria-label", "similarity");
  head.append(meter, make("div", `similarity ${found.similarity.toFixed(4)}`));
  const shots = make("div", "", "shots");
  for (const image of found.images) {
    const figure = document.createElement("figure");
    const words = `${image.path}${camera(image) ? `, ${camera(image)}` : ""}`;
    const button = make("button", "", "shot");
    button.type = "button";
    button.title = "Show where the similarity comes from";
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", `Heat over ${called(image)}, ${words}`);
    button.append(small(state, image, ""));
    button.addEventListener("click", () => toggleHeat(button, image.row));
    figure.append(button);
    figure.append(make("figcaption", `${image.similarity.toFixed(4)} ${words}`));
    shots.append(figure);
  }
  item.append(head, shots);
  return item;
}

// What was searched for stands beside its answer: another image may be chosen in the meantime.
function showAsked(source, words) {
  const canvas = at("asked-image");
  canvas.plain = null;
  at("heat-words").hidden = true;
  canvas.width = source.width;
  canvas.height = source.height;
  canvas.getContext("2d").drawImage(source, 0, 0);
  at("asked-words").textContent = words;
  at("asked").hidden = false;
}

function show(answer) {
  const there = answer.people.filter((found) => found.candidate);
  const below = answer.people.filter((found) => !found.candidate);
  const notThere = answer.verdict === "not in the gallery";
  const verdict = at("verdict");
  verdict.textContent = notThere ? "Not in the gallery"
    : answer.verdict ? "Candidates, not identifications" : "The most similar people";
  verdict.className = answer.verdict === "candidates" ? "candidates" : "";
  const best = answer.people.length ? answer.people[0].similarity.toFixed(4) : "";
  at("verdict-words").textContent = answer.no_verdict || (notThere
    ? `Nobody is as similar as the threshold asks: ${best}, below ${answer.threshold.toFixed(4)}. `
      + "Whoever is there can be missed too; the rates below say how often."
    : `At or above the threshold ${answer.threshold.toFixed(4)}. A person has to decide who is on the images.`);
  at("rates").textContent = answer.rates;
  at("rates-words").hidden = !answer.rates;
  at("caution").textContent = answer.caution;
  at("people").replaceChildren(...there.map((found, i) => personItem(found, i + 1, answer.state)));
  at("below").hidden = !below.length;
  at("below").open = false;
  at("people-below").replaceChildren(...below.map((found, i) => personItem(found, there.length + i + 1, answer.state)));
  verdict.focus({ preventScroll: true });
  // On a phone the answer stands below what was asked.
  verdict.scrollIntoView({ block: matchMedia("(max-width: 46rem)").matches ? "start" : "nearest" });
}

async function search(address, options, source, words, explains) {
  const mine = ++asked;
  calm();
  waiting.length = 0;
  at("answer").setAttribute("aria-busy", "true");
  at("go").disabled = true;
  try {
    const answer = await (await ask(address, { ...options, method: "POST" })).json();
    if (mine === asked) {
      showAsked(source, words);
      explain = (row) => explains(answer.state, row);
      show(answer);
    }
  } catch (error) {
    if (mine === asked) complain(error);
  } finally {
    if (mine === asked) {
      at("answer").setAttribute("aria-busy", "false");
      at("go").disabled = false;
    }
  }
}

async function choose(file) {
  calm();
  chosen = file;
  at("file-words").textContent = file.name;
  try {
    await paint(at("preview"), file);
    at("preview").hidden = false;
  } catch {
    at("preview").hidden = true; // the server says what is wrong with it
    at("preview").width = 96;
  }
}

async function showGallery() {
  calm();
  const part = await (await ask(`/api/gallery?start=${start}`)).json();
  at("tiles").replaceChildren(...part.images.map((image) => {
    const button = make("button");
    button.type = "button";
    const canvas = small(part.state, image, "");
    button.append(canvas, make("span", called(image)), make("span", camera(image)));
    button.setAttribute("aria-label", `Search for ${called(image)}, ${image.path}`);
    const words = `${called(image)}, ${image.path}, ${image.modality}, of the gallery`;
    const address = `/api/search/${part.state}/${image.row}`;
    const explains = (state, row) => [`/api/explain/${state}/${row}?asked=${image.row}`, {}];
    button.addEventListener("click", () => search(address, {}, canvas, words, explains));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
  const end = start + part.images.length;
  at("page-words").textContent = `${Math.min(start + 1, end)} to ${end} of ${part.total}`;
  at("before").disabled = start === 0;
  at("after").disabled = end >= part.total;
  at("before").onclick = () => turn(-part.per_page);
  at("after").onclick = () => turn(part.per_page);
}

function turn(by) {
  start = Math.max(0, start + by);
  at("before").disabled = at("after").disabled = true;  // until that page is there
  showGallery().catch((error) => {
    complain(error);
    at("before").disabled = at("after").disabled = false;
  });
}

async function begin() {
  const about = await (await ask("/api/about")).json();
  maxBytes = about.max_bytes;
  at("gallery-facts").textContent =
    `${about.images} images of ${about.persons} persons, by the network ${about.model}.`;
  at("rates").textContent = about.rates;
  at("rates-words").hidden = !about.calibrated;
  at("caution").textContent = about.caution;
  if (about.calibrated) document.querySelector(`input[value="${about.calibrated}"]`).checked = true;
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  calm();
  begin().then(() => { at("token-form").hidden = true; at("file").focus(); }).catch(complain);
});
at("file").addEventListener("change", () => { if (at("file").files.length) choose(at("file").files[0]); });
for (const kind of ["dragenter", "dragover"]) {
  at("drop").addEventListener(kind, (event) => { event.preventDefault(); at("drop").classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => { event.preventDefault(); at("drop").classList.remove("over"); });
}
at("drop").addEventListener("drop", (event) => {
  if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
});
// Beside the place for it, a browser would leave the page and show the file.
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!chosen) return complain(new Trouble("Choose an image first."));
  if (chosen.size > maxBytes) return complain(new Trouble(`An image may have ${maxBytes / 2 ** 20} MiB at most.`));
  const modality = new FormData(at("ask")).get("modality");
  const words = `${chosen.name}, ${modality}`;
  const body = chosen;
  const explains = (state, row) => [`/api/explain/${state}/${row}?modality=${encodeURIComponent(modality)}`, { body }];
  return search(`/api/search?modality=${encodeURIComponent(modality)}`, { body }, at("preview"), words, explains);
});
at("from-gallery").addEventListener("toggle", () => {
  if (at("from-gallery").open && !at("tiles").children.length) showGallery().catch(complain);
});
begin().catch(complain);
