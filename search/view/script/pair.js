"use strict";

/* Two trees next to each other: each is the viewer's own page in a frame, and this page moves both. */

const pairById = (id) => document.getElementById(id);
const pair = JSON.parse(pairById("pair").textContent);
const SIDES = ["left", "right"];
const COSTS = {
  kv_tokens_peak: "KV tokens, peak", kv_tokens_mean: "KV tokens, mean", policy_tokens: "tokens written", unique_tokens: "tokens in the tree",
};
const seen = { place: -1, parting: -1, depth: null };

function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const told = (value) => (value === null ? "unknown" : Math.round(value).toLocaleString("en"));

/** The viewer's page for one search. */
function frameFor(name, raw, view) {
  const index = JSON.stringify({ title: name, live: null, problems: [{ ...view, nodes: undefined, strings: undefined }] });
  const safe = (text) => text.replace(/</g, "\\u003c");
  const data = `<script type="application/json" id="index">${safe(index)}<\/script>`
    + `<script type="application/json" id="problem-0">${safe(raw)}<\/script>`;
  const escaped = name.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  return pair.frame.replaceAll("{{name}}", () => escaped).replace("{{data}}", () => data);
}

function verdict(side) {
  if (side.error !== null) return "failed";
  if (side.correct === null) return "";
  return side.correct ? "✓" : "✗";
}

function showProblem(place) {
  if (document.activeElement.tagName === "IFRAME") window.focus(); // a tree that is replaced takes no keys meanwhile
  seen.place = place;
  seen.parting = -1;
  const problem = pair.problems[place];
  pairById("problem").value = String(place);
  pairById("question").textContent = problem.problem;
  for (const [at, side] of SIDES.entries()) {
    const facts = problem.sides[at], raw = pairById(`${side}-${place}`).textContent;
    const answer = facts.answer === null ? "no answer" : `answer ${facts.answer}`;
    const how = [pair.names[at], facts.method ? `${facts.method}-${facts.width}` : "", `${answer} ${verdict(facts)}`];
    pairById(`${side}-name`).textContent = how.filter(Boolean).join(" · ");
    pairById(`${side}-name`).className = side;
    pairById(side).srcdoc = frameFor(pair.names[at], raw, JSON.parse(raw));
  }
  showCosts(problem);
  showPartings(problem.partings);
  showReasons(problem);
}

/** Both replays go as far as the deeper tree does. */
function takeDepth() {
  const own = SIDES.map((side) => Number(pairById(side).contentDocument?.getElementById("replay")?.max ?? 0));
  pairById("depth").max = pairById("depth").value = String(Math.max(...own));
}

function showCosts(problem) {
  const rows = Object.entries(COSTS).flatMap(([name, words]) => {
    const values = problem.sides.map((side) => side.costs[name] ?? null);
    const most = Math.max(1, ...values.map((value) => value ?? 0));
    return values.map((value, at) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const line = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      bar.setAttribute("aria-hidden", "true");
      for (const [key, set] of Object.entries({ width: `${(100 * (value ?? 0)) / most}%`, height: "9", fill: "currentColor" })) line.setAttribute(key, set);
      bar.append(line);
      return make("div", { class: `cost ${SIDES[at]}` },
        make("span", {}, at === 0 ? words : ""), make("span", { class: "track" }, bar), make("span", { class: "number" }, told(value)));
    });
  });
  pairById("costs").replaceChildren(...rows);
}

function showPartings({ num_shared: shared, depth, nodes }) {
  const first = depth === null ? "They do not part." : `They part at step ${depth}.`;
  pairById("summary").textContent = `${told(shared)} steps are in both trees. ${first}`;
  const items = nodes.slice(0, 200).map((one, at) => {
    const fates = one.fates.map((fate, side) => `${SIDES[side]}: ${fate}${one.reasons[side] ? ` (${one.reasons[side]})` : ""}`);
    const button = make("button", { type: "button" }, `Step ${one.depth}: ${shorten(one.text.trim(), 90)} — ${fates.join("; ")}`);
    button.addEventListener("click", () => showParting(at));
    return make("li", {}, button);
  });
  pairById("partings").replaceChildren(...items);
}

function showReasons(problem) {
  const rows = problem.sides.flatMap((side, at) =>
    side.reasons.map(([reason, count]) =>
      make("div", { class: `why ${SIDES[at]}` }, make("span", { class: "number" }, String(count)), make("span", {}, reason || "no reason given"))));
  pairById("reasons").replaceChildren(...(rows.length ? rows : [make("p", { class: "quiet" }, "Nothing was pruned.")]));
}

/** Select a step that one kept and the other did not, in both trees. */
function showParting(at) {
  const one = pair.problems[seen.place].partings.nodes[at];
  if (one === undefined) return;
  seen.parting = at;
  const buttons = [...document.querySelectorAll("#partings button")];
  buttons.forEach((button, place) => button.setAttribute("aria-current", String(place === at)));
  buttons[at]?.scrollIntoView({ block: "nearest" });
  for (const side of SIDES) pairById(side).contentWindow.select(one[side]);
}

function replay(depth) {
  const slider = pairById("depth"), wanted = Math.min(Number(slider.max), Math.max(0, depth));
  slider.value = String(wanted);
  for (const side of SIDES) pairById(side).contentWindow.setMoment(wanted);
}

const move = (by) => showProblem((seen.place + by + pair.problems.length) % pair.problems.length);

const KEYS = {
  n: () => move(1), p: () => move(-1), "[": () => replay(Number(pairById("depth").value) - 1), "]": () => replay(Number(pairById("depth").value) + 1),
  j: () => showParting(Math.min(seen.parting + 1, pair.problems[seen.place].partings.nodes.length - 1)),
  k: () => showParting(Math.max(seen.parting - 1, 0)),
};

pairById("problem").append(...pair.problems.map((one, place) => make("option", { value: String(place) },
  `${one.id} ${one.sides.map(verdict).join(" ")} ${shorten(one.problem, 60)}`)));
pairById("problem").addEventListener("change", (event) => showProblem(Number(event.target.value)));
pairById("previous").addEventListener("click", () => move(-1));
pairById("next").addEventListener("click", () => move(1));
pairById("depth").addEventListener("input", (event) => replay(Number(event.target.value)));

/** Keys are of both trees, wherever the focus is; within a tree this comes before its own. */
function onPairKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=search]")) return;
  if (KEYS[event.key]) {
    event.preventDefault();
    event.stopPropagation();
    KEYS[event.key]();
  }
}

document.addEventListener("keydown", onPairKey);
for (const side of SIDES) {
  pairById(side).addEventListener("load", () => {
    takeDepth();
    pairById(side).contentDocument.body.classList.add("beside");
    pairById(side).contentDocument.addEventListener("keydown", onPairKey, true);
  });
}
showProblem(0);
