// The page's side of the explorer. The address holds the state, behind its #; the server answers it; nothing else is kept.
"use strict";

const PHASES = ["decode", "prefill", "train"];
const HARDWARE = ["pool", "gpus", "domain", "scale_up", "nic", "oversubscription"];
const QUIET_MS = 250;  // after the last change, before what takes longer is asked for

const $ = (id) => document.getElementById(id);
const form = $("controls"), results = $("results");
const controls = [...form.querySelectorAll("[id][name]")];
const defaults = JSON.parse(form.dataset.defaults);
let params = new URLSearchParams();
let settled = {};                    // by side: what the numbers left open came to

// --- the state ---------------------------------------------------------------------------------------------------

const comparing = () => params.get("compare") === "1";
const side = () => (comparing() && params.get("edit") === "b" ? "b" : "a");
const phase = () => (PHASES.includes(params.get("phase")) ? params.get("phase") : PHASES[0]);
const valueA = (name) => params.get(name) ?? defaults[name];
const value = (name) => (side() === "b" ? params.get("b." + name) ?? valueA(name) : valueA(name));

function set(name, text) {
  const [key, usual] = side() === "b" ? ["b." + name, valueA(name)] : [name, defaults[name]];
  text === usual ? params.delete(key) : params.set(key, text);
}

function view(name, text, usual) {
  text === usual ? params.delete(name) : params.set(name, text);
}

// A change is an entry of the history; while one control is dragged or typed in, that entry is rewritten.
let gesture = "";

function commit(name = "") {
  const address = location.pathname + (params.size ? "#" + params : "");
  if (address === location.pathname + location.hash) return;
  history[name && name === gesture ? "replaceState" : "pushState"](null, "", address);
  gesture = name;
}

// --- the controls ------------------------------------------------------------------------------------------------

function paint() {
  $("compare").checked = comparing();
  $("edit").hidden = !comparing();
  for (const radio of form.elements.edit) radio.checked = radio.value === side();
  for (const radio of document.getElementsByName("phase")) radio.checked = radio.value === phase();
  for (const control of controls) {
    if (control.value !== value(control.name)) show(control, value(control.name));
    slide(control.name);
    box(control.name).classList.toggle("differs", side() === "b" && params.has("b." + control.name));
  }
  for (const kind of ["cluster", "model"]) box(kind + "_file").hidden = value(kind) !== "own";
  box("pool").hidden = value("cluster") !== "own";
}

function show(control, text) {
  if (control.tagName === "SELECT" && ![...control.options].some((option) => option.value === text)) {
    control.add(new Option(text));  // an address may hold a name that is not in the list: the server says so
  }
  control.value = text;
}

const box = (name) => form.querySelector(`[data-field="${name}"]`);

function slide(name) {
  const slider = form.querySelector(`[type=range][data-for="${name}"]`);
  if (!slider) return;
  const usual = settled[side()]?.[name] ?? "";
  $(name).placeholder = usual;
  const number = parseFloat(value(name) || usual);
  const notches = slider.dataset.notches.split(" ").map(Number);
  const near = notches.reduce((best, notch, i) => (Math.abs(notch - number) < Math.abs(notches[best] - number) ? i : best), 0);
  if (Number.isFinite(number) && document.activeElement !== slider) slider.value = near;
  slider.setAttribute("aria-valuetext", value(name) || usual);
}

function changed(name, text) {
  set(name, text);
  commit(name);
  paint();
  refresh();
}

form.addEventListener("input", (event) => {
  const { dataset, type, name } = event.target;
  if (type === "range") {
    changed(dataset.for, dataset.notches.split(" ")[event.target.value]);
  } else if (name in defaults && event.target.tagName !== "SELECT") {
    changed(name, event.target.value);
  }
});

form.addEventListener("change", async (event) => {
  const { dataset, type, name, value: text } = event.target;
  if (event.target.id === "compare") {
    view("compare", event.target.checked ? "1" : "", "");
    view("edit", event.target.checked ? "b" : "a", "a");
  } else if (name === "edit") {
    view("edit", text, "a");
  } else if (type === "file") {
    const file = event.target.files[0];
    if (!file) return;
    if (file.size > $(dataset.for).maxLength) {
      return complain([{ label: $(dataset.for).name, problem: `${file.name} is larger than ${$(dataset.for).maxLength} bytes` }]);
    }
    set(dataset.for, await file.text());
    event.target.value = "";
  } else if (event.target.tagName === "SELECT") {
    if (text === "own") await start(name);
    else if (name === "cluster") HARDWARE.forEach((field) => set(field, ""));
    set(name, text);
  }
  commit();
  gesture = "";
  paint();
  refresh();
});

// A file of one's own starts as what is shown now.
async function start(kind) {
  const field = kind + "_file";
  const reply = value(field) ? null : await post("spec");
  if (reply?.ok) {
    set(field, reply.specs[side()].texts[kind]);
    if (kind === "cluster") HARDWARE.forEach((name) => set(name, ""));
  }
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => {
  event.preventDefault();
  params = new URLSearchParams();
  commit();
  paint();
  refresh();
});

