"use strict";

/* The tree viewer. Data comes from the page's own JSON elements, or in live mode from the server that gave the page.
   One script in parts: state, data, layout, drawing, selection and replay, problems and header, input, live and start. */

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
  entries: [], shown: -1, tree: null, drawn: null, selected: 0, moment: null, zoom: null, fold: null, verdict: "all",
  listText: "", stepText: "", picked: false, playing: 0, live: null, lost: false,
};
