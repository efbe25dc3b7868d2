"use strict";

/* The tree viewer. Data comes from the page's own JSON elements, or in live mode from the server that gave the page.
   Sections: data, layout, drawing the tree, the selected step, replay, header, problems, keys, live, start. */

const ZOOMS = [
  { column: 44, link: 20, row: 9, reward: false, text: false },
  { column: 96, link: 30, row: 16, reward: true, text: false },
  { column: 172, link: 28, row: 19, reward: true, text: true },
  { column: 250, link: 30, row: 20, reward: true, text: true },
  { column: 380, link: 34, row: 21, reward: true, text: true },
];
const ROOT_COLUMN = 100, ROOT_CELL = 74;
const HEADS_HEIGHT = 54;
const GROUP_GAP = 0.45; // rows between the children of two parents
const MARGIN = 10;
const WIDE = 40; // nodes of a depth above which pruned siblings are folded at first
const POLL_MS = 500, IDLE_MS = 2000, PLAY_MS = 900;
const KINDS = {
  winner: "end of the winning solution", chosen: "on the winning path", kept: "kept", finished: "finished solution",
  pruned: "pruned", failed: "failed", open: "written, not yet selected", pending: "being written",
};
const circle = (radius) => `M-${radius} 0a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0-${2 * radius} 0Z`;
const SHAPES = {
  kept: [["solid", circle(4.5)]],
  chosen: [["solid", circle(3.5)], ["line", circle(6.5)]],
  finished: [["solid", "M-4.5-4.5h9v9h-9Z"]],
  winner: [["solid", "M0-7.6 2.2-2.6 7.6-2.2 3.5 1.4 4.8 6.8 0 3.9-4.8 6.8-3.5 1.4-7.6-2.2-2.2-2.6Z"]],
  pruned: [["line", "M-4-4 4 4M-4 4 4-4"]],
  failed: [["line", "M0-6.5 7 6-7 6ZM0-2.5V2M0 3.6V5"]],
  open: [["line", circle(4.5)]],
  pending: [["line dots", circle(5)]],
};
const VERDICTS = { right: "✓", wrong: "✗", failed: "!", running: "…", ungraded: "–" };

const byId = (id) => document.getElementById(id);
const state = {
  entries: [], shown: -1, tree: null, drawn: null, selected: 0, depth: null, zoom: null, fold: null, verdict: "all",
  listText: "", stepText: "", picked: false, playing: 0, live: null, lost: false,
};

// Data

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function svg(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** The mark of a kind of node; kinds differ in shape, so that they are told apart without colour. */
function glyph(kind) {
  const made = svg("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true", class: `glyph-${kind}` });
  for (const [style, d] of SHAPES[kind]) made.append(svg("path", { d, class: style }));
  return made;
}

const readJson = (id) => JSON.parse(byId(id).textContent);

/** The view of an entry; a kept one is parsed when it is first shown. */
function viewOf(entry) {
  if (entry.view === null && entry.source !== null) entry.view = readJson(entry.source);
  return entry.view;
}

/** A tree out of a view's columns: nodes with children, ids by depth, and what the replay needs. */
function buildTree(view) {
  const column = (name) => view.nodes[name] || [];
  const said = (name, id) => view.strings[column(name)[id]] ?? "";
  const value = (name, id) => column(name)[id] ?? null;
  const chosen = new Set(view.chosen);
  const nodes = Array.from({ length: view.num_nodes }, (_, id) => ({
    id, parent: value("parent", id), children: [], chosen: chosen.has(id), status: said("status", id), reason: said("reason", id),
    text: said("text", id), writer: said("writer", id), reward: value("reward", id), estimate: value("estimate", id),
    cluster: value("cluster", id), numTokens: value("num_tokens", id), droppedTokens: value("dropped_tokens", id),
    secondsWrite: value("seconds_write", id), secondsScore: value("seconds_score", id),
  }));
  const levels = [];
  for (const node of nodes) {
    node.depth = node.parent === null ? 0 : nodes[node.parent].depth + 1;
    node.pathTokens = node.numTokens + (node.parent === null ? 0 : nodes[node.parent].pathTokens);
    if (node.parent !== null) nodes[node.parent].children.push(node.id);
    (levels[node.depth] ??= []).push(node.id);
  }
  for (const node of nodes) node.kind = kindOf(node);
  const writers = new Set(nodes.slice(1).map((node) => node.writer));
  const routed = writers.has("draft") || writers.has("target");
  const clustered = nodes.some((node) => node.cluster !== null);
  const ends = nodes.filter((node) => node.chosen && !node.children.some((child) => nodes[child].chosen));
  return { nodes, levels, maxDepth: Math.max(0, levels.length - 1), routed, clustered, selections: view.levels, end: ends.at(-1)?.id ?? 0 };
}

