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

/** Buttons over the columns: the depth, and the KV cache before and after its selection, where it has one of its own. */
function drawHeads() {
  const { zoom } = state.drawn;
  const most = Math.max(1, ...state.tree.selections.map((one) => one.kv_tokens_candidates));
  const heads = state.tree.levels.map((ids, depth) => {
    const width = cellWidth(depth, zoom);
    const level = selectionAt(depth);
    const made = element("button", { type: "button", class: "head", "data-moment": momentOf(depth), "aria-label": headLabel(depth, ids.length, level) });
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

const selectionAt = (depth) => (state.tree.byDepth && state.tree.selections.find((one) => one.depth === depth)) || null;

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
