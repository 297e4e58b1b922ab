// Judging: one after the other or as a grid, by a key each, with a way back. Each answer is sent as
// it is given, in order; one that could not be noted is said, and its picture comes again.

const list = document.querySelector("ol.draws");
const cards = [...(list?.querySelectorAll(".draw") ?? [])];
const told = document.getElementById("told");
const progress = document.getElementById("progress");
const view = document.getElementById("view");
const back = document.getElementById("back");
const begin = document.getElementById("begin");
const kept = (name, value) => {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null; // a browser that keeps nothing
  }
};

// Who one is, from the last time.
const by = begin?.querySelector("[name=by]");
if (by) {
  by.value ||= kept("pgclip by") ?? "";
  begin.addEventListener("submit", () => kept("pgclip by", by.value));
}
// A page that was posted is asked for again by its address.
if (cards.length) {
  const asked = new URLSearchParams([...new FormData(begin)].filter(([, value]) => value));
  history.replaceState(null, "", `review?${asked}`);
}

const said = []; // cards that were answered, in that order
let sent = Promise.resolve();
let now = 0;

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
  told.textContent = left ? `${said.length} of ${cards.length} judged` : "All judged. More, or teach?";
  told.classList.remove("wrong");
}

function answer(card, value) {
  if (card.dataset.said === value) return;
  if (!said.includes(card)) said.push(card);
  card.dataset.said = value;
  tell();
  send(card, value);
  const left = cards.findIndex((each, at) => at > cards.indexOf(card) && !each.dataset.said);
  const first = left < 0 ? cards.findIndex((each) => !each.dataset.said) : left;
  if (first >= 0) show(first);
  else begin.querySelector("button").focus();
}

function takeBack() {
  const card = said.pop();
  if (!card) return;
  delete card.dataset.said;
  tell();
  send(card, "back");
  show(cards.indexOf(card));
}

function send(card, value) {
  const form = new FormData(card.querySelector("form"));
  form.set("answer", value);
  sent = sent.then(async () => {
    const answered = await fetch("judge", { method: "POST", body: form, keepalive: true }).catch(() => null);
    if (answered?.ok) return;
    const why = answered ? (await answered.json().catch(() => ({}))).error : "nobody answers";
    if (card.dataset.said === value) {
      delete card.dataset.said;
      said.splice(said.indexOf(card), 1);
      tell();
    }
    told.textContent = `Not noted: ${why ?? answered.statusText}`;
    told.classList.add("wrong");
  });
}

function choose(isGrid) {
  list.classList.toggle("single", !isGrid);
  view.textContent = isGrid ? "One by one (g)" : "As a grid (g)";
  kept("pgclip grid", isGrid ? "yes" : "no");
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
    card.addEventListener("focusin", () => {
      now = cards.indexOf(card);
      cards.forEach((each) => each.classList.toggle("now", each === card));
    });
  }
  choose(kept("pgclip grid") === "yes");
  tell();
  addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const value = { y: "yes", n: "no", u: "unsure" }[event.key.toLowerCase()];
    if (value) answer(cards[now], value);
    else if (event.key === "b") takeBack();
    else if (event.key === "g") choose(list.classList.contains("single"));
    else if (event.key === "ArrowRight") show(now + 1);
    else if (event.key === "ArrowLeft") show(now - 1);
    else return;
    event.preventDefault();
  });
}
