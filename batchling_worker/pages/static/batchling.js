// Loads the page's changing part every two seconds. Without it the page works: links, forms, and a reload by the browser.
"use strict";
(() => {
  const live = document.getElementById("bl-live");
  const stale = document.getElementById("bl-stale");
  const OFTEN = 2000;
  const SELDOM = 30000;
  const PATIENCE = 10000;
  let etag = null;
  let wait = OFTEN;
  let timer = 0;
  let seen = new Date();

  const url = () => {
    const there = new URL(window.location.href);
    there.searchParams.set("partial", "1");
    there.searchParams.delete("done");
    return there;
  };

  const busy = () => {
    const selection = window.getSelection();
    const selects = selection && !selection.isCollapsed && live.contains(selection.anchorNode);
    const at = document.activeElement;
    // Somebody who chooses a filter must not lose it.
    return selects || (live.contains(at) && ["INPUT", "SELECT", "TEXTAREA"].includes(at.tagName));
  };

  const pathTo = (element) => {
    if (!live.contains(element)) return null;
    if (element.id) return `#${CSS.escape(element.id)}`;
    const href = element.getAttribute("href");
    return href === null ? null : `${element.tagName}[href="${CSS.escape(href)}"]`;
  };

  const dress = () => {
    for (const button of live.querySelectorAll("[data-copy]")) {
      button.hidden = !navigator.clipboard;
    }
  };

  const put = (html) => {
    const focused = pathTo(document.activeElement);
    const [left, top] = [window.scrollX, window.scrollY];
    live.innerHTML = html;
    dress();
    window.scrollTo(left, top);
    const again = focused && live.querySelector(focused);
    if (again) again.focus({ preventScroll: true });
  };

  const say = (why) => {
    stale.textContent = `Not updated since ${seen.toLocaleTimeString()}: ${why}`;
    stale.hidden = false;
  };

  const look = async () => {
    const headers = etag ? { "If-None-Match": etag } : {};
    const answer = await fetch(url(), { headers, cache: "no-store", credentials: "same-origin", redirect: "error" });
    if (answer.status === 304) return "";
    const html = await answer.text();
    if (!answer.headers.get("X-Batchling-Partial") && !(answer.status === 503)) {
      throw new Error(answer.status === 401 || answer.status === 403 ? "log in again." : "Flower answers otherwise.");
    }
    if (!answer.ok) {
      const said = new DOMParser().parseFromString(html, "text/html").querySelector(".alert");
      throw new Error(said ? said.textContent : "Flower cannot read the batches.");
    }
    etag = answer.headers.get("ETag");
    return html;
  };

  const turn = async () => {
    window.clearTimeout(timer);
    if (document.hidden) {
      wait = Math.min(wait * 2, SELDOM);
    } else if (busy()) {
      if (new Date() - seen > PATIENCE) say("you are choosing or selecting something.");
    } else {
      try {
        const html = await look();
        if (html && !busy()) put(html);
        else if (html) etag = null;
        seen = new Date();
        stale.hidden = true;
        wait = OFTEN;
      } catch (error) {
        wait = Math.min(wait * 2, SELDOM);
        say(error instanceof TypeError ? "Flower does not answer." : error.message);
      }
    }
    timer = window.setTimeout(turn, wait);
  };

  const rows = () => [...live.querySelectorAll("a.bl-row, .bl-card h3 a")];
  const step = (by) => {
    const all = rows();
    const at = all.indexOf(document.activeElement);
    const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + by))];
    if (next) next.focus();
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("bl-q").focus();
    } else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
  });
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
  });
  dress();
  if (!live.dataset.refresh) return;
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      wait = OFTEN;
      turn();
    }
  });
  timer = window.setTimeout(turn, OFTEN);
})();
