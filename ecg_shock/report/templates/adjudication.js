"use strict";

const settings = JSON.parse(document.getElementById("settings").textContent);
const strips = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const KEPT = `ecg-shock-queue-${settings.queue}`;
const UNITS_PER_MM = 10, MM_PER_S = 25, MM_PER_MV = 10;
const UNITS_PER_S = UNITS_PER_MM * MM_PER_S, UNITS_PER_MV = UNITS_PER_MM * MM_PER_MV;
const STEP_S = 1, MIN_S = 1, MIN_MV = 1, STEP_MV = 0.5;

// What was answered: the reader, the strip that is shown, and for each strip that was touched
// {answer, reason, start, end, asked, informed}: whether the opinion was shown, and whether before the answer.
let state = { reader: "", current: 0, answers: {} };
let keeps = true;

function restore() {
  let kept = null;
  try {
    kept = localStorage.getItem(KEPT);
    localStorage.setItem(KEPT, kept ?? "{}");
  } catch {
    keeps = false;
  }
  try {
    const parsed = JSON.parse(kept ?? "{}");
    if (parsed.answers) state = { ...state, ...parsed };
  } catch {
    // What was kept is damaged: begin again.
  }
  state.current = Math.min(Math.max(0, state.current | 0), Math.max(0, strips.length - 1));
}

function keep() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(state));
  } catch {
    keeps = false;
  }
}

const blank = (strip) => ({ answer: "", reason: "", start: strip.start, end: strip.end, asked: false, informed: false });
const entryOf = (index) => state.answers[index] ?? blank(strips[index]);
const answered = () => Object.values(state.answers).filter((entry) => entry.answer).length;

function change(values) {
  state.answers[state.current] = { ...entryOf(state.current), ...values };
  keep();
  show();
}

function say(text) {
  at("message").textContent = text;
  at("message").hidden = !text;
}

// --- Drawing

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => {
    const unit = view.getInt16(2 * i, true);
    return unit === settings.invalid ? NaN : unit * settings.mvPerUnit;
  });
}

function path(mv, first, last, middle, half) {
  let d = "", x = 0, y = 0, down = false;
  for (let i = Math.max(first, 0); i < Math.min(last, mv.length); i++) {
    if (Number.isNaN(mv[i])) { down = false; continue; }
    const nextX = Math.round(((i - first) / settings.fs) * UNITS_PER_S);
    const nextY = Math.round(middle - Math.min(half, Math.max(-half, mv[i])) * UNITS_PER_MV);
    d += down ? `l${nextX - x} ${nextY - y}` : `M${nextX} ${nextY}`;
    [x, y, down] = [nextX, nextY, true];
  }
  return d;
}

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const two = (number) => String(number).padStart(2, "0");
  return `${Math.floor(tenths / 36000)}:${two(Math.floor(tenths / 600) % 60)}:${two(Math.floor(tenths / 10) % 60)}.${tenths % 10}`;
}

// Rows of ECG paper with all leads; the middle row begins with the window.
function draw(strip, entry) {
  const leads = strip.leads.map(({ name, ecg }) => {
    const mv = decode(ecg);
    const reach = mv.reduce((most, value) => (Number.isNaN(value) ? most : Math.max(most, Math.abs(value))), 0);
    const half = Math.min(Math.max(Math.ceil(reach / STEP_MV) * STEP_MV, MIN_MV), settings.maxMv);
    return { name: reach > half ? `${name}, drawn up to ±${half} mV` : name, mv, half };
  });
  const height = leads.reduce((sum, { half }) => sum + 2 * half * UNITS_PER_MV, 0);
  const lastS = strip.contextStart + Math.max(0, ...leads.map(({ mv }) => mv.length)) / settings.fs;
  const rows = [];
  for (let startS = strip.start - settings.rowS; startS < lastS; startS += settings.rowS) {
    const fromS = Math.max(startS, strip.contextStart), toS = Math.min(startS + settings.rowS, lastS);
    if (toS <= fromS) continue;
    const width = Math.ceil((toS - fromS) * MM_PER_S) * UNITS_PER_MM;
    const row = svg("svg", {
      class: "paper", role: "img", width: `${width / UNITS_PER_MM}mm`, height: `${height / UNITS_PER_MM}mm`,
      viewBox: `0 0 ${width} ${height}`, "aria-label": `ECG from ${clock(fromS)}, ${(toS - fromS).toFixed(1)} s`,
    });
    const [left, right] = [entry.start, entry.end].map((s) => Math.min(width, Math.max(0, Math.round((s - fromS) * UNITS_PER_S))));
    row.append(svg("use", { href: "#paper" }));
    if (right > left) row.append(svg("rect", { x: left, y: 0, width: right - left, height, class: "shade" }));
    const first = Math.round((fromS - strip.contextStart) * settings.fs);
    const last = Math.round((toS - strip.contextStart) * settings.fs);
    let top = 0;
    for (const { name, mv, half } of leads) {
      const middle = top + half * UNITS_PER_MV;
      row.append(svg("path", { d: path(mv, first, last + 1, middle, half), class: "trace" }));
      row.append(svg("text", { x: 8, y: top + 34, class: "lead" }, name));
      top += 2 * half * UNITS_PER_MV;
    }
    row.append(svg("text", { x: 8, y: height - 8, class: "time" }, clock(fromS)));
    rows.push(row);
  }
  return rows;
}

