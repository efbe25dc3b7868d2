"""Where things stand on the viewer's page."""


def node(page, number):
    return page.locator(f'.node[data-id="{number}"]')


def selected(page):
    return page.locator('.node[aria-selected="true"]')


def listed_all(page):
    return page.get_by_role("listbox", name="Problems").get_by_role("option")


def listed_now(page):
    return page.get_by_role("listbox", name="Problems").get_by_role("option", selected=True)
