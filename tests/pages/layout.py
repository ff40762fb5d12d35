"""Check of an HTML page in a browser."""

from pathlib import Path

from playwright.sync_api import Browser

# Cells of the first column of each table that scrolls, after the table was scrolled to its end.
HIDDEN_CELLS = """() => [...document.querySelectorAll(".scroll")].flatMap(box => {
  box.scrollLeft = box.scrollWidth
  const left = box.getBoundingClientRect().left
  return [...box.querySelectorAll("td:first-child")].filter(cell => {
    const place = cell.getBoundingClientRect()
    return Math.abs(place.left - left) > 1 || place.width > innerWidth / 2
  }).map(cell => cell.textContent)
})"""
DEAD_LINKS = """() => [...document.querySelectorAll("a[href^='#']")]
  .filter(link => !document.getElementById(link.hash.slice(1))).map(link => link.hash)"""
LOADED = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"


def check_layout(browser: Browser, path: Path, width: int) -> list[str]:
    """Check a page that is `width` pixels wide, and return its list of contents.

    The page must not scroll sideways, and the first column of each wide table stays visible. Links
    inside the page have targets, all images load, and nothing is loaded from the network.
    """
    page = browser.new_page(viewport={"width": width, "height": 800})
    messages: list[str] = []
    schemes: set[str] = set()
    page.on("console", lambda message: messages.append(message.text))
    page.on("request", lambda request: schemes.add(request.url.partition(":")[0]))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    page.wait_for_function(LOADED)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(HIDDEN_CELLS) == []
    assert page.evaluate(DEAD_LINKS) == []
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == (
        page.locator("[id]").count()
    )
    assert schemes <= {"file", "data"}
    assert messages == []
    contents = page.locator("nav a").all_text_contents()
    page.close()
    return contents
