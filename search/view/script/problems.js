// Header

function verdictOf(one) {
  if (one.running) return "running";
  if (one.error !== null && one.error !== undefined) return "failed";
  if (one.correct === true) return "right";
  return one.correct === false ? "wrong" : "ungraded";
}

function showHeader(view) {
  const heading = byId("list").hidden ? [element("h1", {}, byId("title").textContent)] : [];
  const models = Object.keys(view.models).length ? [modelsPart(view.models)] : [];
  byId("header").replaceChildren(...heading, problemPart(view), votePart(view), costPart(view), ...models);
}

function problemPart(view) {
  const verdict = verdictOf(view);
  const words = { right: "right", wrong: "wrong", failed: "failed", running: "running", ungraded: "no reference" }[verdict];
  const answer = element("p", { class: "answer" }, "Answer ", element("b", {}, view.answer ?? "none"),
    element("span", { class: `verdict ${verdict}` }, `${VERDICTS[verdict]} ${words}`));
  if (view.reference !== null) answer.append(element("span", { class: "quiet" }, ` reference ${view.reference}`));
  const part = element("section", { "aria-label": "Problem" }, element("h2", {}, `Problem ${view.id}`),
    element("p", { class: "asked", tabindex: 0 }, view.problem), answer);
  if (view.error !== null) part.append(element("p", { class: "failed" }, view.error));
  return part;
}

function votePart(view) {
  const part = element("section", { class: "vote", "aria-label": "Vote" }, element("h2", {}, `Vote${view.vote_rule ? `: ${view.vote_rule}` : ""}`));
  const vote = view.vote ?? [];
  if (!vote.length) {
    const why = view.vote === null ? "not known" : "no solution has an answer";
    part.append(element("p", { class: "quiet" }, view.running ? "not yet" : why));
    return part;
  }
  const most = Math.max(...vote.map(([, weight]) => weight), 1e-9);
  const table = element("table");
  for (const [answer, weight] of vote.slice(0, 5)) {
    const bar = element("span");
    bar.style.width = `${(100 * weight) / most}%`;
    table.append(element("tr", { class: answer === view.answer ? "won" : false }, element("td", {}, answer),
      element("td", { class: "bar", "aria-hidden": "true" }, bar), element("td", { class: "number" }, weight.toFixed(Number.isInteger(weight) ? 0 : 2))));
  }
  part.append(table);
  if (vote.length > 5) part.append(element("p", { class: "quiet" }, `and ${vote.length - 5} more answers`));
  return part;
}

function costPart(view) {
  const stats = view.stats;
  const part = element("section", { "aria-label": "Cost" }, element("h2", {}, [view.method, view.width && `width ${view.width}`].filter(Boolean).join(", ") || "Cost"));
  const rows = stats === null ? [["Tree", `${view.num_nodes} nodes${view.running ? " so far" : ""}`]] : [
    ["Tree", `${stats.num_nodes} nodes, ${stats.num_pruned} pruned, ${stats.num_finished} finished${stats.num_failed ? `, ${stats.num_failed} failed` : ""}`],
    ["KV kept", stats.kv_tokens_mean === null ? "unknown" : `${Math.round(stats.kv_tokens_mean)} tokens on average, ${stats.kv_tokens_peak} at most`],
    ["Policy", `${count(stats.computed_tokens)} tokens computed of ${count(stats.unique_tokens)}`],
    ["Reward", `${count(stats.prm_tokens)} tokens computed of ${count(stats.prm_unique_tokens)}`],
    ["Seconds", `${stats.seconds.toFixed(2)}: policy ${stats.seconds_policy.toFixed(2)}, reward ${stats.seconds_prm.toFixed(2)}`],
  ];
  const table = element("table");
  for (const [name, value] of rows) table.append(element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)));
  part.append(table);
  return part;
}

function modelsPart(models) {
  const names = ["model", "calls", "written", "dropped", "seconds", "FLOPs"];
  const table = element("table", {}, element("tr", {}, ...names.map((name, place) => element("th", { scope: "col", class: place ? "number" : false }, name))));
  for (const [role, cost] of Object.entries(models)) {
    const values = [cost.num_calls, cost.sampled_tokens, cost.dropped_tokens, cost.seconds.toFixed(2), cost.flops === null ? "unknown" : cost.flops.toPrecision(3)];
    table.append(element("tr", {}, element("td", { title: cost.model }, role), ...values.map((value) => element("td", { class: "number" }, `${value}`))));
  }
  return element("section", { "aria-label": "Models" }, element("h2", {}, "Models"), table);
}

const count = (value) => (value === null ? "unknown" : value.toLocaleString("en"));

// Problems

