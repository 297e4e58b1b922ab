// Judging: one after the other or as a grid, by a key each, with a way back. Each answer is sent as
// it is given; one that could not be noted is said, and its card shows what is noted. Who leaves
// before all is sent has the rest sent behind them.

import { keep } from "./browse.js";

const list = document.querySelector("ol.draws");
const cards = [...(list?.querySelectorAll(".draw") ?? [])];
const told = document.getElementById("told");
const refused = document.getElementById("refused");
const progress = document.getElementById("progress");
const view = document.getElementById("view");
const back = document.getElementById("back");
const begin = document.getElementById("begin");

// Who one is, from the last time.
const by = begin?.querySelector("[name=by]");
if (by) {
  by.value ||= keep("pgclip by") ?? "";
  begin.addEventListener("submit", () => keep("pgclip by", by.value));
}
// A page that was posted is asked for again by its address.
if (cards.length) {
  const asked = new URLSearchParams([...new FormData(begin)].filter(([, value]) => value));
  history.replaceState(null, "", `review?${asked}`);
}

const said = []; // cards that were answered, in that order
const noted = new Map(); // what the server has of each
const waiting = new Map(); // answers that are not sent yet
let sending = null;
let now = 0;
let revisited = null; // a card to which one came back on purpose

function show(place) {
  now = Math.max(0, Math.min(place, cards.length - 1));
  cards.forEach((card, at) => card.classList.toggle("now", at === now));
  if (!cards.length) return;
  const picture = cards[now].querySelector("img[data-large]");
  if (picture && list.classList.contains("single")) large(picture);
  const next = cards[now + 1]?.querySelector("img[data-large]");
  if (next && list.classList.contains("single")) new Image().src = next.dataset.large;
  cards[now].focus();
}

function visit(place) {
  list.classList.remove("over");
  show(place);
  revisited = cards[now];
}

function large(picture) {
  const small = picture.src;
  picture.addEventListener("error", () => (picture.src = small), { once: true });
  picture.src = picture.dataset.large;
  delete picture.dataset.large;
}

function tell() {
  progress.value = said.length;
  back.disabled = !said.length;
  const left = cards.length - said.length;
  const yes = said.filter((card) => card.dataset.said === "yes").length;
  const no = said.filter((card) => card.dataset.said === "no").length;
  told.textContent = left
    ? `${said.length} of ${cards.length} judged`
    : `All judged: ${yes} yes, ${no} no. Teach (t), or more?`;
  list.classList.toggle("over", !left);
}

function mark(card, value) {
  const place = said.indexOf(card);
  if (place >= 0) said.splice(place, 1);
  if (value) {
    said.push(card);
    card.dataset.said = value;
  } else delete card.dataset.said;
  tell();
}

function answer(card, value) {
  if (card.dataset.said === value) return;
  mark(card, value);
  send(card, value);
  const left = cards.findIndex((each, at) => at > cards.indexOf(card) && !each.dataset.said);
  const first = left < 0 ? cards.findIndex((each) => !each.dataset.said) : left;
  revisited = null;
  if (first >= 0) show(first);
  else {
    begin.querySelector("button").focus({ preventScroll: true });
    told.scrollIntoView({ block: "center" });
  }
}

function takeBack() {
  const card = said.at(-1);
  if (!card) return;
  mark(card, null);
  send(card, "back");
  show(cards.indexOf(card));
}

function form(card, value) {
  const fields = new FormData(card.querySelector("form"));
  fields.set("answer", value);
  return fields;
}

function send(card, value) {
  waiting.delete(card);
  waiting.set(card, value);
  sending ??= sendAll().finally(() => (sending = null));
}

async function sendAll() {
  while (waiting.size) {
    const [[card, value]] = waiting;
    waiting.delete(card);
    const body = form(card, value);
    const answered = await fetch("judge", { method: "POST", body, keepalive: true }).catch(() => null);
    if (answered?.ok) {
      noted.set(card, value === "back" ? null : value);
      continue;
    }
    const why = answered ? (await answered.json().catch(() => ({}))).error : "nobody answers";
    if (!waiting.has(card)) mark(card, noted.get(card) ?? null);
    const line = document.createElement("li");
    line.textContent = `Not noted: ${why ?? answered.statusText}`;
    refused.append(line);
  }
}

// What waits for the answers waits until they are there; what does not has them sent behind it.
addEventListener("submit", async (event) => {
  if (!sending || event.target.closest(".draw")) return;
  event.preventDefault();
  await sending;
  event.target.submit();
});
addEventListener("pagehide", () => {
  for (const [card, value] of waiting) navigator.sendBeacon("judge", form(card, value));
  waiting.clear();
});

function choose(isGrid) {
  list.classList.toggle("single", !isGrid);
  view.textContent = isGrid ? "One by one (g)" : "As a grid (g)";
  keep("pgclip grid", isGrid ? "yes" : "no");
  show(now);
}

if (cards.length) {
  view.hidden = back.hidden = false;
  view.addEventListener("click", () => choose(list.classList.contains("single")));
  back.addEventListener("click", takeBack);
  for (const card of cards) {
    card.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      answer(card, event.submitter.value);
    });
    card.addEventListener("pointerdown", () => (revisited = card));
    card.addEventListener("focusin", () => {
      now = cards.indexOf(card);
      cards.forEach((each) => each.classList.toggle("now", each === card));
    });
  }
  choose(keep("pgclip grid") === "yes");
  tell();
  addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea") || event.repeat) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const value = { y: "yes", n: "no", u: "unsure" }[event.key.toLowerCase()];
    if (value && cards[now].dataset.said && revisited !== cards[now]) return; // all are judged
    if (value) answer(cards[now], value);
    else if (event.key === "b") takeBack();
    else if (event.key === "t" && said.length) document.getElementById("teach").requestSubmit();
    else if (event.key === "g") choose(list.classList.contains("single"));
    else if (event.key === "ArrowRight") visit(now + 1);
    else if (event.key === "ArrowLeft") visit(now - 1);
    else return;
    event.preventDefault();
  });
}
