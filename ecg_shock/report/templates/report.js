"use strict";

const list = document.getElementById("strips");
const form = document.getElementById("filters");

if (list && form) {
  const entries = [...list.children];
  const status = form.querySelector("output");
  const names = new Intl.Collator("en", { numeric: true });
  const byName = (a, b) =>
    names.compare(a.database, b.database) || names.compare(a.record, b.record) || a.start - b.start;
  const orders = {
    probability: (a, b) => a.probability - b.probability,
    patient: (a, b) => names.compare(a.patient, b.patient) || byName(a, b),
    record: byName,
  };

  for (const field of ["kind", "database", "rhythm"]) {
    for (const value of [...new Set(entries.map((entry) => entry.dataset[field]))].sort(names.compare)) {
      form.elements[field].add(new Option(value, value));
    }
  }

  const update = () => {
    const chosen = Object.fromEntries(new FormData(form));
    const wanted = chosen.patient.trim().toLowerCase();
    const order = orders[chosen.sort];
    const sorted = order ? [...entries].sort((a, b) => order(a.dataset, b.dataset)) : entries;
    let shown = 0;
    for (const entry of sorted) {
      const fits =
        ["kind", "database", "rhythm"].every((field) => !chosen[field] || chosen[field] === entry.dataset[field]) &&
        entry.dataset.patient.toLowerCase().includes(wanted);
      entry.hidden = !fits;
      shown += fits;
    }
    list.append(...sorted);
    status.textContent = `${shown} of ${entries.length} shown`;
  };

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  update();
}

// Print what is collapsed on the screen, too.
const collapsed = [];
addEventListener("beforeprint", () => {
  collapsed.push(...document.querySelectorAll("details:not([open])"));
  for (const details of collapsed) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of collapsed.splice(0)) details.open = false;
});
