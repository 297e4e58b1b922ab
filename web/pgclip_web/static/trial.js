// Which of two is better, by a key: left, right, or neither.

const form = document.getElementById("prefer");
addEventListener("keydown", (event) => {
  if (!form || event.repeat || event.target.matches("input, select, textarea")) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const answer = { ArrowLeft: "left", ArrowRight: "right", "=": "neither" }[event.key];
  if (!answer) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  form.requestSubmit(form.querySelector(`button[value=${answer}]`));
});
