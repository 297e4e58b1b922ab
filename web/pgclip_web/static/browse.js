// What a page can do besides: further hits as one scrolls, pictures that are dropped, keys, what
// changes by itself. Each works on the page as it was sent; without this all of it is links.

const hits = document.querySelector("ol.hits:not(.near)");
const told = document.getElementById("told");

// Further hits, when the end of those that are shown comes into sight.
const watcher = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) if (isIntersecting) append(target);
}, { rootMargin: "600px" });

async function append(end) {
  watcher.unobserve(end);
  const page = new URL(end.querySelector("a").href);
  const answer = await fetch(`hits${page.search}`);
  if (!answer.ok) return; // the link stays
  const part = document.createElement("template");
  part.innerHTML = await answer.text(); // escaped where it was made
  end.replaceWith(part.content);
  told.textContent = `${hits.querySelectorAll(".hit").length} hits`;
  watch();
}

function watch() {
  const end = hits?.querySelector(".further");
  if (end) watcher.observe(end);
}
watch();

// What is among the hits, once somebody wants it; whoever wanted it wants it next time.
const facets = document.querySelector(".facets");
if (facets) {
  facets.addEventListener("toggle", async () => {
    keep("pgclip facets", facets.open ? "open" : "");
    if (!facets.open || facets.dataset.is) return;
    facets.dataset.is = "there";
    const answer = await fetch(facets.dataset.from);
    if (!answer.ok) return; // the link stays
    const summary = facets.querySelector("summary");
    facets.innerHTML = await answer.text(); // escaped where it was made
    facets.prepend(summary);
  });
  facets.open = keep("pgclip facets") === "open";
}

// What this browser remembers, if it does.
export function keep(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function fail(why) {
  told.textContent = why;
  told.classList.remove("unseen");
}

// A picture to search with: chosen, dropped or pasted.
async function search(file) {
  if (!file) return;
  const answer = await fetch("pictures", { method: "POST", body: file });
  if (!answer.ok) return void fail(await answer.text());
  const { picture } = await answer.json();
  const address = new URL(".", location.href);
  const form = document.querySelector("form[role=search]");
  for (const [name, value] of new FormData(form)) {
    if (value && !["q", "picture", "like"].includes(name)) address.searchParams.append(name, value);
  }
  address.searchParams.set("picture", picture);
  location.assign(address);
}

const chosen = document.querySelector(".drop");
if (chosen) {
  chosen.hidden = false;
  chosen.querySelector("input").addEventListener("change", (event) => search(event.target.files[0]));
  addEventListener("paste", (event) => search(event.clipboardData.files[0]));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", () => document.body.classList.remove("dragging"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    search(event.dataTransfer.files[0]);
  });
}

// A weight that was changed makes another search.
for (const input of document.querySelectorAll(".weight input")) {
  input.form.hidden = false;
  input.form.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("change", () => {
    if (!Number.isFinite(input.valueAsNumber)) return;
    const address = new URL(location.href);
    const others = address.searchParams.getAll("like").filter((text) => {
      const [, collection, key] = JSON.parse(text);
      return collection !== input.dataset.collection || key !== input.dataset.key;
    });
    address.searchParams.delete("like");
    const changed = [input.valueAsNumber, input.dataset.collection, input.dataset.key];
    for (const each of [...others, JSON.stringify(changed)]) address.searchParams.append("like", each);
    location.assign(address);
  });
}

// Keys: / to the words, arrows from hit to hit, + and - more and less like the one at hand.
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea")) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey && event.key !== "+") return;
  const words = document.querySelector("[name=q]");
  if (event.key === "/" && words) {
    event.preventDefault();
    words.focus();
    words.select();
    return;
  }
  const all = [...document.querySelectorAll(".hit .seen")];
  const at = document.activeElement.closest(".hit");
  const now = at ? all.indexOf(at.querySelector(".seen")) : -1;
  const columns = hits ? getComputedStyle(hits).gridTemplateColumns.split(" ").length : 1;
  if (now < 0 && !hits) return; // on other pages arrows scroll
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (step && all.length) {
    event.preventDefault();
    all[now < 0 ? 0 : Math.min(Math.max(now + step, 0), all.length - 1)].focus();
  } else if (at && event.key === "+") at.querySelector(".more-like")?.click();
  else if (at && event.key === "-") at.querySelector(".less-like")?.click();
});

// An original that the browser can't show is shown small.
for (const picture of document.querySelectorAll("img[data-small]")) {
  const small = () => {
    if (picture.src !== new URL(picture.dataset.small, location.href).href) picture.src = picture.dataset.small;
  };
  if (picture.complete && !picture.naturalWidth) small();
  picture.addEventListener("error", small);
}

// Who one is, as one said in a review.
for (const by of document.querySelectorAll("[data-by]")) by.value = keep("pgclip by") ?? "";

// What takes a while says so, and is not asked for twice.
for (const form of document.querySelectorAll("form[data-waits]")) {
  form.addEventListener("submit", () => {
    const button = form.querySelector("button");
    button.setAttribute("aria-busy", "true");
    button.textContent = `${form.dataset.waits} …`;
    setTimeout(() => (button.disabled = true)); // after it was sent
  });
}
addEventListener("pageshow", (event) => event.persisted && location.reload()); // its buttons wait

// What is waited for is looked at again.
const again = document.querySelector("[data-again]:not(#live)");
if (again) setTimeout(() => location.reload(), 1000 * again.dataset.again);

// What changes by itself, while somebody looks.
const live = document.getElementById("live");
if (live) {
  let shown = "";
  setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetch(live.dataset.again).catch(() => null);
    if (!answer?.ok) return;
    const part = await answer.text();
    const isRead = live.contains(document.activeElement) || !getSelection().isCollapsed;
    if (part === shown || isRead) return;
    shown = part;
    const open = live.querySelector("details")?.open;
    live.innerHTML = part; // escaped where it was made
    if (open) live.querySelector("details")?.setAttribute("open", "");
  }, 2000);
}
