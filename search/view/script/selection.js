// The selected step

function select(id, { focus = false, reveal = true } = {}) {
  state.selected = id;
  markSelected();
  const made = state.drawn.elements.get(itemOf(id));
  if (focus) made.focus({ preventScroll: true });
  if (reveal) bringIntoView(itemOf(id));
}

function markSelected() {
  if (state.drawn === null) return;
  const { nodes } = state.tree;
  const chosen = nodes[state.selected] ?? nodes[0];
  state.selected = chosen.id;
  for (const [item, made] of state.drawn.elements) {
    const node = nodes[item.id];
    const is = item === itemOf(chosen.id);
    made.setAttribute("aria-selected", is ? "true" : "false");
    made.tabIndex = is ? 0 : -1;
    made.classList.toggle("together", chosen.cluster !== null && node.depth === chosen.depth && node.cluster === chosen.cluster);
  }
  showDetail(chosen);
}

function bringIntoView(item) {
  const pane = byId("pane");
  const { zoom } = state.drawn;
  const top = item.y - zoom.row, bottom = item.y + HEADS_HEIGHT + zoom.row;
  if (top < pane.scrollTop) pane.scrollTop = top;
  else if (bottom > pane.scrollTop + pane.clientHeight) pane.scrollTop = bottom - pane.clientHeight;
  const left = item.x - zoom.link, right = item.x + zoom.column;
  if (left < pane.scrollLeft) pane.scrollLeft = left;
  else if (right > pane.scrollLeft + pane.clientWidth) pane.scrollLeft = right - pane.clientWidth;
}

function pathTo(id) {
  const path = [];
  for (let at = id; at !== null; at = state.tree.nodes[at].parent) path.unshift(state.tree.nodes[at]);
  return path;
}

function showDetail(node) {
  const members = itemOf(node.id).members;
  const heading = element("h2", { class: "heading" }, glyph(node.kind),
    node.parent === null ? "Prompt" : `Step ${node.depth}: ${KINDS[node.kind]}`);
  const path = element("ol", { "aria-label": "Path from the prompt" }, ...pathTo(node.id).slice(1).map((step) => element(
    "li", { "aria-current": step === node ? "step" : false },
    element("span", { class: "number" }, step.reward === null ? "–" : shortReward(step.reward)), element("span", {}, step.text.trim()))));
  byId("detail").replaceChildren(
    heading,
    element("div", { class: "step" }, node.text.trim() || (node.status === "pending" ? "(no text yet)" : "(no text)")),
    facts(detailRows(node, members)),
    ...(node.parent === null ? [] : [element("h2", {}, "Path"), path]),
    ...foldedPart(node, members),
  );
}

/** The other texts that a folded item stands for. */
function foldedPart(node, members) {
  const others = members.map((id) => state.tree.nodes[id]).filter((one) => one.text !== node.text);
  if (!others.length) return [];
  const list = element("ol", { "aria-label": "Folded with it" }, ...others.map((one) => element("li", {},
    element("span", { class: "number" }, one.reward === null ? "–" : shortReward(one.reward)), element("span", {}, one.text.trim()))));
  return [element("h2", {}, "Folded with it"), list];
}

function detailRows(node, members) {
  const rows = [["Status", node.status]];
  if (node.reason) rows.push(["Reason", node.reason]);
  if (node.parent !== null) {
    rows.push(["Reward", node.reward === null ? "none" : node.reward.toFixed(3)]);
    if (node.writer) rows.push(["Writer", node.writer]);
    if (node.estimate !== null) rows.push(["Router", `${node.estimate.toFixed(3)} (estimate that the target helps)`]);
    if (node.cluster !== null) rows.push(["Cluster", clusterText(node)]);
  }
  rows.push(["Tokens", `${node.numTokens}, path ${node.pathTokens}${node.droppedTokens ? `, ${node.droppedTokens} of a dropped draft` : ""}`]);
  if (node.parent !== null) rows.push(["Seconds", `${seconds(node.secondsWrite)} writing, ${seconds(node.secondsScore)} scoring`]);
  if (node.children.length) rows.push(["Children", `${node.children.length}`]);
  rows.push([members.length > 1 ? "Nodes" : "Node", members.join(", ")]);
  return rows;
}

function clusterText(node) {
  const { nodes, levels } = state.tree;
  const all = levels[node.depth].filter((id) => nodes[id].cluster === node.cluster);
  return `${letters(node.cluster)}, ${all.length} of depth ${node.depth}, ${all.filter((id) => nodes[id].children.length).length} kept${cutText(node.depth)}`;
}

/** Up to which distance the steps of a depth were taken to say the same; what is apart in a cluster, its reason says. */
function cutText(depth) {
  const distance = selectionAt(depth)?.cluster_distance ?? null;
  return distance === null ? "" : `; steps nearer than ${distance.toFixed(2)} are alike`;
}

const seconds = (value) => (value === null ? "?" : value.toFixed(value < 10 ? 3 : 1));

function facts(rows) {
  const list = element("dl");
  for (const [name, value] of rows) list.append(element("dt", {}, name), element("dd", {}, value));
  return list;
}

// Replay

