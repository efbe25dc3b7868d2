// Keys and clicks

const TREE_KEYS = { ArrowRight: toChild, ArrowLeft: toParent, ArrowUp: () => toNeighbour(-1), ArrowDown: () => toNeighbour(1), Home: () => 0, End: () => state.tree.end };
const PAGE_KEYS = {
  "[": () => setMoment(replayMoment() - 1), "]": () => setMoment(replayMoment() + 1),
  PageUp: () => setMoment(replayMoment() - 1), PageDown: () => setMoment(replayMoment() + 1),
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
    if (head) setMoment(Number(head.dataset.moment));
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
  byId("replay").addEventListener("input", (event) => { stopPlaying(); setMoment(Number(event.target.value)); });
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
