"""The viewer's page in a real browser while searches grow: live mode."""

import http.server
import json
import threading

import pytest
from playwright.sync_api import expect
from trees import add, small_tree, view_of
from view_page import listed_all, listed_now, node, selected

from search.decision.verdict import Verdict
from search.tree import SearchTree
from search.types import Selected
from search.view import page


class Server:
    """Serves a live page, and what a test puts into it."""

    def __init__(self):
        self.searches, self.lock = {}, threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with outer.lock:
                    found = outer.answer(self.path)
                body, kind = found or ("", "text/plain")
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def answer(self, path):
        if path == "/live":
            return page("Searches", [], live="/live/searches"), "text/html"
        if path == "/live/searches":
            names = ("id", "problem", "answer", "correct", "error", "running", "method", "width", "num_nodes")
            listed = [{name: view[name] for name in names} for view in self.searches.values()]
            return json.dumps({"problems": listed}), "application/json"
        for name, view in self.searches.items():
            if path == f"/live/searches/{name.replace(' ', '%20')}":
                return json.dumps(view), "application/json"
        return None

    def put(self, name, tree, selections, **others):
        view = view_of(tree, selections, name, method="ets", width=8, **others)
        with self.lock:
            self.searches = {**self.searches, name: view}

    def stop(self):
        if self.thread.is_alive():
            self.http.shutdown()
            self.thread.join()
            self.http.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.stop()


def test_a_search_is_watched_while_it_grows(visit, server, artefacts):
    opened = visit(address=f"{server.address}/live")
    shown = opened.page
    expect(shown.locator("#empty")).to_contain_text("No search yet")
    tree = SearchTree("t", range(5), "How many?")
    server.put("a b", tree, [], running=True)
    expect(node(shown, 0)).to_be_visible()
    begun = SearchTree("t", range(5), "How many?")
    for _ in range(2):
        begun.add_child(begun.root.id)
    server.put("a b", begun, [], running=True)
    expect(node(shown, 2).locator("svg")).to_have_class("glyph-pending")
    first = [add(tree, 0, text, 0.5) for text in ("One.\n\n", "Two.\n\n", "Three.\n\n")]
    server.put("a b", tree, [], running=True)
    expect(node(shown, 3).locator("svg")).to_have_class("glyph-open")
    node(shown, 2).click()
    tree.prune(first[0], "not kept")
    ends = [add(tree, leaf, "The answer is 7.", 0.9) for leaf in first[1:]]
    server.put("a b", tree, [Selected(tuple(first), tuple(first[1:]))], running=True)
    expect(node(shown, 5)).to_be_visible()
    expect(selected(shown)).to_have_attribute("data-id", "2")
    expect(node(shown, 2)).to_be_focused()
    shown.keyboard.press("[")
    expect(shown.locator("#replayed")).to_contain_text("After depth 1: 2 of 3 kept")
    for end in ends:
        tree.finish(end, "end of text")
    server.put("a b", tree, [Selected(tuple(first), tuple(first[1:]))], verdict=Verdict("7", winner=ends[0]))
    expect(shown.locator("#header")).to_contain_text("Answer 7")
    expect(node(shown, ends[0]).locator("svg")).to_have_class("glyph-winner")
    expect(selected(shown)).to_have_attribute("data-id", "2")
    expect(shown.locator("#replayed")).to_contain_text("After depth 1")
    shown.screenshot(path=artefacts / "live.png")
    assert all(url.startswith((server.address, "data:")) for url in opened.requests)


def test_a_new_search_is_shown_until_a_person_picks_one(visit, server):
    shown = visit(address=f"{server.address}/live").page
    tree, selections, _ = small_tree()
    server.put("first", tree, selections, running=True)
    expect(listed_now(shown)).to_contain_text("first")
    server.put("first", tree, selections)
    server.put("second", tree, selections, running=True)
    expect(listed_now(shown)).to_contain_text("second")
    listed_all(shown).first.click()
    server.put("second", tree, selections)
    server.put("third", tree, selections, running=True)
    expect(listed_all(shown)).to_have_count(3)
    expect(listed_now(shown)).to_contain_text("first")


def test_a_server_that_is_gone_is_said_and_the_tree_stays(visit, server):
    opened = visit(address=f"{server.address}/live")
    shown = opened.page
    tree, selections, _ = small_tree()
    server.put("only", tree, selections, running=True)
    expect(node(shown, 6)).to_be_visible()
    expect(shown.locator("#server")).to_be_hidden()
    server.stop()
    expect(shown.locator("#server")).to_contain_text("The server does not answer")
    expect(node(shown, 6)).to_be_visible()
    shown.keyboard.press("Home")
    expect(selected(shown)).to_have_attribute("data-id", "0")
    opened.console[:] = [said for said in opened.console if "ERR_CONNECTION_REFUSED" not in said]
