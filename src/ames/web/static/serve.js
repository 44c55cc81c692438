// The search page. Names of photos only ever become text, never markup.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const RESULTS = 24; // of a page of results
const SIDES = ["left", "top", "right", "bottom"];
const fields = SIDES.map((side) => document.querySelector(`#box [name=${side}]`));

let about = { max_upload_bytes: Infinity, photos: 0 };
let query = null; // { file or photo, name, url, width, height }: what is chosen
let box = null; // [left, top, right, bottom] in pixels of the upright photo
let view = { kind: "collection", page: 1, pages: 1 };
let answer = null; // of the last search, and the query that it was made with
let explained = null;
let latest = 0; // of the requests whose answer is shown: an earlier one that is late is dropped

// ---- requests ------------------------------------------------------------------------------------

async function ask(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The server cannot be reached. Is ames serve still running?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const text = said.error || `the server answered with status ${response.status}`;
  throw Object.assign(new Error(`${text[0].toUpperCase()}${text.slice(1)}.`), { status: response.status });
}

async function shown(work) {
  const mine = ++latest;
  $("problem").textContent = "";
  document.body.classList.add("busy");
  $("found").setAttribute("aria-busy", "true");
  try {
    const made = await work();
    if (mine === latest && made) made();
  } catch (error) {
    if (mine === latest) fail(error);
  } finally {
    if (mine === latest) {
      document.body.classList.remove("busy");
      $("found").removeAttribute("aria-busy");
    }
  }
}

function fail(error) {
  $("problem").textContent = error.message;
  $("status").textContent = "";
}

const photo = (id, kind) => `api/photos/${id}/${kind}`;

// ---- the query -----------------------------------------------------------------------------------

async function choose(file) {
  if (file.size > about.max_upload_bytes) {
    return fail(new Error(`${file.name || "The photo"} is larger than ${size(about.max_upload_bytes)}.`));
  }
  await shown(async () => {
    const found = await viewable(file);
    return () => take({ file, name: file.name || "pasted photo", ...found });
  });
}

// A format that the browser cannot show, such as HEIC, comes back from the server as a JPEG.
async function viewable(file) {
  const url = URL.createObjectURL(file);
  try {
    return { url, ...(await measured(url)) };
  } catch {
    URL.revokeObjectURL(url);
    const response = await ask("api/preview", { method: "POST", body: file, headers: bytes });
    const [width, height] = ["Width", "Height"].map((side) => Number(response.headers.get(`X-Photo-${side}`)));
    return { url: URL.createObjectURL(await response.blob()), width, height };
  }
}

const bytes = { "Content-Type": "application/octet-stream" };

function measured(url) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done({ width: image.naturalWidth, height: image.naturalHeight });
    image.onerror = () => failed(new Error("The photo cannot be shown."));
    image.src = url;
  });
}

function take(chosen, { searched = false } = {}) {
  query = chosen;
  $("preview").src = chosen.url;
  $("preview").alt = `Photo to search with: ${chosen.name}`;
  $("chosen").hidden = false;
  $("query").classList.add("compact");
  $("drop-title").textContent = "Choose another photo";
  fields.forEach((field, side) => { field.max = side % 2 ? chosen.height : chosen.width; });
  setBox(null);
  if (!searched) search();
}

function drop() {
  query = null;
  $("file").value = "";
  $("chosen").hidden = true;
  $("query").classList.remove("compact");
  $("drop-title").textContent = "Choose a photo";
  $("preview").removeAttribute("src");
  browse(1);
  $("file").focus();
}