function kindOf(node) {
  if (node.status === "expanded") return node.chosen ? "chosen" : "kept";
  if (node.status === "finished") return node.chosen ? "winner" : "finished";
  return node.status;
}

/** Siblings that led nowhere and are alike stand as one item; so does every other node by itself.
    `fold` says what is alike: equal text, or (of pruned ones) the same cluster, or nothing. */
function foldItems(tree, fold) {
  const itemOf = new Array(tree.nodes.length);
  const items = [];
  const seen = new Map();
  for (const node of tree.nodes) {
    const foldable = fold !== "none" && !node.children.length && !node.chosen && ["pruned", "finished", "failed"].includes(node.status);
    const same = fold === "pruned" && node.status === "pruned" ? null : [node.text, node.writer];
    const key = foldable ? JSON.stringify([node.parent, node.status, node.cluster, same]) : null;
    let item = key === null ? undefined : seen.get(key);
    if (item === undefined) {
      item = { id: node.id, members: [] };
      items.push(item);
      if (key !== null) seen.set(key, item);
    }
    item.members.push(node.id);
    if (node.reward > (tree.nodes[item.id].reward ?? -1)) item.id = node.id;
    itemOf[node.id] = item;
  }
  return { items, itemOf };
}

// Layout: depth runs to the right, each depth one column

/** Items of each depth in the order of their parents, siblings by cluster and then by id. */
function orderColumns(tree, folded) {
  const columns = [[folded.itemOf[0]]];
  for (let depth = 1; depth <= tree.maxDepth; depth++) {
    const column = [];
    for (const above of columns[depth - 1]) {
      const below = above.members.flatMap((id) => tree.nodes[id].children)
        .map((id) => folded.itemOf[id]).filter((item, place, all) => all.indexOf(item) === place);
      below.sort((one, other) => (tree.nodes[one.id].cluster ?? 1e9) - (tree.nodes[other.id].cluster ?? 1e9) || one.id - other.id);
      column.push(...below);
    }
    columns.push(column);
  }
  return columns;
}

/** Positions nearest to those wanted that keep their order (least squares by pooling neighbours, linear time). */
function inOrder(wanted, weights) {
  const pools = [];
  wanted.forEach((value, place) => {
    let pool = { value, weight: weights[place], count: 1 };
    while (pools.length && pools.at(-1).value >= pool.value) {
      const before = pools.pop();
      const weight = before.weight + pool.weight;
      pool = { value: (before.value * before.weight + pool.value * pool.weight) / weight, weight, count: before.count + pool.count };
    }
    pools.push(pool);
  });
  return pools.flatMap((pool) => new Array(pool.count).fill(pool.value));
}

/** Give every item its row: each group of siblings stands as near to its parent as its neighbours allow. */
function placeRows(tree, folded, columns) {
  columns[0][0].row = 0;
  let least = 0;
  for (const column of columns.slice(1)) {
    const groups = [];
    for (const item of column) {
      const parent = folded.itemOf[tree.nodes[item.id].parent];
      if (groups.at(-1)?.parent === parent) groups.at(-1).items.push(item);
      else groups.push({ parent, items: [item] });
    }
    let offset = 0;
    const offsets = groups.map((group) => {
      const start = offset;
      offset += group.items.length + GROUP_GAP;
      return start;
    });
    const wanted = groups.map((group, place) => group.parent.row - (group.items.length - 1) / 2 - offsets[place]);
    const tops = inOrder(wanted, groups.map((group) => group.items.length));
    groups.forEach((group, place) => group.items.forEach((item, nth) => { item.row = tops[place] + offsets[place] + nth; }));
    least = Math.min(least, tops[0] ?? 0);
  }
  let most = 0;
  for (const item of folded.items) {
    item.row -= least;
    most = Math.max(most, item.row);
  }
  return most + 1;
}

