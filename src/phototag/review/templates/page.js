// Streamlit calls the exported function with the HTML of a page after each run of the script.
// The page replaces the previous one when its photos are decoded, and buttons and keys work from
// the moment at which it is painted. An answer therefore belongs to the photos on the screen.
const KEYS = "button[data-key]";

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector("section");
  if (root.page === data.page) return root.stop; // Streamlit draws the same page again
  root.stop?.(); // Streamlit calls this function only when it removes the element
  root.page = data.page;
  const next = document.createElement("div");
  next.innerHTML = data.html;
  let open = true;
  let ready = false;

  const setReady = (value) => {
    ready = value;
    root.setAttribute("aria-busy", String(!value));
    for (const button of root.querySelectorAll("button, select")) {
      button.disabled = !value || "off" in button.dataset;
    }
  };
  const send = (action, value) => {
    if (!ready) return;
    const marks = {};
    for (const tile of root.querySelectorAll("[data-mark]")) {
      marks[tile.dataset.question] = tile.dataset.mark;
    }
    setReady(false); // until the next page is on the screen
    setTriggerValue("event", { page: data.page, action, value, marks });
  };

  setReady(false);
  Promise.all([...next.querySelectorAll("img")].map((image) => image.decode())).then(() => {
    if (!open) return; // a later run of the script has drawn another page
    root.replaceChildren(next);
    root.dataset.page = data.page;
    root.scrollIntoView();
    setReady(false);
    for (const button of root.querySelectorAll(KEYS)) {
      button.onclick = () => send(button.dataset.action);
    }
    for (const tile of root.querySelectorAll("[data-question]")) {
      tile.onclick = () => mark(root, tile);
    }
    const select = root.querySelector("select");
    if (select) select.onchange = () => send("select", select.value);
    showCounts(root);
    // The first callback runs before the page is painted, the second one after that.
    requestAnimationFrame(() => requestAnimationFrame(() => open && setReady(true)));
  });

  const onKey = (event) => {
    const target = event.composedPath()[0];
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches?.("input, select, textarea")) return;
    if (event.key.startsWith("Arrow")) return moveFocus(root, event);
    // Keyboards with other alphabets send, for example, "н" for the key Y.
    const letter = /^[a-z]$/i.test(event.key) ? event.key : event.code.replace("Key", "");
    root.querySelector(`button[data-key="${CSS.escape(letter.toLowerCase())}"]`)?.click();
  };
  document.addEventListener("keydown", onKey);
  root.stop = () => {
    open = false;
    document.removeEventListener("keydown", onKey);
  };
  return root.stop;
}

function mark(root, tile) {
  const marks = { "": "exception", exception: "unsure", unsure: "" };
  tile.dataset.mark = marks[tile.dataset.mark];
  showCounts(root);
}

// Write the number of photos that get each answer into the buttons of a grid.
function showCounts(root) {
  const count = (mark) => root.querySelectorAll(`[data-mark="${mark}"]`).length;
  const rest = root.querySelectorAll('[data-mark=""]:not([data-answered])').length;
  for (const button of root.querySelectorAll("button[data-other]")) {
    const { action, other } = button.dataset;
    const parts = [[rest, action], [count("exception"), other], [count("unsure"), "unsure"]];
    const counts = parts.filter(([number], first) => number || !first);
    const text = counts.map(([number, answer]) => `${number} ${answer}`).join(", ");
    button.querySelector("small").textContent = text;
  }
}

function moveFocus(root, event) {
  const tiles = [...root.querySelectorAll("[data-question]")];
  if (!tiles.length) return;
  const columns = tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const at = tiles.indexOf(root.getRootNode().activeElement);
  const to = at < 0 ? 0 : at + (steps[event.key] ?? 0);
  tiles[Math.max(0, Math.min(to, tiles.length - 1))].focus();
  event.preventDefault();
}
