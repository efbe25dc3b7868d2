// Live

async function fetchJson(address) {
  const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new RangeError(`The server answers ${answer.status}`);
  return answer.json();
}

/** Ask the server for its list and for what is shown, then again and again. */
async function poll() {
  const list = await ask(state.live);
  if (list !== null) takeList(list.problems);
  const entry = state.entries[state.shown];
  if (list !== null && entry && (entry.view === null || entry.view.running)) {
    const view = await ask(`${state.live}/${encodeURIComponent(entry.key)}`);
    if (view !== null) takeView(entry.key, view);
  }
  const busy = state.entries.some((one) => one.summary.running);
  setTimeout(poll, !state.lost && busy && !document.hidden ? POLL_MS : IDLE_MS);
}

/** What the server answers; null, and said on the page, if it does not. */
async function ask(address) {
  try {
    const values = await fetchJson(address);
    state.lost = false;
    say("");
    return values;
  } catch (error) {
    state.lost = true;
    say(`${error instanceof RangeError ? error.message : "The server does not answer"}. What is shown is as it was; trying again.`);
    return null;
  }
}

function say(message) {
  const banner = byId("server");
  banner.hidden = message === "";
  if (banner.textContent !== message) banner.textContent = message;
}

/** Take over the server's list; what is known of a search stays with it. */
function takeList(problems) {
  const known = new Map(state.entries.map((entry) => [entry.key, entry]));
  const shown = state.entries[state.shown]?.key;
  const before = JSON.stringify(state.entries.map((entry) => entry.summary));
  state.entries = problems.map((summary) => {
    const entry = known.get(summary.id) ?? { key: summary.id, source: null, view: null };
    return { ...entry, summary };
  });
  state.shown = state.entries.findIndex((entry) => entry.key === shown);
  const newest = state.entries.findIndex((entry) => entry.summary.running);
  const wanted = state.shown < 0 || (!state.picked && newest >= 0) ? (newest >= 0 ? newest : 0) : state.shown;
  if (wanted !== state.shown && state.entries.length) show(wanted);
  else if (before !== JSON.stringify(problems)) showList();
  if (!state.entries.length) {
    state.tree = null;
    byId("list").hidden = false;
    showList();
    byId("empty").hidden = false;
    byId("canvas").hidden = true;
    byId("toolbar").hidden = byId("detail").hidden = true;
    byId("empty").textContent = "No search yet. What the server is asked appears here.";
  }
}

/** Take over a search as it is now; selection, depth and scroll stay. */
function takeView(key, view) {
  const now = state.entries.find((one) => one.key === key);
  if (now === undefined || JSON.stringify(view) === JSON.stringify(now.view)) return;
  const first = now.view === null || !now.view.num_nodes;
  now.view = view;
  if (state.entries[state.shown] !== now) return;
  const wasAtEnd = state.tree === null || state.selected === state.tree.end;
  state.tree = treeOf(view);
  if (state.tree !== null && (first || (wasAtEnd && !state.picked))) state.selected = state.tree.end;
  showView(view);
}

// Start

/** The problem that the address names after its #, by its id; -1 where it names none. */
function namedPlace() {
  const name = location.protocol === "about:" ? "" : decodeURIComponent(location.hash.slice(1));
  return state.entries.findIndex((entry) => entry.key === name);
}

window.addEventListener("hashchange", () => {
  if (namedPlace() >= 0) show(namedPlace());
});

function start() {
  const { live, problems } = readJson("index");
  state.live = live;
  state.entries = problems.map((summary, place) => ({ key: summary.id, summary, source: `problem-${place}`, view: null }));
  listen();
  byId("list").hidden = state.entries.length < 2 && live === null;
  if (state.entries.length) show(Math.max(0, namedPlace()));
  else byId("toolbar").hidden = byId("detail").hidden = true;
  if (live !== null) poll();
}

start();