/** The place of the largest zoom at which all columns fit the pane's width; of the second smallest if none does. */
function fittingPlace(tree) {
  const column = fittingColumn(tree);
  return Math.max(1, ZOOMS.findLastIndex((zoom) => zoom.column <= column));
}

function fittingColumn(tree) {
  const room = byId("pane").clientWidth - ROOT_COLUMN - 2 * MARGIN;
  return Math.floor((room + 20) / Math.max(1, tree.maxDepth));
}

/** The zoom asked for; or else columns that fill the pane's width. */
function zoomOf(tree) {
  if (state.zoom !== null) return ZOOMS[state.zoom];
  const least = 76 + (tree.clustered ? 14 : 0) + (tree.routed ? 17 : 0); // px; below it the pane scrolls instead
  const column = Math.max(least, Math.min(ZOOMS.at(-1).column, fittingColumn(tree)));
  return { ...ZOOMS[fittingPlace(tree)], column, text: column >= least + 60, link: column < least + 10 ? 24 : 30 };
}

const widest = (tree) => Math.max(...tree.levels.map((ids) => ids.length));
const columnX = (depth, zoom) => (depth === 0 ? MARGIN : MARGIN + ROOT_COLUMN + (depth - 1) * zoom.column);
const cellWidth = (depth, zoom) => (depth === 0 ? ROOT_CELL : zoom.column - zoom.link);

// Drawing the tree

function draw() {
  const view = viewOf(state.entries[state.shown]);
  const tree = state.tree;
  byId("canvas").hidden = tree === null;
  byId("empty").hidden = tree !== null;
  if (tree === null) {
    byId("empty").textContent = view === null ? "Waiting for the search." : `There is no tree: ${view.error ?? "the search has not begun"}.`;
    state.drawn = null;
    return;
  }
  const zoom = zoomOf(tree);
  const folded = foldItems(tree, state.fold ?? (widest(tree) > WIDE ? "pruned" : "equal"));
  const columns = orderColumns(tree, folded);
  const numRows = placeRows(tree, folded, columns);
  if (state.zoom === null) zoom.row = Math.max(zoom.row, Math.min(23, Math.floor((byId("pane").clientHeight - HEADS_HEIGHT - 2 * MARGIN) / numRows)));
  const hadFocus = byId("tree").contains(document.activeElement);
  for (const item of folded.items) {
    item.x = columnX(tree.nodes[item.id].depth, zoom);
    item.y = MARGIN + (item.row + 0.5) * zoom.row;
  }
  const width = columnX(tree.maxDepth, zoom) + cellWidth(tree.maxDepth, zoom) + MARGIN;
  const height = 2 * MARGIN + numRows * zoom.row;
  resize(width, height);
  state.drawn = { zoom, folded, columns, elements: new Map(), edges: [], brackets: [], width };
  byId("fold").value = state.fold ?? (widest(tree) > WIDE ? "pruned" : "equal");
  drawEdges();
  drawNodes();
  drawHeads();
  showReplay();
  showMatches();
  markSelected();
  if (hadFocus) state.drawn.elements.get(itemOf(state.selected)).focus({ preventScroll: true });
}

function resize(width, height) {
  byId("canvas").style.width = byId("heads").style.width = `${width}px`;
  byId("canvas").style.height = `${height + HEADS_HEIGHT}px`;
  const edges = byId("edges"), tree = byId("tree");
  edges.setAttribute("width", width);
  edges.setAttribute("height", height);
  edges.style.top = tree.style.top = `${HEADS_HEIGHT}px`;
  tree.style.width = `${width}px`;
  tree.style.height = `${height}px`;
}

const itemOf = (id) => state.drawn.folded.itemOf[id];

function drawEdges() {
  const { folded, zoom } = state.drawn;
  const paths = [];
  for (const item of folded.items) {
    const node = state.tree.nodes[item.id];
    if (node.children.length) paths.push(leaderOf(item, node, zoom));
    if (node.parent !== null) paths.push(edgeTo(item, node, zoom));
  }
  paths.sort((one, other) => one.rank - other.rank);
  state.drawn.edges = paths;
  byId("edges").replaceChildren(...paths.map((path) => path.element));
}

