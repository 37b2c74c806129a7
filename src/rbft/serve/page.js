// The page of a served run: sends the chosen video and shows the answer. All text from elsewhere goes in by textContent.
"use strict";

const SHOWN = 8;
const at = (id) => document.getElementById(id);
const limit = Number(document.body.dataset.maxMb) * 1e6;
let sending = null;

function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text !== null) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const percent = (value) => `${(100 * value).toFixed(1)}%`;

function say(text) { at("status").textContent = text; }

function fail(text) {
  say("");
  at("problem").textContent = text;
  at("problem").hidden = false;
}

function chance(entry) {
  const row = make("div", null, { class: "chance" });
  const meter = make("meter", null, { min: 0, max: 1, value: entry.probability, "aria-label": `${entry.label} ${percent(entry.probability)}` });
  row.append(make("span", entry.label), meter, make("b", percent(entry.probability)));
  return row;
}

function show(answer) {
  at("answer").textContent = `${answer.predicted}, ${answer.at_least ? "at least " : ""}${percent(answer.probability)}`;
  at("about").textContent = `${answer.video}, ${answer.duration.toFixed(1)} s, answered in ${answer.seconds.toFixed(1)} s`;
  at("chances").replaceChildren(...answer.probabilities.slice(0, SHOWN).map(chance));
  const more = answer.probabilities.slice(SHOWN);
  at("rest").hidden = more.length === 0;
  at("rest").querySelector("summary").textContent = `${more.length} more classes`;
  at("rest").querySelector("div").replaceChildren(...more.map(chance));
  at("reason").hidden = !answer.rationale;
  at("reason").querySelector("blockquote").textContent = answer.rationale || "";
  at("frames").replaceChildren(...answer.frames.map((frame) => {
    const item = make("li", null);
    item.append(make("img", null, { src: frame.image, alt: `frame at ${frame.time.toFixed(2)} s` }), make("span", `${frame.time.toFixed(2)} s`));
    return item;
  }));
  at("result").hidden = false;
  at("answer").focus();
}

function busy(is) {
  at("go").disabled = is;
  at("stop").hidden = !is;
  if (!is) { at("bar").hidden = true; sending = null; }
}

function send(file) {
  at("problem").hidden = true;
  at("result").hidden = true;
  if (file.size > limit) {
    fail(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; this server takes at most ${limit / 1e6} MB.`);
    return;
  }
  const form = new FormData();
  form.append("rationale", at("why").checked ? "1" : "0");
  form.append("frames", "1");
  form.append("video", file);
  const request = new XMLHttpRequest();
  sending = request;
  busy(true);
  say(`sending ${file.name}`);
  at("bar").hidden = false;
  request.upload.onprogress = (event) => { if (event.lengthComputable) at("bar").value = event.loaded / event.total; };
  request.upload.onload = () => { at("bar").hidden = true; say(`the model looks at ${file.name}`); };
  request.onerror = () => { busy(false); fail("The server cannot be reached, or it closed the connection."); };
  request.onabort = () => { busy(false); say("cancelled"); };
  request.onload = () => {
    busy(false);
    const answer = request.response;
    if (request.status === 200 && answer) { say(""); show(answer); return; }
    fail(answer && answer.detail ? answer.detail : `The server answered ${request.status}.`);
  };
  request.open("POST", "api/predict");
  request.responseType = "json";
  request.send(form);
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const file = at("video").files[0];
  if (file && sending === null) send(file);
});

at("video").addEventListener("change", () => {
  if (at("video").files.length > 0 && sending === null) send(at("video").files[0]);
});

at("stop").addEventListener("click", () => { if (sending !== null) sending.abort(); });

const zone = at("drop");
for (const name of ["dragover", "dragenter"]) {
  zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
}
zone.addEventListener("dragleave", () => zone.classList.remove("over"));
zone.addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("over");
  if (event.dataTransfer.files.length === 0 || sending !== null) return;
  at("video").files = event.dataTransfer.files;
  send(event.dataTransfer.files[0]);
});
// a video dropped beside the zone would be opened in the place of the page
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
