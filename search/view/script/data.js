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

/** A tree out of a view's columns: nodes with children, ids by depth, and the moments of its replay. */
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
  return {
    nodes, levels, maxDepth: Math.max(0, levels.length - 1), routed, clustered, selections: view.selections, byDepth: view.by_depth,
    moments: momentsOf(view, levels.length), end: ends.at(-1)?.id ?? 0,
  };
}

/** What the replay stops at before the whole search: depth by depth, or where depths are not selected one by one, selection by selection. */
function momentsOf(view, numLevels) {
  const prompt = { name: "The prompt alone", selection: null, has: (node) => node.id === 0 };
  if (!view.by_depth) {
    const { selections } = view;
    return [prompt, ...selections.map((one, at) => ({ name: `After selection ${at + 1} of ${selections.length}`, selection: one, has: (node) => node.id < one.num_nodes }))];
  }
  return Array.from({ length: Math.max(0, numLevels - 1) }, (_, depth) => depth === 0 ? prompt : {
    name: `After depth ${depth}`, selection: view.selections.find((one) => one.depth === depth) ?? null, has: (node) => node.depth <= depth,
  });
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