/** The line behind a kept node's text, up to where its children's lines begin. */
function leaderOf(item, node, zoom) {
  const end = item.x + cellWidth(node.depth, zoom);
  const made = svg("path", { d: `M${item.x + 7} ${item.y}H${end}`, class: node.chosen && node.id !== state.tree.end ? "chosen" : "kept" });
  made.style.strokeWidth = node.chosen ? "3px" : "1px";
  return { element: made, item, rank: node.chosen ? 3 : 1 };
}

/** The line from a parent to a child, as wide as the child's reward is high. */
function edgeTo(item, node, zoom) {
  const parent = itemOf(node.parent);
  const from = parent.x + cellWidth(node.depth - 1, zoom), to = item.x + 1;
  const middle = (from + to) / 2;
  const made = svg("path", { d: `M${from} ${parent.y}C${middle} ${parent.y} ${middle} ${item.y} ${to} ${item.y}`, class: node.kind === "winner" ? "chosen" : node.kind });
  const width = edgeWidth(node);
  made.style.strokeWidth = `${(node.chosen ? Math.max(width, 3) : width) * (zoom.row < 12 ? 0.6 : 1)}px`;
  return { element: made, item, rank: node.chosen ? 3 : node.kind === "pruned" || node.kind === "failed" ? 0 : 2 };
}

function edgeWidth(node) {
  const reward = node.reward ?? 0.3;
  return node.kind === "pruned" || node.kind === "failed" ? 0.7 + reward : 0.8 + 2.2 * reward;
}

function drawNodes() {
  const { columns, zoom, elements } = state.drawn;
  const made = [];
  for (const column of columns) {
    for (const item of column) {
      const node = drawNode(item, zoom);
      elements.set(item, node);
      made.push(node);
    }
    state.drawn.brackets.push(...drawBrackets(column, zoom));
  }
  byId("tree").replaceChildren(...made, ...state.drawn.brackets.map((bracket) => bracket.element));
}

function drawNode(item, zoom) {
  const node = state.tree.nodes[item.id];
  const siblings = node.parent === null ? [item.id] : state.tree.nodes[node.parent].children;
  const made = element("div", {
    class: `node ${node.kind}${node.chosen ? " chosen" : ""}`, role: "treeitem", tabindex: -1, "data-id": item.id,
    "aria-level": node.depth + 1, "aria-setsize": siblings.length, "aria-posinset": siblings.indexOf(item.id) + 1,
    "aria-selected": "false", "aria-label": spoken(node, item), "aria-expanded": node.children.length ? "true" : false,
  });
  made.style.left = `${item.x}px`;
  made.style.top = `${item.y - zoom.row / 2}px`;
  made.style.height = made.style.lineHeight = `${zoom.row}px`;
  made.style.width = `${cellWidth(node.depth, zoom)}px`;
  made.append(glyph(node.kind));
  if (zoom.row < 12) {
    made.firstChild.style.width = made.firstChild.style.height = "9px";
    return made;
  }
  if (node.cluster !== null) made.append(element("span", { class: "letter" }, letters(node.cluster)));
  if (state.tree.routed && node.parent !== null && node.writer) made.append(writerMark(node.writer));
  if (zoom.reward && node.reward !== null) made.append(element("span", { class: "reward" }, shortReward(node.reward)));
  if (zoom.text || node.depth === 0) made.append(element("span", { class: "said" }, node.depth ? oneLine(node.text) || node.reason : "prompt"));
  if (item.members.length > 1) made.append(element("span", { class: "times" }, `×${item.members.length}`));
  for (const part of made.querySelectorAll("span")) {
    part.setAttribute("aria-hidden", "true"); // the label says it all
    part.title = node.text.trim();
  }
  return made;
}

function writerMark(writer) {
  const target = writer === "target";
  return element("span", { class: `writer ${target ? "target" : "draft"}` }, target ? "T" : "d");
}