function setBox(sides) {
  box = sides;
  fields.forEach((field, side) => { field.value = sides ? sides[side] : ""; field.placeholder = whole()[side]; });
  $("whole").disabled = !sides;
  const frame = $("frame");
  frame.hidden = !sides;
  if (!sides) return;
  const [left, top, right, bottom] = sides.map((value, side) => (100 * value) / (side % 2 ? query.height : query.width));
  Object.assign(frame.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
}

const whole = () => [0, 0, query.width, query.height];

function typed() {
  const sides = fields.map((field, side) => (field.value === "" ? whole()[side] : Number(field.value)));
  const wrong = sides[0] >= sides[2] || sides[1] >= sides[3] || sides.some((x, i) => x < 0 || x > whole()[2 + (i % 2)]);
  $("problem").textContent = wrong ? "The box is empty, or reaches beyond the photo." : "";
  if (!wrong) setBox(sides.every((x, i) => x === whole()[i]) ? null : sides);
}

function draw(event) {
  if (event.button !== 0) return;
  event.preventDefault();
  const stage = $("stage");
  const from = place(event);
  stage.setPointerCapture(event.pointerId);
  const move = (next) => {
    const to = place(next);
    const sides = [0, 1].map((i) => Math.min(from[i], to[i])).concat([0, 1].map((i) => Math.max(from[i], to[i])));
    if (sides[2] - sides[0] > 3 && sides[3] - sides[1] > 3) setBox(sides);
  };
  const end = () => {
    ["pointermove", "pointerup", "pointercancel"].forEach((name) => stage.removeEventListener(name, name === "pointermove" ? move : end));
    $("search").focus({ preventScroll: true });
  };
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
}

function place(event) {
  const area = $("stage").getBoundingClientRect();
  const share = [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
  return share.map((x, i) => Math.round(Math.min(Math.max(x, 0), 1) * (i ? query.height : query.width)));
}

// ---- results and the collection ------------------------------------------------------------------

async function found(asked, sides) {
  const words = new URLSearchParams(sides ? { box: sides.join(",") } : {});
  if (asked.photo) words.set("photo", asked.photo);
  const options = asked.photo ? { method: "POST" } : { method: "POST", body: asked.file, headers: bytes };
  return (await ask(`api/search?${words}`, options)).json();
}

function search() {
  const [asked, sides] = [query, box];
  $("status").textContent = "Searching …";
  return shown(async () => {
    const made = await found(asked, sides);
    return () => {
      if (answer && answer.asked !== asked && answer.asked.file) URL.revokeObjectURL(answer.asked.url);
      answer = { ...made, asked, sides };
      resize(asked, made);
      showResults(1);
      if (innerWidth < 860) $("found").scrollIntoView();
    };
  });
}

// The server knows the photo's own size: what is shown of a large one of the collection is smaller.
function resize(asked, { width, height }) {
  if (asked.width === width && asked.height === height) return;
  Object.assign(asked, { width, height });
  if (asked === query) take(asked, { searched: true });
}

function showResults(page) {
  const hits = answer.hits;
  view = { kind: "results", page, pages: Math.max(1, Math.ceil(hits.length / RESULTS)) };
  $("found-title").textContent = "Results";
  $("status").textContent = hits.length
    ? `${hits.length} of ${number(answer.total)} photos for ${answer.sides ? "the box in " : ""}${answer.asked.name}, best first.`
    : "Nothing was found: the photo, or its box, has no features.";
  fill(hits.slice((page - 1) * RESULTS, page * RESULTS));
}

function browse(page) {
  $("status").textContent = "";
  return shown(async () => {
    const made = await (await ask(`api/photos?page=${page}`)).json();
    return () => {
      view = { kind: "collection", page: made.page, pages: made.pages };
      $("found-title").textContent = "Collection";
      $("status").textContent = `${number(made.total)} photos. Search with one of them, or with your own.`;
      fill(made.photos);
    };
  });
}

function fill(photos) {
  $("photos").replaceChildren(...photos.map(card));
  $("browse").hidden = view.kind === "collection";
  $("pages").hidden = view.pages < 2;
  $("page").value = view.page;
  $("page").max = view.pages;
  $("count").textContent = number(view.pages);
  $("previous").disabled = view.page <= 1;
  $("next").disabled = view.page >= view.pages;
}

function card(hit) {
  const made = $("card").content.cloneNode(true);
  const [open, like, image] = [".open", ".like", "img"].map((part) => made.querySelector(part));
  image.src = photo(hit.id, "thumbnail");
  image.alt = hit.rank ? "" : `Photo ${hit.name}`;
  image.onerror = () => { image.alt = "no longer there"; image.parentNode.classList.add("gone"); };
  const name = made.querySelector(".name");
  if (hit.rank) {
    const rank = document.createElement("span");
    rank.className = "rank";
    rank.textContent = hit.rank;
    name.append(rank);
    const scores = [["Blended", hit.score, 3], ["Global", hit.global, 3], ["Local", hit.local, 2]];
    made.querySelector(".scores").append(...scores.map(score));
    made.querySelector(".meter span").style.width = `${100 * Math.min(Math.max(hit.score ?? 0, 0), 1)}%`;
    open.onclick = () => explain(hit, open);
    open.title = "Show the matches";
  } else {
    for (const part of [".scores", ".meter", ".like"]) made.querySelector(part).remove();
    open.onclick = () => likeThis(hit);
    open.title = "Search with this photo";
  }
  const text = document.createElement("span");
  text.className = "text";
  for (const part of hit.name.split(/(?<=[\/_.\- ])/)) text.append(part, document.createElement("wbr"));
  name.append(text);
  open.title = `${hit.name}\n${open.title}`;
  like.setAttribute("aria-label", `Search with ${hit.name}`);
  like.onclick = () => likeThis(hit);
  return made;
}

function score([what, value, digits]) {
  const line = document.createElement("span");
  const [label, figure] = ["span", "span"].map((tag) => document.createElement(tag));
  label.textContent = `${what} `;
  figure.textContent = value === null ? "none" : value.toFixed(digits);
  line.append(label, figure, " ");
  return line;
}

function likeThis(hit) {
  return shown(async () => {
    const url = photo(hit.id, "image");
    const sizes = await measured(url).catch(() => { throw new Error("This photo is no longer in its folder."); });
    return async () => {
      take({ photo: hit.id, name: hit.name, url, ...sizes });
      scrollTo({ top: 0 });
    };
  });
}

function turn(page) {
  const wanted = Math.min(Math.max(1, Math.round(page) || 1), view.pages);
  const made = view.kind === "results" ? showResults(wanted) : browse(wanted);
  $("found").scrollIntoView({ block: "start" });
  return made;
}

// ---- matches -------------------------------------------------------------------------------------

async function explain(hit, opener) {
  const dialog = $("matches");
  explained = null;
  $("matches-title").textContent = hit.name;
  $("matches-status").textContent = "Looking for matches …";
  $("drawing").replaceChildren($("drawing-title"));
  $("matches-tools").hidden = true;
  dialog.onclose = () => { explained = null; opener.focus(); };
  dialog.showModal();
  const mine = answer;
  try {
    const made = await matchesOf(mine, hit);
    const sizes = await Promise.all([measured(mine.asked.url), measured(photo(hit.id, "image"))]);
    if (!dialog.open || answer !== mine) return;
    explained = { made, hit, asked: mine.asked, sizes };
    $("shown").max = made.links.length;
    $("shown").value = Math.min(30, made.links.length);
    $("matches-tools").hidden = false;
    drawMatches();
  } catch (error) {
    $("matches-status").textContent = error.message;
  }
}

async function matchesOf(from, hit) {
  const get = () => ask(`api/explain?${new URLSearchParams({ query: from.query, photo: hit.id })}`);
  try {
    return await (await get()).json();
  } catch (error) {
    if (error.status !== 410) throw error; // the server keeps the last searches only
    from.query = (await found(from.asked, from.sides)).query;
    return (await get()).json();
  }
}

function drawMatches() {
  if (!explained) return;
  const { made, hit, asked, sizes } = explained;
  const count = Number($("shown").value);
  const areas = layout(sizes, innerWidth < 640);
  const unit = Math.max(areas.width / ($("drawing").getBoundingClientRect().width || 1), innerWidth < 480 ? 0 : areas.height / (0.7 * innerHeight));
  const at = (side, row) => {
    const [y, x] = (side ? made.positions_b : made.positions_a)[row];
    const area = areas.of[side];
    return [area.x + x * area.width, area.y + y * area.height];
  };
  const parts = areas.of.map((area, side) => svg("image", { ...area, href: side ? photo(hit.id, "image") : asked.url }));
  const links = made.links.slice(0, count);
  for (const kind of ["tie-under", "tie"]) {
    links.forEach(([a, b], i) => {
      const [[x1, y1], [x2, y2]] = [at(0, a), at(1, b)];
      const width = (0.8 + 2.2 * made.weights[i]) + (kind === "tie" ? 0 : 2);
      parts.push(svg("line", { class: kind, x1, y1, x2, y2, "stroke-width": width, opacity: 0.4 + 0.6 * made.weights[i] }));
    });
  }
  parts.push(...dots(links, [made.shares_a, made.shares_b], at, unit));
  $("drawing").setAttribute("viewBox", `0 0 ${areas.width} ${areas.height}`);
  $("drawing-title").textContent = `${links.length} matches between ${asked.name} and ${hit.name}`;
  $("drawing").replaceChildren($("drawing-title"), ...parts);
  $("shown-count").textContent = `${links.length} of ${made.links.length}`;
  const scores = [["blended", hit.score, 3], ["global", hit.global, 3], ["local", hit.local, 2]];
  const text = scores.map(([what, value, digits]) => `${what} ${value === null ? "none" : value.toFixed(digits)}`).join(", ");
  $("matches-status").textContent = `Rank ${hit.rank}: ${text}. ${made.links.length} matches.`;
}

// Both photos at one height side by side, or at one width one above the other.
function layout([a, b], stacked) {
  const gap = 16;
  const common = 1000;
  const of = [a, b].map(({ width, height }) => (stacked
    ? { x: 0, y: 0, width: common, height: (common * height) / width }
    : { x: 0, y: 0, width: (common * width) / height, height: common }));
  if (stacked) of[1].y = of[0].height + gap; else of[1].x = of[0].width + gap;
  return { of, width: of[1].x + of[1].width, height: of[1].y + of[1].height };
}

function dots(links, shares, at, unit) {
  const most = Math.max(1e-9, ...shares.flat().map(Math.abs));
  return [0, 1].flatMap((side) => [...new Set(links.map((link) => link[side]))].map((row) => {
    const share = shares[side][row];
    const [cx, cy] = at(side, row);
    return svg("circle", { class: share < 0 ? "less" : "more", cx, cy, r: unit * (2.5 + 8 * Math.sqrt(Math.abs(share) / most)) });
  }));
}

function svg(tag, values) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  return made;
}

// ---- the page ------------------------------------------------------------------------------------

const number = (value) => value.toLocaleString("en");
const size = (value) => (value < 1e6 ? `${(value / 1e3).toPrecision(3)} kB` : `${(value / 1e6).toPrecision(3)} MB`);
const pictureOf = (data) => [...(data?.files ?? [])].find((file) => file.type.startsWith("image/") || !file.type);

$("file").onchange = () => { if ($("file").files[0]) choose($("file").files[0]); };
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); document.body.classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const file = pictureOf(event.dataTransfer);
  if (file) choose(file); else fail(new Error("Drop the file of a photo."));
});
document.addEventListener("paste", (event) => {
  const file = pictureOf(event.clipboardData);
  if (file) choose(file);
});
$("stage").addEventListener("pointerdown", draw);
fields.forEach((field) => {
  field.onchange = typed;
  field.onfocus = () => field.select(); // what is typed replaces it
  field.onkeydown = (event) => { if (event.key === "Enter") { typed(); if (!$("problem").textContent) search(); } };
});
$("search").onclick = search;
$("whole").onclick = () => { setBox(null); search(); };
$("clear").onclick = drop;
$("browse").onclick = () => browse(1);
$("previous").onclick = () => turn(view.page - 1);
$("next").onclick = () => turn(view.page + 1);
$("page").onchange = () => turn(Number($("page").value));
$("close").onclick = () => $("matches").close();
$("shown").oninput = drawMatches;
$("search-this").onclick = () => { const { hit } = explained; $("matches").close(); likeThis(hit); };
addEventListener("resize", drawMatches);

ask("api/about").then((response) => response.json()).then((said) => {
  about = said;
  $("about").textContent = `${number(said.photos)} photos · ${said.model} · ${size(said.bytes_per_photo)} per photo`;
}).catch(fail);
browse(1);