function show(place, { focus = false } = {}) {
  stopPlaying();
  state.shown = place;
  state.moment = null;
  const view = viewOf(state.entries[place]);
  state.tree = treeOf(view);
  state.selected = state.tree?.end ?? 0;
  byId("pane").scrollTo(0, 0);
  showView(view);
  showList();
  if (state.drawn !== null) byId("pane").scrollTop = itemOf(0).y + HEADS_HEIGHT - byId("pane").clientHeight / 2;
  if (focus) document.querySelector("#problems [aria-selected=true]")?.scrollIntoView({ block: "nearest" });
}

const treeOf = (view) => (view === null || !view.num_nodes ? null : buildTree(view));

function showView(view) {
  byId("toolbar").hidden = state.tree === null;
  byId("detail").hidden = state.tree === null;
  if (view === null) byId("header").replaceChildren(element("p", { class: "quiet" }, "Waiting for the search."));
  else showHeader(view);
  showLegend();
  draw(); // last: it takes the room that is left
}

function matchesList(entry) {
  const verdict = verdictOf(entry.summary);
  if (state.verdict !== "all" && verdict !== state.verdict) return false;
  const text = [entry.summary.id, entry.summary.problem, entry.summary.answer, entry.summary.reference].join("\n").toLowerCase();
  return text.includes(state.listText.toLowerCase());
}

const listed = () => state.entries.map((entry, place) => place).filter((place) => matchesList(state.entries[place]));

function showList() {
  const list = byId("list");
  list.hidden = state.entries.length < 2 && state.live === null;
  if (list.hidden) return;
  const places = listed();
  const hadFocus = byId("problems").contains(document.activeElement);
  byId("problems").replaceChildren(...places.map((place) => listItem(place, places)));
  if (hadFocus) byId("problems").querySelector("[tabindex='0']")?.focus();
  showVerdicts();
  const graded = state.entries.filter((entry) => entry.summary.correct !== null && entry.summary.correct !== undefined);
  const right = graded.filter((entry) => entry.summary.correct).length;
  byId("list-summary").textContent = `${places.length} of ${state.entries.length} problems${graded.length ? `, ${right} of ${graded.length} right` : ""}`;
}

function listItem(place, places) {
  const { summary } = state.entries[place];
  const verdict = verdictOf(summary);
  const shown = place === state.shown;
  return element("li", { role: "option", "data-place": place, "aria-selected": `${shown}`, tabindex: shown || (place === places[0] && !places.includes(state.shown)) ? 0 : -1 },
    element("span", { role: "img", "aria-label": verdict }, VERDICTS[verdict]), element("span", { class: "name" }, summary.id),
    element("span", { class: "given" }, summary.running ? `${summary.num_nodes ?? 0} nodes` : summary.answer ?? "none"),
    element("span", { class: "text" }, oneLine(summary.problem ?? "")));
}

function showVerdicts() {
  const counts = { all: state.entries.length, wrong: 0, right: 0, failed: 0 };
  for (const entry of state.entries) {
    const verdict = verdictOf(entry.summary);
    if (verdict in counts) counts[verdict] += 1;
  }
  const buttons = Object.entries(counts).map(([name, number]) => element("button", { type: "button", "data-verdict": name, "aria-pressed": `${state.verdict === name}` }, `${name} ${number}`));
  const focused = document.activeElement?.dataset?.verdict;
  byId("verdicts").replaceChildren(...buttons);
  if (focused) byId("verdicts").querySelector(`[data-verdict=${focused}]`).focus();
}

function showNextProblem(by) {
  const places = listed();
  if (!places.length) return;
  const at = places.indexOf(state.shown);
  const next = at < 0 ? (by > 0 ? 0 : places.length - 1) : at + by;
  if (next < 0 || next >= places.length) return;
  state.picked = true;
  show(places[next], { focus: true });
}

function showLegend() {
  const { tree } = state;
  const kinds = ["winner", "chosen", "kept", "finished", "pruned", "failed", "open", "pending"].filter((kind) => tree === null || tree.nodes.some((node) => node.kind === kind) || ["kept", "pruned", "finished"].includes(kind));
  const items = kinds.map((kind) => element("li", {}, glyph(kind), KINDS[kind]));
  items.push(element("li", {}, element("span", { class: "sample" }), "wider line: higher reward"), element("li", {}, element("span", { class: "sample dashed" }), "to a pruned step"));
  if (tree?.routed) items.push(element("li", {}, writerMark("target"), "written by the target"), element("li", {}, writerMark("draft"), "by the draft"));
  if (tree?.clustered) items.push(element("li", {}, element("span", { class: "letter" }, "B"), "cluster of ETS within its depth"));
  items.push(element("li", {}, "×3: siblings folded"), element("li", {}, ".95: reward"));
  byId("legend").replaceChildren(...items);
}