/** A bracket beside neighbours of one parent that ETS put into one cluster. */
function drawBrackets(column, zoom) {
  const { nodes } = state.tree;
  const brackets = [];
  for (let first = 0, next; first < column.length; first = next) {
    const { cluster, parent } = nodes[column[first].id];
    for (next = first + 1; next < column.length && nodes[column[next].id].cluster === cluster && nodes[column[next].id].parent === parent;) next++;
    if (cluster === null || next - first < 2) continue;
    const made = element("div", { class: "bracket", "aria-hidden": "true" });
    const inset = zoom.row < 12 ? 0 : 4;
    made.style.left = `${column[first].x - 6}px`;
    made.style.top = `${column[first].y - zoom.row / 2 + inset}px`;
    made.style.height = `${(next - first) * zoom.row - 2 * inset}px`;
    brackets.push({ element: made, item: column[first] });
  }
  return brackets;
}

/** Buttons over the columns: the depth, and the KV cache before and after its selection. */
function drawHeads() {
  const { zoom } = state.drawn;
  const most = Math.max(1, ...state.tree.selections.map((one) => one.kv_tokens_candidates));
  const heads = state.tree.levels.map((ids, depth) => {
    const width = cellWidth(depth, zoom);
    const level = selectionAt(depth);
    const made = element("button", { type: "button", class: "head", "data-depth": depth, "aria-label": headLabel(depth, ids.length, level) });
    made.style.left = `${columnX(depth, zoom)}px`;
    made.style.width = `${width}px`;
    made.append(element("b", {}, depth === 0 ? "Prompt" : zoom.column < 60 ? `${depth}` : `Depth ${depth}`));
    if (level) {
      made.append(kvBar(level, most));
      if (zoom.column > 60) made.append(element("small", {}, zoom.text ? `${level.kept.length}/${level.num_candidates} kept, ${level.kv_tokens} KV` : `${level.kv_tokens} KV`));
    } else if (zoom.text && depth > 0) {
      made.append(element("small", {}, `${ids.length} ${ids.length === 1 ? "step" : "steps"}`));
    }
    return made;
  });
  byId("heads").replaceChildren(...heads);
}

function kvBar(level, most) {
  const bar = element("span", { class: "kv" });
  for (const [name, tokens] of [["before", level.kv_tokens_candidates], ["kept", level.kv_tokens]]) {
    const part = element("span", { class: name });
    part.style.width = `${(100 * tokens) / most}%`;
    bar.append(part);
  }
  return bar;
}

const selectionAt = (depth) => state.tree.selections.find((one) => one.depth === depth) ?? null;

function headLabel(depth, count, level) {
  if (depth === 0) return "Prompt: replay from the beginning";
  return level ? `Replay to depth ${depth}: ${selectionText(level)}` : `Replay to depth ${depth}: ${count} steps`;
}

const oneLine = (text) => text.replace(/\s+/g, " ").trim();
const shortReward = (reward) => (reward >= 0.995 ? "1.0" : reward.toFixed(2).slice(1));

/** Cluster 0 is A, 25 is Z, 26 is AA. */
function letters(cluster) {
  return (cluster >= 26 ? letters(Math.floor(cluster / 26) - 1) : "") + String.fromCharCode(65 + (cluster % 26));
}

/** A node in words, for a screen reader. */
function spoken(node, item) {
  if (node.parent === null) return `Prompt: ${oneLine(node.text)}`;
  const parts = [`Step ${node.depth}, ${KINDS[node.kind]}`];
  if (node.reward !== null) parts.push(`reward ${node.reward.toFixed(2)}`);
  if (state.tree.routed && node.writer) parts.push(`by ${node.writer}`);
  if (node.cluster !== null) parts.push(`cluster ${letters(node.cluster)}`);
  if (item.members.length > 1) parts.push(`${item.members.length} siblings folded`);
  return `${parts.join(", ")}: ${oneLine(node.text) || node.reason || "no text yet"}`;
}

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
  return `${letters(node.cluster)}, ${all.length} of depth ${node.depth}, ${all.filter((id) => nodes[id].children.length).length} kept`;
}

const seconds = (value) => (value === null ? "?" : value.toFixed(value < 10 ? 3 : 1));

function facts(rows) {
  const list = element("dl");
  for (const [name, value] of rows) list.append(element("dt", {}, name), element("dd", {}, value));
  return list;
}

// Replay

const replayDepth = () => state.depth ?? state.tree.maxDepth;

