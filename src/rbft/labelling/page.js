// The page of a labelling session. All text from elsewhere goes in by textContent.
"use strict";

const at = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)}%`;
let clips = [], classes = [], order = [], wanted = 0, place = 0, labelled = 0, asksRun = false, explains = false;
let chances = new Map(), done = [], asking = null, stills = false, saving = false, adding = "";

function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text !== null) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function say(text) { at("status").textContent = text; at("problem").hidden = true; }

function fail(text) { at("status").textContent = ""; at("problem").textContent = text; at("problem").hidden = false; }

async function ask(address, options = {}) {
  const response = await fetch(address, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail || `The server answered ${response.status}.`);
  return answer;
}

const current = () => order[place];

function found() {
  const text = at("wanted").value.trim().toLowerCase();
  return classes.filter((entry) => entry.name.toLowerCase().includes(text));
}

function drawClasses() {
  const shown = found();
  at("classes").replaceChildren(...shown.map((entry, number) => {
    const item = make("li", null), has = clips[current()].label === entry.name;
    const button = make("button", null, { type: "button", "aria-pressed": has, "data-class": entry.name });
    button.append(make("kbd", number < 9 ? `${number + 1}` : " "), make("span", entry.name));
    const chance = chances.get(entry.name);
    button.append(make("span", chance === undefined ? `${entry.count}` : percent(chance), { class: "count" }));
    if (chance !== undefined) button.append(make("meter", null, { min: 0, max: 1, value: chance, "aria-label": `${entry.name} ${percent(chance)}` }));
    button.addEventListener("click", () => give(entry.name));
    item.append(button);
    return item;
  }));
}

function drawProgress() {
  at("progress").textContent = `${labelled} of ${clips.length} clips have a label.`;
  at("bar").max = clips.length;
  at("bar").value = labelled;
  at("undo").disabled = done.length === 0;
}

function showFrames(reason) {
  const number = current(), film = at("film");
  film.pause();
  film.hidden = true;
  at("cannot").hidden = !reason;
  at("cannot").textContent = reason || "";
  at("frames").hidden = false;
  at("frames").replaceChildren();
  ask(`api/frames/${number}`).then((pictures) => {
    if (current() !== number) return;
    at("frames").replaceChildren(...pictures.map((frame) => {
      const item = make("li", null);
      item.append(make("img", null, { src: frame.image, alt: `frame at ${frame.time.toFixed(2)} s` }), make("span", `${frame.time.toFixed(2)} s`));
      return item;
    }));
  }).catch((error) => {
    if (current() !== number) return;
    at("cannot").hidden = false;
    at("cannot").textContent = `This clip cannot be shown: ${error.message}`;
  });
}

function showFilm() {
  const part = clips[current()].part, film = at("film");
  at("frames").hidden = at("cannot").hidden = true;
  film.hidden = false;
  film.src = `api/media/${current()}` + (part ? `#t=${part[0]},${part[1]}` : "");
}

function askRun(rationale) {
  if (!asksRun) return;
  if (asking !== null) asking.abort();
  asking = new AbortController();
  const number = current();
  if (rationale) say("the model looks at this clip");
  ask(`api/answer/${number}?rationale=${rationale}`, { signal: asking.signal }).then((answer) => {
    if (current() !== number) return;
    if (answer.error) { fail(`The run cannot answer: ${answer.error}`); return; }
    chances = new Map(answer.probabilities.map((entry) => [entry.label, entry.probability]));
    at("reason").hidden = !answer.rationale;
    at("reason").querySelector("blockquote").textContent = answer.rationale || "";
    if (rationale) say("");
    drawClasses();
  }).catch((error) => { if (error.name !== "AbortError" && current() === number && rationale) fail(error.message); });
}

function show() {
  const clip = clips[current()];
  chances = new Map();
  at("reason").hidden = true;
  at("wanted").value = "";
  at("name").textContent = clip.label ? `${clip.name}: ${clip.label}` : clip.name;
  at("place").textContent = `${place + 1} of ${order.length}` + (place < wanted ? `, suggested ${place + 1} of ${wanted}` : "");
  at("previous").disabled = place === 0;
  at("next").disabled = place === order.length - 1;
  history.replaceState(null, "", `#${place + 1}`);
  if (stills) showFrames(""); else showFilm();
  drawClasses();
  drawProgress();
  askRun(false);
}

