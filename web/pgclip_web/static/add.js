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
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (!added) return;
  const link = document.createElement("a");
  link.href = `.?${new URLSearchParams({ collection })}`;
  link.textContent = "See them";
  told.append(". ", link);
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