function setDepth(depth) {
  if (state.tree === null) return;
  const bounded = Math.max(0, Math.min(state.tree.maxDepth, depth));
  state.depth = bounded === state.tree.maxDepth ? null : bounded;
  showReplay();
}

/** Show the search as it was after the selection at the slider's depth; at the right end, all of it. */
function showReplay() {
  const { tree, drawn } = state;
  const slider = byId("depth"), depth = replayDepth(), whole = state.depth === null;
  const level = selectionAt(depth);
  const held = whole || level === null ? null : union(level.kept);
  for (const [item, made] of drawn.elements) mark(made, tree.nodes[item.id]);
  for (const part of [...drawn.edges, ...drawn.brackets]) mark(part.element, tree.nodes[part.item.id]);
  slider.max = tree.maxDepth;
  slider.value = depth;
  const text = replayText(depth, whole, level);
  byId("replayed").textContent = text;
  slider.setAttribute("aria-valuetext", text);
  showKv(level, depth, whole);
  for (const head of byId("heads").children) head.classList.toggle("current", !whole && Number(head.dataset.depth) === depth);

  function mark(made, node) {
    made.classList.toggle("later", node.depth > depth);
    made.classList.toggle("released", held !== null && node.depth <= depth && !held.has(node.id));
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

function replayText(depth, whole, level) {
  if (whole) {
    const peak = Math.max(0, ...state.tree.selections.map((one) => one.kv_tokens));
    return `Whole search, depth ${state.tree.maxDepth}${peak ? `; at most ${peak} KV tokens kept` : ""}`;
  }
  if (depth === 0) return "The prompt alone";
  return `After depth ${depth}: ${level === null ? "no selection" : selectionText(level)}`;
}

function showKv(level, depth, whole) {
  const most = Math.max(1, ...state.tree.selections.map((one) => one.kv_tokens_candidates));
  const bar = byId("kv");
  let now = level;
  if (whole) now = { kv_tokens: Math.max(0, ...state.tree.selections.map((one) => one.kv_tokens)), kv_tokens_candidates: state.tree.selections.length ? most : 0 };
  else if (depth === 0) now = { kv_tokens: state.tree.nodes[0].numTokens, kv_tokens_candidates: state.tree.nodes[0].numTokens };
  bar.hidden = !state.tree.selections.length;
  bar.querySelector(".before").style.width = `${(100 * (now?.kv_tokens_candidates ?? 0)) / most}%`;
  bar.querySelector(".kept").style.width = `${(100 * (now?.kv_tokens ?? 0)) / most}%`;
}

function togglePlay() {
  if (state.playing) {
    stopPlaying();
    return;
  }
  if (state.tree === null) return;
  if (state.depth === null) setDepth(0);
  byId("play").textContent = "Pause";
  state.playing = setInterval(() => {
    setDepth(replayDepth() + 1);
    if (state.depth === null) stopPlaying();
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
    part.append(element("p", { class: "quiet" }, view.running ? "not yet" : "not known"));
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
    ["KV kept", `${Math.round(stats.kv_tokens_mean)} tokens on average, ${stats.kv_tokens_peak} at most`],
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
  state.depth = null;
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

// Keys and clicks

const TREE_KEYS = { ArrowRight: toChild, ArrowLeft: toParent, ArrowUp: () => toNeighbour(-1), ArrowDown: () => toNeighbour(1), Home: () => 0, End: () => state.tree.end };
const PAGE_KEYS = {
  "[": () => setDepth(replayDepth() - 1), "]": () => setDepth(replayDepth() + 1),
  PageUp: () => setDepth(replayDepth() - 1), PageDown: () => setDepth(replayDepth() + 1),
  "/": () => byId(byId("list").hidden ? "step-filter" : "list-filter").focus(), s: () => byId("step-filter").focus(),
  n: () => showNextProblem(1), p: () => showNextProblem(-1), "+": () => changeZoom(1), "=": () => changeZoom(1),
  "-": () => changeZoom(-1), "0": fitZoom, f: nextFold,
};

function toChild() {
  const { nodes } = state.tree;
  const children = nodes[state.selected].children;
  return children.find((id) => nodes[id].chosen) ?? children.find((id) => nodes[id].children.length) ?? children[0] ?? null;
}

function toParent() {
  return state.tree.nodes[state.selected].parent;
}

function toNeighbour(by) {
  const column = state.drawn.columns[state.tree.nodes[state.selected].depth];
  return column[column.indexOf(itemOf(state.selected)) + by]?.id ?? null;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target } = event;
  if (target.matches("input[type=search]")) {
    onFilterKey(event);
    return;
  }
  if (target.closest("#problems")) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (by !== undefined) {
      showNextProblem(by);
      event.preventDefault();
      return;
    }
  }
  const ownArrows = target.matches("input[type=range]") || target.closest("#problems, .asked, #detail");
  if (event.key in TREE_KEYS && !ownArrows && state.drawn !== null) {
    const next = TREE_KEYS[event.key]();
    if (next !== null) select(next, { focus: true });
    event.preventDefault();
  } else if (event.key in PAGE_KEYS && (state.tree !== null || "np/".includes(event.key))) {
    PAGE_KEYS[event.key]();
    event.preventDefault();
  }
}

function onFilterKey(event) {
  if (event.key === "Escape") {
    event.target.value = "";
    event.target.dispatchEvent(new Event("input"));
    focusTree();
  } else if (event.key === "Enter") {
    if (event.target.id === "step-filter") selectMatch(event.shiftKey ? -1 : 1);
    else if (listed().length && !listed().includes(state.shown)) showNextProblem(1);
  }
}

function focusTree() {
  if (state.drawn === null) document.activeElement?.blur();
  else state.drawn.elements.get(itemOf(state.selected)).focus({ preventScroll: true });
}

function changeZoom(by) {
  if (state.tree === null) return;
  state.zoom = Math.max(0, Math.min(ZOOMS.length - 1, (state.zoom ?? fittingPlace(state.tree)) + by));
  draw();
  bringIntoView(itemOf(state.selected));
}

function nextFold() {
  const choices = [...byId("fold").options].map((option) => option.value);
  state.fold = choices[(choices.indexOf(byId("fold").value) + 1) % choices.length];
  draw();
  bringIntoView(itemOf(state.selected));
}

function fitZoom() {
  state.zoom = null;
  draw();
}

function listen() {
  document.addEventListener("keydown", onKey);
  byId("tree").addEventListener("click", (event) => {
    const node = event.target.closest(".node");
    if (node) select(Number(node.dataset.id), { focus: true, reveal: false });
  });
  byId("heads").addEventListener("click", (event) => {
    const head = event.target.closest(".head");
    if (head) setDepth(Number(head.dataset.depth));
  });
  byId("problems").addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (!item) return;
    state.picked = true;
    show(Number(item.dataset.place));
  });
  byId("verdicts").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    state.verdict = button.dataset.verdict;
    showList();
  });
  byId("list-filter").addEventListener("input", (event) => { state.listText = event.target.value; showList(); });
  byId("step-filter").addEventListener("input", (event) => { state.stepText = event.target.value; showMatches(); });
  byId("depth").addEventListener("input", (event) => { stopPlaying(); setDepth(Number(event.target.value)); });
  byId("play").addEventListener("click", togglePlay);
  byId("fold").addEventListener("change", (event) => { state.fold = event.target.value; draw(); });
  byId("zoom-in").addEventListener("click", () => changeZoom(1));
  byId("zoom-out").addEventListener("click", () => changeZoom(-1));
  byId("zoom-fit").addEventListener("click", fitZoom);
  window.addEventListener("resize", () => { if (state.zoom === null && state.shown >= 0) draw(); });
  window.addEventListener("beforeprint", () => {
    if (state.drawn !== null) byId("canvas").style.zoom = Math.min(1, 960 / state.drawn.width);
  });
  window.addEventListener("afterprint", () => { byId("canvas").style.zoom = 1; });
}

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

function start() {
  const { live, problems } = readJson("index");
  state.live = live;
  state.entries = problems.map((summary, place) => ({ key: summary.id, summary, source: `problem-${place}`, view: null }));
  listen();
  byId("list").hidden = state.entries.length < 2 && live === null;
  if (state.entries.length) show(0);
  else byId("toolbar").hidden = byId("detail").hidden = true;
  if (live !== null) poll();
}

start();