function go(to) {
  if (to < 0 || to >= order.length || to === place) return;
  place = to;
  at("problem").hidden = true;
  show();
}

async function write(number, label) {
  if (saving) return null;  // one after the other: the next key counts when this label is on the disk
  saving = true;
  try {
    const answer = await ask("api/label", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ clip: number, label }) });
    clips[number].label = answer.label;
    labelled = answer.labelled;
    classes = answer.classes;
    return answer;
  } catch (error) {
    fail(`Not saved: ${error.message}`);
    return null;
  } finally { saving = false; }
}

async function give(name) {
  const number = current();
  const answer = await write(number, name);
  if (answer === null) return;
  done.push({ number, before: answer.before });
  at("wanted").blur();
  say(name ? `${clips[number].name}: ${name}, saved` : `${clips[number].name}: label taken off`);
  if (name && current() === number && place < order.length - 1) {
    place += 1;
    if (clips[current()].label && place >= wanted) say(`${at("status").textContent}. All clips without a label are done; what follows has one.`);
  }
  show();
}

async function undo() {
  if (done.length === 0) return;
  const last = done[done.length - 1];
  if (await write(last.number, last.before) === null) return;
  done.pop();
  place = order.indexOf(last.number);
  say(`${clips[last.number].name}: ${last.before || "no label"} again`);
  show();
}

at("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("wanted").value.trim(), shown = found();
  if (!text) return;
  const same = shown.find((entry) => entry.name.toLowerCase() === text.toLowerCase());
  if (same) { give(same.name); return; }
  if (shown.length === 1 && adding !== text) { give(shown[0].name); return; }
  if (adding !== text) { adding = text; say(`${text} is a new class; Enter again adds it and gives it to this clip.`); return; }
  adding = "";
  give(text);
});
at("wanted").addEventListener("input", () => { adding = ""; drawClasses(); });
at("previous").addEventListener("click", () => go(place - 1));
at("next").addEventListener("click", () => go(place + 1));
at("undo").addEventListener("click", undo);
at("clear").addEventListener("click", () => { if (clips[current()].label) give(""); });
at("still").addEventListener("click", () => { stills = !stills; if (stills) showFrames(""); else showFilm(); });
if (at("why")) at("why").addEventListener("click", () => askRun(true));

at("film").addEventListener("error", () => { if (at("film").getAttribute("src")) showFrames("This browser cannot play the clip; these are frames of it."); });
// a picture format that the browser does not know may leave the sound alone
at("film").addEventListener("loadedmetadata", () => { if (at("film").videoWidth === 0) showFrames("This browser cannot play the clip; these are frames of it."); });
at("film").addEventListener("timeupdate", () => {
  const part = clips[current()].part;
  if (part && (at("film").currentTime >= part[1] || at("film").currentTime < part[0] - 0.3)) at("film").currentTime = part[0];
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || clips.length === 0) return;
  if (event.target === at("wanted")) {
    if (event.key === "Escape") { at("wanted").value = ""; adding = ""; at("wanted").blur(); drawClasses(); }
    return;
  }
  const pressed = event.key.toLowerCase(), film = at("film");
  const acts = {
    arrowleft: () => go(place - 1), arrowright: () => go(place + 1), u: undo, x: () => at("clear").click(),
    f: () => at("still").click(), c: () => at("wanted").focus(), e: () => { if (asksRun && explains) askRun(true); },
  };
  if (pressed === " " && event.target.tagName !== "BUTTON" && !film.hidden) { event.preventDefault(); if (film.paused) film.play(); else film.pause(); return; }
  if (/^[1-9]$/.test(pressed)) {
    const entry = found()[Number(pressed) - 1];
    if (entry) give(entry.name);
    event.preventDefault();
    return;
  }
  if (acts[pressed]) { event.preventDefault(); acts[pressed](); }
});

ask("api/state").then((state) => {
  ({ clips, classes, order, wanted, labelled, explains } = state);
  asksRun = state.run;
  if (at("why")) at("why").hidden = !explains;
  const free = order.findIndex((number) => !clips[number].label), asked = Number(location.hash.slice(1)) - 1;
  const start = free < 0 || (wanted > 0 && free >= wanted) ? 0 : free;
  place = asked >= 0 && asked < order.length ? asked : start;
  if (classes.length === 0) say("There is no class yet: press c and write the first one.");
  show();
}).catch((error) => fail(error.message));