const titleOf = (strip, index) => `${index + 1} of ${strips.length}: record ${strip.shownRecord}, ${strip.when}`;
const labelOf = (strip) => `The database says: ${strip.label}. Patient ${strip.patient}.`;

function show() {
  at("progress").textContent = `${answered()} of ${strips.length} answered`;
  if (!strips.length) return;
  const strip = strips[state.current], entry = entryOf(state.current);
  at("title").textContent = titleOf(strip, state.current);
  at("label").textContent = labelOf(strip);
  at("ecg").replaceChildren(...draw(strip, entry));
  for (const button of document.querySelectorAll("[data-answer]")) {
    button.setAttribute("aria-pressed", String(button.dataset.answer === entry.answer));
  }
  for (const id of ["start", "end", "reason"]) if (document.activeElement !== at(id)) at(id).value = entry[id];
  at("opinion").hidden = !entry.asked;
  at("opinion").textContent = entry.asked ? opinionOf(strip) : "";
  at("previous").disabled = state.current === 0;
  at("next").disabled = state.current === strips.length - 1;
  if (!keeps) say("This browser cannot keep your answers. Save them before you close the page.");
}

function opinionOf(strip) {
  const shocks = strip.opinions.filter((opinion) => opinion >= 0.5).length;
  const seen = strip.seen ? " Some of them were trained or selected on this patient." : "";
  return `${shocks} of ${strip.opinions.length} networks advise a shock (opinions ${strip.opinions.join(", ")}; ` +
    `0.5 is the threshold). Disagreement ${strip.disagreement}, contradiction of the label ${strip.contradiction}, ` +
    `closeness to the threshold ${strip.closeness}, score ${strip.score}.${seen}`;
}

// --- Answering

function go(index) {
  if (index < 0 || index >= strips.length) return;
  document.activeElement?.blur();
  state.current = index;
  keep();
  show();
}

const choose = (answer) => change({ answer, informed: entryOf(state.current).asked });

function nextUnanswered() {
  for (let step = 1; step <= strips.length; step++) {
    const index = (state.current + step) % strips.length;
    if (!entryOf(index).answer) return go(index);
  }
  say("All strips have an answer.");
}

// The segment stays within what is shown, and within the label of the database.
function move(start, end) {
  const strip = strips[state.current];
  const samples = Math.max(0, ...strip.leads.map(({ ecg }) => decode(ecg).length));
  const low = Math.max(strip.contextStart, strip.from);
  const high = Math.min(strip.contextStart + samples / settings.fs, strip.to);
  const fits = (value) => Math.round(Math.min(high, Math.max(low, value)) * 1000) / 1000;
  [start, end] = [fits(start), fits(end)];
  if (Number.isFinite(start) && Number.isFinite(end) && end - start >= MIN_S) change({ start, end });
  else show();
}

