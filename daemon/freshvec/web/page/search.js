// The search box, and the rows found. What is in a row is only ever text.
import { duration, element, prose, say } from "./show.js";

const form = document.getElementById("search-form");
const select = document.getElementById("search-sync");
const input = document.getElementById("search-text");
const note = document.getElementById("search-note");
const hits = document.getElementById("hits");
let asked = 0;

/** Offer these syncs, and the box where rows may be shown. */
export function offer(names, showsRows) {
  const known = [...select.options].map((option) => option.value);
  if (names.join("\n") !== known.join("\n")) {
    const chosen = select.value;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(chosen)) select.value = chosen;
    select.hidden = names.length < 2;
  }
  form.hidden = !showsRows;
  if (!showsRows) {
    note.replaceChildren(...prose("Off: it would show rows to whoever can open this page. Write `rows = true` under `[web]` to search here."));
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return input.focus();
  const turn = ++asked;
  say(note, "Searching …");
  try {
    const given = new URLSearchParams({ sync: select.value, text });
    const answer = await fetch(`api/search?${given}`);
    const found = await answer.json();
    if (turn !== asked) return;
    if (!answer.ok) throw new Error(found.error.message);
    show(found);
  } catch (error) {
    if (turn !== asked) return;
    hits.replaceChildren();
    say(note, error.message || "freshvec does not answer");
  }
});

function show(found) {
  const rows = found.hits.length === 1 ? "1 row" : `${found.hits.length} rows`;
  say(note, found.hits.length ? `${rows}, nearest first, in ${duration(found.seconds)}` : "No row has a vector yet");
  hits.replaceChildren(...found.hits.map((hit) => {
    const key = found.key_columns.map((column, i) => `${column} ${hit.key[i]}`).join(", ");
    return element("li", "",
      element("div", "key", element("b", "", key), element("span", "", hit.similarity.toFixed(3))),
      element("p", "", hit.text.replace(/\s+/g, " ")));
  }));
}
