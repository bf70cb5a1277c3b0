"""Blocks of a page that a program writes: `<!-- name -->` to `<!-- /name -->`."""

__all__ = ["fill"]


def fill(page: str, name: str, body: str) -> str:
    """Return the page with `body` between the two markers of `name`.

    Raises:
        ValueError: If the page does not have each of them exactly once, in this order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"expected {begin} and then {end}, once each\nPut them into the page.")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{body.strip()}\n{end}{after}"
