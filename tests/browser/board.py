"""A TensorBoard server on this machine and a browser that looks at it, without any network."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium():
    """The path of the system's browser, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def served(folder, logdir):
    """Serve a folder with TensorBoard, which shows the path within `folder`; the address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir]
    command += ["--host", "localhost", "--port", str(port), "--reload_interval", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=folder, **quiet)
    address = f"http://localhost:{port}/"
    try:
        _wait_for(f"{address}data/runs", server)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(address, server):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert server.poll() is None, "TensorBoard has ended"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.read().strip() != b"[]":  # runs are there
                    return
        except OSError:
            pass
        time.sleep(0.3)
    raise AssertionError("TensorBoard shows no runs after 60 s")


@contextmanager
def browsing(profile):
    """Open a page in the system's Chromium, with an empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile),
            executable_path=chromium(),
            headless=True,
            args=FLAGS,
            viewport={"width": 1600, "height": 900},
        )
        try:
            page = context.pages[0] if context.pages else context.new_page()
            page.set_default_timeout(30_000)
            page.route(re.compile(r"^https?://(?!localhost)"), lambda route: route.abort())
            yield page
        finally:
            context.close()


def open_tab(page, address, name):
    """Open a tab of TensorBoard, and wait until nothing is being loaded any more."""
    page.goto("about:blank")
    page.goto(f"{address}#{name}")
    page.wait_for_load_state("networkidle")
    time.sleep(2)  # charts move into place


def get(address, path):
    """What the server answers to the page, as an object."""
    with urllib.request.urlopen(f"{address}data/plugin/{path}", timeout=20) as answer:
        return json.loads(answer.read())