const actions = {
  ArrowLeft: () => go(state.current - 1),
  ArrowRight: () => go(state.current + 1),
  u: nextUnanswered,
  x: () => change({ answer: "" }),
  r: () => change({ start: strips[state.current].start, end: strips[state.current].end }),
  c: () => at("reason").focus(),
  o: () => change({ asked: true }),
  "[": (entry) => move(entry.start - STEP_S, entry.end),
  "]": (entry) => move(entry.start, entry.end + STEP_S),
  "{": (entry) => move(entry.start + STEP_S, entry.end),
  "}": (entry) => move(entry.start, entry.end - STEP_S),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return document.activeElement?.blur();
  // On some keyboards, brackets need AltGr, which also counts as Ctrl and Alt.
  const isShortcut = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph");
  if (!strips.length || isShortcut || event.target.matches?.("input")) return;
  const answer = Object.hasOwn(settings.keys, event.key) ? settings.keys[event.key] : undefined;
  const action = Object.hasOwn(actions, event.key) ? actions[event.key] : undefined;
  if (!answer && !action) return;
  event.preventDefault();
  say("");
  if (answer) choose(answer);
  else action(entryOf(state.current));
});

// --- Saving

function quoted(text) {
  const valid = text.replace(/[\ud800-\udfff]/gu, "\ufffd"); // TOML has no lone surrogates
  return JSON.stringify(valid).replaceAll("\u007f", "\\u007f");
}

function toToml() {
  const tables = { corrections: [], unchanged: [] };
  for (const [index, strip] of strips.entries()) {
    const entry = entryOf(index);
    if (!entry.answer) continue;
    const same = entry.answer === strip.ahaClass || entry.answer === settings.cannotSay;
    tables[same ? "unchanged" : "corrections"].push({ strip, entry });
  }
  const lines = [
    "# Answers of a human reader to a queue of `ecg-shock adjudicate`.",
    "format = 1",
    `queue = ${quoted(settings.queue)}`,
  ];
  for (const [table, rows] of Object.entries(tables)) {
    for (const { strip, entry } of rows) {
      lines.push(
        "", `[[${table}]]`,
        `record = ${quoted(strip.record)}`,
        `start_s = ${entry.start.toFixed(3)}`,
        `end_s = ${entry.end.toFixed(3)}`,
        `old = ${quoted(strip.old)}`,
        `new = ${quoted(entry.answer)}`,
        `reason = ${quoted(entry.reason)}`,
        `reader = ${quoted(state.reader)}`,
        `opinion_shown = ${entry.informed}`,
      );
    }
  }
  return { text: `${lines.join("\n")}\n`, corrections: tables.corrections.length, unchanged: tables.unchanged.length };
}

function save() {
  if (!state.reader.trim()) {
    at("reader").focus();
    return say("Write your name first: each answer is saved with the name of its reader.");
  }
  const { text, corrections, unchanged } = toToml();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/toml" }));
  link.download = settings.fileName;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  say(`Saved as ${settings.fileName}: ${corrections} corrections, ${unchanged} answers that change nothing.`);
}

at("reader").addEventListener("input", () => { state.reader = at("reader").value; keep(); });
at("save").addEventListener("click", save);
if (strips.length) {
  for (const button of document.querySelectorAll("[data-answer]")) {
    button.addEventListener("click", () => choose(button.dataset.answer));
  }
  at("reason").addEventListener("input", () => change({ reason: at("reason").value }));
  for (const id of ["start", "end"]) {
    at(id).addEventListener("change", () => {
      const [start, end] = [at("start").valueAsNumber, at("end").valueAsNumber];
      at(id).blur();
      move(start, end);
    });
  }
  at("previous").addEventListener("click", actions.ArrowLeft);
  at("next").addEventListener("click", actions.ArrowRight);
  at("unanswered").addEventListener("click", nextUnanswered);
  at("ask").addEventListener("click", actions.o);
}

// All strips are printed, one on a page, with the answers.
addEventListener("beforeprint", () => {
  at("print").replaceChildren(
    ...strips.map((strip, index) => {
      const entry = entryOf(index), section = document.createElement("section");
      const lines = [labelOf(strip), `Answer: ${settings.labels[entry.answer] ?? "________________"}   ${entry.reason}`];
      const title = document.createElement("h2");
      title.textContent = titleOf(strip, index);
      const texts = lines.map((line) => Object.assign(document.createElement("p"), { textContent: line }));
      section.append(title, ...texts, ...draw(strip, entry));
      return section;
    }),
  );
});
addEventListener("afterprint", () => at("print").replaceChildren());

restore();
at("reader").value = state.reader;
show();
