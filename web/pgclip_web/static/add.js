// Adding files: chosen, or dropped with folders and all. A few at a time, each by itself: one that
// is refused is said and leaves the others alone, and where the queue is full it waits.

const form = document.getElementById("add");
const told = document.getElementById("told");
const progress = document.getElementById("progress");
const refused = document.getElementById("refused");
const AT_ONCE = 3;
const HIDDEN = /(^|\/)\./;

async function add(files) {
  const collection = form.querySelector("[name=collection]").value;
  const left = files.filter(({ name }) => !HIDDEN.test(name));
  const all = left.length;
  let done = 0, added = 0;
  const tell = () => {
    progress.hidden = false;
    progress.max = all || 1;
    progress.value = done;
    told.textContent = `${added} of ${all} added${done > added ? `, ${done - added} refused` : ""}`;
  };
  tell();
  const work = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const why = await send(next, collection);
      done += 1;
      if (why === null) added += 1;
      else refuse(next.name, why);
      tell();
    }
  };
  const before = await counts(collection);
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  progress.hidden = true;
  if (added) await follow(collection, `${told.textContent}; `, before?.failed ?? 0);
}

// What was added is found once a worker has encoded it.
async function follow(collection, said, failedBefore) {
  for (;;) {
    const now = await counts(collection);
    const waiting = now ? now.queued + now.leased : 0;
    const failed = now ? now.failed - failedBefore : 0;
    told.textContent = said + (waiting ? `${waiting} wait for a worker` : "workers are done");
    if (failed > 0) told.append(`, ${failed} failed: `, link("state", "see why"));
    told.append(". ", link(`.?${new URLSearchParams({ collection })}`, "See them"));
    if (!waiting) return;
    await new Promise((resume) => setTimeout(resume, 1000));
  }
}

async function counts(collection) {
  const answer = await fetch(`counts?${new URLSearchParams({ collection })}`).catch(() => null);
  return answer?.ok ? answer.json() : null;
}

function link(address, words) {
  const made = document.createElement("a");
  made.href = address;
  made.textContent = words;
  return made;
}

async function send({ name, file }, collection) {
  const address = `add?${new URLSearchParams({ name, collection })}`;
  for (let seconds = 1; ; seconds *= 2) {
    const answer = await fetch(address, { method: "POST", body: file }).catch(() => null);
    if (answer?.ok) return null;
    const said = answer ? await answer.text() : "nobody answers";
    if (answer?.status !== 503 || seconds > 60) return reason(said);
    await new Promise((resume) => setTimeout(resume, 1000 * seconds));
  }
}

function reason(said) {
  try {
    return JSON.parse(said).error;
  } catch {
    return said;
  }
}

function refuse(name, why) {
  const line = document.createElement("li");
  line.textContent = `${name}: ${why}`;
  refused.append(line);
}

// Files of what was dropped, those of folders with their paths.
async function files(entries) {
  const found = [];
  for (const entry of entries) {
    if (!entry) continue;
    try {
      if (entry.isFile) {
        const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
        found.push({ name: entry.fullPath.slice(1), file });
        continue;
      }
      const reader = entry.createReader(); // gives a hundred at a time
      for (;;) {
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!some.length) break;
        found.push(...(await files(some)));
      }
    } catch (error) {
      refuse(entry.fullPath, error.message);
    }
  }
  return found;
}

const named = (list) => [...list].map((file) => ({ name: file.webkitRelativePath || file.name, file }));

if (form) {
  document.getElementById("folder").hidden = document.getElementById("drop").hidden = false;
  const inputs = [...form.querySelectorAll("[type=file]")];
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = inputs.flatMap((input) => named(input.files));
    for (const input of inputs) input.value = "";
    add(chosen);
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", () => document.body.classList.remove("dragging"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    if (!form.reportValidity()) return;
    add(await files([...event.dataTransfer.items].map((item) => item.webkitGetAsEntry())));
  });
}