const replayMoment = () => state.moment ?? state.tree.moments.length;

/** Go to a moment of the replay; the last is the whole search. */
function setMoment(at) {
  if (state.tree === null) return;
  const { length } = state.tree.moments;
  const bounded = Math.max(0, Math.min(length, at));
  state.moment = bounded === length ? null : bounded;
  showReplay();
}

/** The first moment at which a depth had been selected. */
function momentOf(depth) {
  const { byDepth, selections, moments } = state.tree;
  if (byDepth || depth === 0) return depth;
  const first = selections.findIndex((one) => one.depth >= depth);
  return first < 0 ? moments.length : first + 1;
}

/** Show the search as it was at the slider's moment; at the right end, all of it. */
function showReplay() {
  const { tree, drawn } = state;
  const slider = byId("replay"), at = replayMoment(), moment = tree.moments[at] ?? null;
  const selection = moment?.selection ?? null;
  const held = selection === null ? null : union([...selection.kept, ...(selection.writing ?? [])]);
  for (const [item, made] of drawn.elements) mark(made, tree.nodes[item.id]);
  for (const part of [...drawn.edges, ...drawn.brackets]) mark(part.element, tree.nodes[part.item.id]);
  slider.max = tree.moments.length;
  slider.value = at;
  const text = replayText(moment);
  byId("replayed").textContent = text;
  slider.setAttribute("aria-valuetext", text);
  showKv(moment);
  for (const head of byId("heads").children) head.classList.toggle("current", moment !== null && Number(head.dataset.moment) === at);

  function mark(made, node) {
    made.classList.toggle("later", moment !== null && !moment.has(node));
    made.classList.toggle("released", held !== null && moment.has(node) && !held.has(node.id));
  }
}

function union(ids) {
  const seen = new Set();
  for (const id of ids) {
    for (let at = id; at !== null && !seen.has(at); at = state.tree.nodes[at].parent) seen.add(at);
  }
  return seen;
}

function selectionText(level) {
  const saved = level.kv_tokens_candidates ? Math.round(100 * (1 - level.kv_tokens / level.kv_tokens_candidates)) : 0;
  return `${level.kept.length} of ${level.num_candidates} kept, ${level.kv_tokens} KV tokens of ${level.kv_tokens_candidates} before pruning (−${saved}%)`;
}

function replayText(moment) {
  if (moment === null) {
    const peak = Math.max(0, ...state.tree.selections.map((one) => one.kv_tokens));
    return `Whole search, depth ${state.tree.maxDepth}${peak ? `; at most ${peak} KV tokens kept` : ""}`;
  }
  if (moment === state.tree.moments[0]) return moment.name;
  return `${moment.name}: ${moment.selection === null ? "no selection" : selectionText(moment.selection)}`;
}

function showKv(moment) {
  const { selections, nodes, moments } = state.tree;
  const most = Math.max(1, ...selections.map((one) => one.kv_tokens_candidates));
  const bar = byId("kv");
  let now = moment?.selection;
  if (moment === null) now = { kv_tokens: Math.max(0, ...selections.map((one) => one.kv_tokens)), kv_tokens_candidates: selections.length ? most : 0 };
  else if (moment === moments[0]) now = { kv_tokens: nodes[0].numTokens, kv_tokens_candidates: nodes[0].numTokens };
  bar.hidden = !selections.length;
  bar.querySelector(".before").style.width = `${(100 * (now?.kv_tokens_candidates ?? 0)) / most}%`;
  bar.querySelector(".kept").style.width = `${(100 * (now?.kv_tokens ?? 0)) / most}%`;
}

function togglePlay() {
  if (state.playing) {
    stopPlaying();
    return;
  }
  if (state.tree === null) return;
  if (state.moment === null) setMoment(0);
  byId("play").textContent = "Pause";
  state.playing = setInterval(() => {
    setMoment(replayMoment() + 1);
    if (state.moment === null) stopPlaying();
  }, PLAY_MS);
}

function stopPlaying() {
  clearInterval(state.playing);
  state.playing = 0;
  byId("play").textContent = "Play";
}

/** Mark the steps that hold the text looked for, and dim the others. */
function showMatches() {
  if (state.drawn === null) return;
  const wanted = state.stepText.toLowerCase();
  let count = 0;
  for (const [item, made] of state.drawn.elements) {
    const found = wanted !== "" && item.id !== 0 && state.tree.nodes[item.id].text.toLowerCase().includes(wanted);
    made.classList.toggle("matched", found);
    made.classList.toggle("unmatched", wanted !== "" && !found);
    count += found ? item.members.length : 0;
  }
  byId("found").textContent = wanted === "" ? "" : `${count} of ${state.tree.nodes.length - 1} steps`;
}

/** Select the next step that holds the text looked for. */
function selectMatch(by) {
  const matches = state.drawn === null ? [] : state.drawn.columns.flat().filter((item) => state.drawn.elements.get(item).classList.contains("matched"));
  if (!matches.length) return;
  const at = matches.indexOf(itemOf(state.selected));
  select(matches[(at < 0 && by < 0 ? matches.length - 1 : at + by + matches.length) % matches.length].id);
}
