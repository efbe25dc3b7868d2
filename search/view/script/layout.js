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