for (const radio of document.getElementsByName("phase")) {
  radio.addEventListener("change", () => {
    view("phase", radio.value, PHASES[0]);
    commit();
    refresh();
  });
}

function load() {
  params = new URLSearchParams(location.hash.slice(1));
  paint();
  refresh();
}
addEventListener("popstate", load);

// --- the answers -------------------------------------------------------------------------------------------------

let turn = 0, busy = false, quiet = 0, changedAt = 0, wanted = null;

async function post(path, body = params.toString()) {
  try {
    const reply = await fetch(path, { method: "POST", body, headers: { "Content-Type": "application/x-www-form-urlencoded" } });
    const found = await reply.json();
    return { ok: !found.faults, ...found };
  } catch {
    return { ok: false, faults: [{ label: "server", problem: "podscale explore does not answer", remedy: "start it again" }] };
  }
}

// One request is under way at a time; what changes meanwhile is asked for next, what is older is never shown.
async function refresh() {
  if (wanted === params.toString()) return;
  wanted = params.toString();
  turn += 1;
  changedAt = performance.now();
  clearTimeout(quiet);
  results.setAttribute("aria-busy", "true");
  if (busy) return;
  busy = true;
  let sound = true;
  for (let asked = 0; asked !== turn;) {
    asked = turn;
    const since = changedAt, shown = phase();
    const reply = await post(`answer/${shown}`);
    sound = reply.ok;
    if (!sound) {
      if (asked === turn) {
        complain(reply);
        wanted = null;
      }
      continue;
    }
    mended();
    settled = reply.settled;
    for (const [id, html] of Object.entries(reply.html)) $(id === "card" ? `card-${shown}` : id).innerHTML = html;
    paint();
    results.dataset.answered = asked;
    results.dataset.took = performance.now() - since;
    const wired = await post("wiring");
    if (wired.ok && asked === turn) put("wiring", wired.html);
  }
  busy = false;
  results.setAttribute("aria-busy", "false");
  if (sound) quiet = setTimeout(later, QUIET_MS, turn);
}

// What takes longer: the other phases, the loads on links, the files, the assumptions.
async function later(asked) {
  const rest = [...PHASES.filter((name) => name !== phase()).map((name) => `answer/${name}`), "spec", "assumptions", "loads"];
  for (const path of rest) {
    if (path === "loads") await new Promise((resolve) => setTimeout(resolve, 4 * QUIET_MS));
    if (asked !== turn) return;
    const reply = await post(path);
    if (asked !== turn) return;
    if (!reply.ok) continue;
    if (path.startsWith("answer")) $(`card-${path.split("/")[1]}`).innerHTML = reply.html.card;
    else put({ loads: "wiring" }[path] ?? path, reply.html);
  }
  results.dataset.complete = params.toString();
}

function put(id, html) {
  const open = [...$(id).querySelectorAll("details")].map((details) => details.open);
  $(id).innerHTML = html;
  $(id).querySelectorAll("details").forEach((details, i) => (details.open = open[i] ?? details.open));
}

function complain(reply) {
  const found = Array.isArray(reply) ? reply : reply.faults;
  mended();
  results.classList.add("stale");
  if (!results.dataset.answered) $("headline").textContent = "No answer yet.";
  $("faults").hidden = false;
  if (reply.html) $("faults").innerHTML = reply.html;
  else $("faults").textContent = found.map((fault) => [fault.label, fault.problem, fault.remedy].filter(Boolean).join(": ")).join("\n");
  for (const fault of found.filter((one) => one.control && one.side === side())) {
    $(fault.control).setAttribute("aria-invalid", "true");
    box(fault.control).classList.add("wrong");
  }
}

function mended() {
  $("faults").hidden = true;
  $("faults").textContent = "";
  results.classList.remove("stale");
  for (const control of controls) control.removeAttribute("aria-invalid");
  for (const wrong of form.querySelectorAll(".wrong")) wrong.classList.remove("wrong");
}

$("faults").addEventListener("click", (event) => {
  const { control, side: owner } = event.target.dataset;
  if (!control) return;
  event.preventDefault();
  view("edit", owner, "a");
  commit();
  paint();
  $(control).focus();
});

// --- sharing -----------------------------------------------------------------------------------------------------

function say(text) {
  $("status").textContent = text;
  setTimeout(() => ($("status").textContent = ""), 4000);
}

$("share").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is on the clipboard.");
  } catch {
    say("Copy the address from the browser's address bar.");
  }
});

$("spec").addEventListener("click", async (event) => {
  const { download, side: owner } = event.target.dataset;
  if (!download) return;
  const reply = await post("spec");
  if (!reply.ok) return complain(reply);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([reply.specs[owner].files[download]], { type: "text/plain" }));
  link.download = download;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});

load();
